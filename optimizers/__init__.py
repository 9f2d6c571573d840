"""Turn feedback into new parameter values.

Optimizers that ask a model (`OptoPrime`), that search without one (`Evolve`), and that follow
gradients (`AdamW` and its family). `Partition` steps several as one; `optimize` chooses for you.
Names are imported when they are first used, so that torch loads only where tensors are.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optimizers.base import Change, Optimizer, Proposal, Rejection, Update, Usage
    from optimizers.llm.exemplars import Exemplars
    from optimizers.llm.opro import OPRO
    from optimizers.llm.optoprime import OptoPrime
    from optimizers.llm.patch import Patch
    from optimizers.llm.reflect import Reflect
    from optimizers.llm.spo import SPO
    from optimizers.llm.textgrad import TextGrad
    from optimizers.numeric import (
        COSMOS,
        FRUGAL,
        MESA,
        REX,
        SAF,
        SAM,
        SGD,
        SGDP,
        SOAP,
        SPAM,
        AdaBelief,
        Adafactor,
        AdaHessian,
        Adam,
        AdamP,
        AdamW,
        AdaptiveBatch,
        CosineDecay,
        DCTAdamW,
        EXAdam,
        Fira,
        GaLore,
        LinearDecay,
        Lion,
        LionK,
        LookSAM,
        MeZO,
        Muon,
        NadamW,
        NaturalGaLore,
        RandomSubspace,
        RankDescent,
        RefinedDecay,
        ScheduleFreeAdamW,
        Shampoo,
        ShardedState,
        Sophia,
        StableSPAM,
        StaleSAM,
        StepDecay,
        Trion,
        WarmupStableDecay,
        merge_gradients,
    )
    from optimizers.partition import Partition, optimize
    from optimizers.search import Evolve, RandomSearch
    from optimizers.training.budget import Budget
    from optimizers.training.loop import afit, fit

_HOMES = {
    "optimizers.base": ("Change", "Optimizer", "Proposal", "Rejection", "Update", "Usage"),
    "optimizers.partition": ("Partition", "optimize"),
    "optimizers.llm.exemplars": ("Exemplars",),
    "optimizers.llm.opro": ("OPRO",),
    "optimizers.llm.optoprime": ("OptoPrime",),
    "optimizers.llm.patch": ("Patch",),
    "optimizers.llm.reflect": ("Reflect",),
    "optimizers.llm.spo": ("SPO",),
    "optimizers.llm.textgrad": ("TextGrad",),
    "optimizers.search": ("Evolve", "RandomSearch"),
    "optimizers.training.budget": ("Budget",),
    "optimizers.training.loop": ("afit", "fit"),
    "optimizers.numeric": (
        "COSMOS", "FRUGAL", "MESA", "REX", "SAF", "SAM", "SGD", "SGDP", "SOAP", "SPAM", "AdaBelief",
        "AdaHessian", "Adafactor", "Adam", "AdamP", "AdamW", "AdaptiveBatch", "CosineDecay",
        "DCTAdamW", "EXAdam", "Fira", "GaLore", "LinearDecay", "Lion", "LionK", "LookSAM", "MeZO", "Muon",
        "NadamW", "NaturalGaLore", "RandomSubspace", "RankDescent", "RefinedDecay",
        "ScheduleFreeAdamW", "Shampoo", "ShardedState", "Sophia", "StableSPAM", "StaleSAM", "StepDecay",
        "Trion", "WarmupStableDecay", "merge_gradients",
    ),
}  # fmt: skip
_HOME = {name: module for module, names in _HOMES.items() for name in names}

__all__ = [
    "COSMOS",
    "FRUGAL",
    "MESA",
    "OPRO",
    "REX",
    "SAF",
    "SAM",
    "SGD",
    "SGDP",
    "SOAP",
    "SPAM",
    "SPO",
    "AdaBelief",
    "AdaHessian",
    "Adafactor",
    "Adam",
    "AdamP",
    "AdamW",
    "AdaptiveBatch",
    "Budget",
    "Change",
    "CosineDecay",
    "DCTAdamW",
    "EXAdam",
    "Evolve",
    "Exemplars",
    "Fira",
    "GaLore",
    "LinearDecay",
    "Lion",
    "LionK",
    "LookSAM",
    "MeZO",
    "Muon",
    "NadamW",
    "NaturalGaLore",
    "Optimizer",
    "OptoPrime",
    "Partition",
    "Patch",
    "Proposal",
    "RandomSearch",
    "RandomSubspace",
    "RankDescent",
    "RefinedDecay",
    "Reflect",
    "Rejection",
    "ScheduleFreeAdamW",
    "Shampoo",
    "ShardedState",
    "Sophia",
    "StableSPAM",
    "StaleSAM",
    "StepDecay",
    "TextGrad",
    "Trion",
    "Update",
    "Usage",
    "WarmupStableDecay",
    "afit",
    "fit",
    "merge_gradients",
    "optimize",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(
            f"module 'optimizers' has no attribute {name!r}; it has {sorted(_HOME)}"
        )
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOME)
