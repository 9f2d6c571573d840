"""Every rule by name."""

from __future__ import annotations

from optimizers.numeric.rules import (
    adabelief,
    adam,
    curvature,
    exadam,
    lion,
    momentum,
    schedule_free,
    spam,
)
from optimizers.numeric.rules.rule import Rule

__all__ = ["RULES"]

RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        momentum.SGD,
        momentum.MOMENTUM,
        momentum.NESTEROV,
        adam.ADAM,
        adam.ADAMW,
        adam.AMSGRAD,
        adam.AMSGRADW,
        adam.NADAM,
        adam.NADAMW,
        lion.LION,
        lion.LION_HUBER,
        adabelief.ADABELIEF,
        exadam.EXADAM,
        curvature.SOPHIA,
        curvature.ADAHESSIAN,
        spam.SPAM,
        schedule_free.SCHEDULE_FREE,
    )
}
