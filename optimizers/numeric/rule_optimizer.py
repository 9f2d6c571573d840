"""An optimizer made of a rule, a codec and an executor."""

from __future__ import annotations

from typing import Any, TypedDict

import torch
from torch import Tensor

from optimizers.numeric.codecs.codec import computing_dtype
from optimizers.numeric.codecs.companding import COMPANDING
from optimizers.numeric.codecs.dynamic import DYNAMIC
from optimizers.numeric.codecs.plain import FP32
from optimizers.numeric.codecs.table import codec_for, codec_named
from optimizers.numeric.executors.batch import Batch
from optimizers.numeric.executors.choice import check_backend, choose
from optimizers.numeric.optimizer import Group, Member, NumericOptimizer, real
from optimizers.numeric.rules.rule import Rule, State

__all__ = ["Options", "RuleOptimizer", "direction"]


class Options(TypedDict, total=False):
    """The keyword options that every rule optimizer takes; see RuleOptimizer."""

    maximize: bool
    foreach: bool | None
    capturable: bool
    differentiable: bool
    fused: bool | None
    backend: str
    state: str
    nonfinite: str


class RuleOptimizer(NumericOptimizer):
    """The base of the element-wise optimizers.

    `backend` names the executor: "auto", "native" (C++, CPU), "triton" (GPU), "foreach",
    "compiled" (torch.compile) or "eager". `state` names how the state is stored: "fp32", "bf16",
    "bf16-stochastic", "8bit" or "8bit-dynamic".
    """

    def __init__(
        self,
        params: Any,
        defaults: dict[str, Any],
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        backend: str = "auto",
        state: str = "fp32",
        nonfinite: str = "allow",
    ) -> None:
        if capturable or differentiable:
            flag = "capturable" if capturable else "differentiable"
            raise ValueError(
                f"{type(self).__name__} does not support {flag}=True: its scalars are computed on "
                f"the host; use torch.optim for that, or leave {flag} out"
            )
        if foreach and fused:
            raise RuntimeError("`fused` and `foreach` cannot be `True` together.")
        if backend == "auto" and foreach is not None:
            backend = "foreach" if foreach else "eager"
        self.backend = check_backend(backend)
        self.codec = codec_named(state).name
        self.ran: tuple[str, ...] = ()
        super().__init__(params, defaults, maximize=maximize, nonfinite=nonfinite)

    def rule(self, group: Group) -> Rule:
        """The rule that `group` asks for."""
        raise NotImplementedError

    def begin(self, state: dict[str, Any], p: Tensor, group: Group) -> None:
        codec = codec_for(self.codec, p)
        for kind in self.rule(group).states:
            for suffix, part in zip(codec.suffixes, codec.empty(p, kind), strict=True):
                state.setdefault(kind.name + suffix, part)

    def begun(self, state: dict[str, Any], group: Group) -> bool:
        return all(name in state for name in self.needed(group)) and (
            not self.counts or "step" in state
        )

    def needed(self, group: Group) -> tuple[str, ...]:
        return tuple(kind.name for kind in self.rule(group).states)

    def update(self, group: Group, members: list[Member]) -> None:
        rule = self.rule(group)
        buckets: dict[Any, list[Member]] = {}
        for m in members:
            codec = codec_for(self.codec, m.tensor)
            buckets.setdefault((m.p.device, m.p.dtype, codec.name, m.t), []).append(m)
        ran = []
        for (_, _, name, t), bucket in buckets.items():
            codec = codec_named(name)
            batch = Batch(
                rule,
                rule.scalars(group, t),
                codec,
                [m.p for m in bucket],
                [m.g for m in bucket],
                [
                    [[real(m.state[k.name + x]) for m in bucket] for x in codec.suffixes]
                    for k in rule.states
                ],
                scale=-1.0 if group["maximize"] else 1.0,
                seed=t << 20,
            )
            executor = choose(self.backend, batch)
            executor.run(batch)
            ran.append(executor.name)
        self.ran = tuple(sorted({*ran}))

    def decoded(self, m: Member, name: str) -> Tensor:
        """The state `name` of a member as numbers of the computing dtype."""
        codec = codec_for(self.codec, m.tensor)
        (kind,) = (k for k in self.rule(self._group_of(m.tensor)).states if k.name == name)
        parts = tuple(real(m.state[name + suffix]) for suffix in codec.suffixes)
        return codec.decode(parts, kind, computing_dtype(m.p.dtype))

    def restored(self, saved: dict[str, Any], p: Tensor, group: Group) -> dict[str, Any]:
        state = super().restored(saved, p, group)
        for kind in self.rule(group).states:
            if kind.name in state:
                _translate(state, kind, p, codec_for(self.codec, p).name)
        return state

    def __repr__(self) -> str:
        ran = f", ran by {' and '.join(self.ran)}" if self.ran else ""
        head = f"{type(self).__name__}[backend={self.backend!r}{ran}, state={self.codec!r}]"
        return head + super().__repr__().removeprefix(type(self).__name__)


def _translate(state: dict[str, Any], kind: State, p: Tensor, name: str) -> None:
    """Store one loaded state by the codec `name`, whatever it was stored by."""
    held: Any = FP32
    for codec in (COMPANDING, DYNAMIC):
        if kind.name + codec.suffixes[1] in state:
            held = codec
    wanted = codec_named(name)
    old = tuple(state.pop(kind.name + suffix) for suffix in held.suffixes)
    new = wanted.empty(p, kind)
    same = held.suffixes == wanted.suffixes
    if same and all(a.dtype == b.dtype for a, b in zip(old, new, strict=True)):
        for a, b in zip(old, new, strict=True):
            b.copy_(a)
    elif p.is_complex():
        new[0].copy_(old[0])
    else:
        value = held.decode(old, kind, computing_dtype(p.dtype))
        wanted.encode(value, new, kind, seed=0)
    for suffix, part in zip(wanted.suffixes, new, strict=True):
        state[kind.name + suffix] = part


def direction(rule: Rule, g: Tensor, states: list[Tensor], group: Group, t: int) -> Tensor:
    """The rule's step for `g` at rate 1 without decay; `states` are changed in place.

    What a change of coordinates uses, so that it has no formula of its own.
    """
    from optimizers.numeric.executors.eager import Eager

    p = torch.zeros_like(g)
    scalars = rule.scalars({**group, "lr": 1.0, "weight_decay": 0.0}, t)
    Eager().run(Batch(rule, scalars, FP32, [p], [g], [[[s]] for s in states]))
    return p.neg_()


