"""The table of the family: one row per optimizer, walked by the tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from optimizers.numeric.adabelief import AdaBelief
from optimizers.numeric.adam import Adam, AdamW, NadamW
from optimizers.numeric.exadam import EXAdam
from optimizers.numeric.lion import Lion, LionK
from optimizers.numeric.projection import SGDP, AdamP
from optimizers.numeric.rule_optimizer import RuleOptimizer
from optimizers.numeric.sgd import SGD
from optimizers.numeric.spam import SPAM, StableSPAM
from tests.optimizers.numeric import formulas


@dataclass(frozen=True)
class Row:
    """One optimizer as the tests run it; `rate` finds the minimum of a parabola in `steps`."""

    name: str
    make: type[RuleOptimizer]
    options: dict[str, Any] = field(default_factory=dict)
    rate: float = 0.05
    formula: formulas.Formula | None = None
    torch: Callable[..., torch.optim.Optimizer] | None = None
    steps: int = 500
    pure: bool = True  # the rule alone: no statistics around it

    @property
    def valley(self) -> float:
        """The rate of a small search for Rosenbrock's function."""
        return VALLEY.get(self.name, 0.003 if self.name.startswith("SGD") else 0.3)

    def __str__(self) -> str:
        return self.name

    def __call__(self, params: Any, **options: Any) -> RuleOptimizer:
        return self.make(params, **{"lr": self.rate, **self.options, **options})


def _nadamw(params: Any, **options: Any) -> torch.optim.Optimizer:
    return torch.optim.NAdam(params, decoupled_weight_decay=True, **options)


MOMENTUM = {"momentum": 0.9}
NESTEROV = {"momentum": 0.9, "nesterov": True}
DAMPENED = {"momentum": 0.9, "dampening": 0.3}

VALLEY = {
    "Lion": 0.1,
    "LionK-huber": 0.1,
    "LionK-l2": 0.1,
    "EXAdam": 0.1,
    "EXAdam-first": 0.03,
    "StableSPAM": 0.1,
}

FAMILY = [
    Row("SGD", SGD, torch=torch.optim.SGD),
    Row("SGD-momentum", SGD, MOMENTUM, 0.02, formulas.sgd_momentum, torch.optim.SGD),
    Row("SGD-nesterov", SGD, NESTEROV, 0.02, torch=torch.optim.SGD),
    Row("SGD-dampened", SGD, DAMPENED, 0.02, torch=torch.optim.SGD),
    Row("Adam", Adam, torch=torch.optim.Adam),
    Row("Adam-amsgrad", Adam, {"amsgrad": True}, torch=torch.optim.Adam),
    Row("AdamW", AdamW, formula=formulas.adamw, torch=torch.optim.AdamW),
    Row("AdamW-amsgrad", AdamW, {"amsgrad": True}, torch=torch.optim.AdamW),
    Row("NadamW", NadamW, torch=_nadamw),
    Row("NAdam", NadamW, {"decoupled_weight_decay": False}, torch=torch.optim.NAdam),
    Row("Lion", Lion, rate=0.001, formula=formulas.lion, steps=2000),
    Row("LionK-huber", LionK, {"kappa": "huber", "delta": 0.1}, 0.01),
    Row("LionK-l2", LionK, {"kappa": "l2"}, 0.01, formulas.lion_ball, pure=False),
    Row("AdaBelief", AdaBelief, formula=formulas.adabelief),
    Row("EXAdam", EXAdam, rate=0.01, formula=formulas.exadam),
    Row("EXAdam-first", EXAdam, {"log_factor": True}, 0.005, formulas.exadam_first),
    Row(
        "SPAM",
        SPAM,
        {"reset_interval": 10, "warmup_steps": 4, "grace_steps": 3, "threshold": 50.0},
        0.02,
        formulas.spam,
    ),
    Row("StableSPAM", StableSPAM, {"reset_interval": 12}, 0.01, formulas.stable_spam, pure=False),
    Row("AdamP", AdamP, formula=formulas.adamp, pure=False),
    Row("SGDP", SGDP, rate=0.02, formula=formulas.sgdp, pure=False),
]


def named(name: str) -> Row:
    """The row of that name."""
    return next(row for row in FAMILY if row.name == name)
