"""Numeric optimizers: drop-in for torch.optim, one rule in many executions."""

from __future__ import annotations

from importlib import import_module
from typing import Any

_PLACES = {
    "COSMOS": "bases.cosmos",
    "FRUGAL": "bases.frugal",
    "REX": "control.schedules",
    "SAF": "estimators.trajectory",
    "SAM": "estimators.sam",
    "SGD": "sgd",
    "SGDP": "projection",
    "SOAP": "bases.soap",
    "SPAM": "spam",
    "AdaBelief": "adabelief",
    "AdaHessian": "curvature",
    "Adafactor": "bases.adafactor",
    "Adam": "adam",
    "AdamP": "projection",
    "AdamW": "adam",
    "AdaptiveBatch": "control.batch_size",
    "CosineDecay": "control.schedules",
    "DCTAdamW": "bases.dct",
    "EXAdam": "exadam",
    "Fira": "bases.galore",
    "GaLore": "bases.galore",
    "LinearDecay": "control.schedules",
    "Lion": "lion",
    "LionK": "lion",
    "LookSAM": "estimators.sam",
    "MESA": "estimators.trajectory",
    "MeZO": "estimators.mezo",
    "Muon": "bases.muon",
    "NadamW": "adam",
    "NaturalGaLore": "bases.natural_galore",
    "RandomSubspace": "bases.subspace",
    "RankDescent": "estimators.ranking",
    "RefinedDecay": "control.schedules",
    "ScheduleFreeAdamW": "schedule_free",
    "Shampoo": "bases.shampoo",
    "ShardedState": "control.sharding",
    "Sophia": "curvature",
    "StableSPAM": "spam",
    "StaleSAM": "estimators.sam",
    "StepDecay": "control.schedules",
    "Trion": "bases.dct",
    "WarmupStableDecay": "control.schedules",
    "merge_gradients": "control.merging",
}

__all__ = list(_PLACES)


def __getattr__(name: str) -> Any:
    """Load an optimizer, and torch with it, when it is asked for."""
    if name in _PLACES:
        return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """The optimizers."""
    return sorted(__all__)
