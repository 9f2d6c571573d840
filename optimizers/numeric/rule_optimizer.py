"""An optimizer made of a rule, a codec and an executor."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from operator import is_
from typing import Any, TypedDict

import torch
from torch import Tensor
from typing_extensions import override

from optimizers.numeric.captured import rows_of, run, wide
from optimizers.numeric.codecs.codec import computing_dtype
from optimizers.numeric.codecs.companding import COMPANDING
from optimizers.numeric.codecs.dynamic import DYNAMIC
from optimizers.numeric.codecs.plain import FP32
from optimizers.numeric.codecs.table import codec_for, codec_named
from optimizers.numeric.control.clipping import clip_factor, clip_scale
from optimizers.numeric.executors.batch import Batch, seed_of
from optimizers.numeric.executors.choice import check_backend, choose
from optimizers.numeric.optimizer import (
    Cohort,
    Group,
    Member,
    NumericOptimizer,
    local,
    real,
    with_gradient,
)
from optimizers.numeric.rules.rule import Rule, State
from optimizers.numeric.rules.table import RULES

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
    rounding: str
    clip_norm: float | None


PLANNED = ("auto", "foreach", "native", "triton")
"""The values of `backend=` whose executors keep addresses from step to step."""


@dataclass(slots=True)
class _Plan:
    """What the last step of a group found out about its tensors."""

    params: list[Tensor]
    states: list[dict[str, Any]]
    batch: Batch
    cohort: Cohort | None
    kept: Callable[[], bool]
    """Whether the states hold what they held, their step numbers too where there is a cohort."""

    def fits(
        self, params: list[Tensor], grads: list[Tensor], state: Mapping[Tensor, Any], backend: str
    ) -> bool:
        """Whether tensors, states and memory are the same, and the gradients alike."""
        known = self.batch.addresses
        if known is None or backend not in PLANNED or len(params) != len(self.params):
            return False
        return (
            all(map(is_, params, self.params))
            and all(map(is_, map(state.__getitem__, params), self.states))
            and self.kept()
            and known.hold(params, grads)
        )


class RuleOptimizer(NumericOptimizer):
    """The base of the element-wise optimizers.

    `backend` names the executor: "auto", "native" (C++, CPU), "triton" (GPU), "foreach",
    "compiled" (torch.compile) or "eager". `state` names how the state is stored: "fp32", "bf16",
    "bf16-stochastic", "8bit" or "8bit-dynamic". `clip_norm` is the largest l2 norm that a group's
    gradients may have together; the kernel scales them as it reads them, `.grad` stays.
    `capturable` counts steps and computes with rates on the device, so that a CUDA graph of a step
    goes on when it is replayed; `foreach` and `fused` are torch's flags.
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
        rounding: str = "nearest",
        clip_norm: float | None = None,
    ) -> None:
        if clip_norm is not None:
            self._check_clipping(clip_norm)
        if differentiable:
            raise ValueError(
                f"{type(self).__name__} does not support differentiable=True: it steps in place, "
                "outside of autograd; use torch.optim for that, or leave differentiable out"
            )
        if foreach and fused:
            raise RuntimeError("`fused` and `foreach` cannot be `True` together.")
        if backend == "auto" and foreach is not None:
            backend = "foreach" if foreach else "eager"
        self.backend = check_backend(backend)
        self.codec = codec_named(state).name
        self.clip_norm = clip_norm
        self.ran: tuple[str, ...] = ()
        self.nonfinite, self.rounding = nonfinite, rounding
        reason = self._host_bound()
        if capturable and reason:
            raise ValueError(
                f"{type(self).__name__} does not support capturable=True: {reason}; leave one out"
            )
        if reason is None:  # torch's compiler sets the flag where it finds it
            defaults = {**defaults, "capturable": capturable}
        super().__init__(
            params, defaults, maximize=maximize, nonfinite=nonfinite, rounding=rounding
        )

    def elementwise(self) -> bool:
        """Whether a step is that of the rule and no more."""
        return type(self).update is RuleOptimizer.update

    def _host_bound(self) -> str | None:
        """Why a step cannot be captured, None where it can."""
        if not self.elementwise():
            return "its step decides on the host"
        if self.nonfinite != "allow":
            return f"nonfinite={self.nonfinite!r} looks at gradients on the host"
        if self.rounding != "nearest":
            return f"rounding={self.rounding!r} writes parameters apart"
        return None

    def _check_clipping(self, clip_norm: float) -> None:
        if not clip_norm > 0:
            raise ValueError(f"clip_norm={clip_norm} must be more than 0")
        if not self.elementwise():
            raise ValueError(
                f"{type(self).__name__} does not support clip_norm: it looks at gradients before "
                "its rule does; call torch.nn.utils.clip_grad_norm_ before step()"
            )

    def _scale(self, group: Group, grads: Sequence[Tensor]) -> float:
        """What gradients are multiplied by: the sign of the search, and clipping."""
        sign = -1.0 if group["maximize"] else 1.0
        return sign if self.clip_norm is None else sign * clip_factor(grads, self.clip_norm)

    # -- steps that never leave the device ------------------------------------------------------

    @override
    def compiled(self, closure: Callable[[], Any] | None) -> Any:
        known = all(RULES.get(self.rule(g).name) is self.rule(g) for g in self.param_groups)
        if self._host_bound() is not None or self._bindings or not known:
            return super().compiled(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self.captured(group)
        return loss

    @override
    def captured(self, group: Group) -> None:
        params: list[Tensor] = []
        grads: list[Tensor] = []
        steps: list[Tensor] = []
        states: list[Tensor] = []
        self._init_group(group, params, grads, steps, states)
        if not params:
            return
        rule = self.rule(group)
        if steps:
            torch._foreach_add_(steps, 1)
            t = torch.stack(steps).double()
        else:  # no scalar of such a rule looks at it
            t = torch.full((len(params),), 2.0, dtype=torch.float64, device=params[0].device)
        scale: Any = -1.0 if group["maximize"] else 1.0
        if self.clip_norm is not None:
            scale = scale * clip_scale(grads, self.clip_norm)
        hyper = {key: wide(x) for key, x in group.items() if key != "params"}
        rows = rows_of([*rule.scalars(hyper, t), scale, t], t)
        if torch.compiler.is_compiling():
            from optimizers.numeric.registration import step_

            step_(params, grads, states, rows, rule.name, self.codec, self.backend)
        else:
            ran = run(params, grads, states, rows, rule, self.codec, self.backend)
            self.ran = tuple(sorted(ran))

    def _init_group(
        self,
        group: Group,
        params: list[Tensor],
        grads: list[Tensor],
        steps: list[Tensor],
        states: list[Tensor],
    ) -> None:
        """Begin what has no state, and append what a step takes, state by state of each tensor.

        The name and the way of returning are those that torch's compiler knows: it calls this once,
        while it compiles, and finds out where the tensors come from.
        """
        found = with_gradient(group["params"])
        self._check(*found)
        params += found[0]
        grads += found[1]
        if len({p.device for p in params}) > 1:
            raise ValueError(
                f"{type(self).__name__}: a param group that is captured or compiled is on one "
                f"device, and this one is on {sorted({str(p.device) for p in params})}; make one "
                "group for each"
            )
        rule = self.rule(group)
        for p in params:
            state = self.state[p]
            begun = all(kind.name in state for kind in rule.states)
            if rule.states or self.counts:
                step = state.get("step")
                if step is None:
                    state["step"] = torch.full(
                        (), float(begun and not self.counts), device=p.device
                    )
                elif step._base is not None or step.device != p.device:  # others' as well
                    state["step"] = step.detach().to(p.device, copy=True)
                steps.append(state["step"])
            if not begun:
                self._check_warm(p)
                self.begin(state, p, group)
            for kind in rule.states:
                states += [state[kind.name + x] for x in codec_for(self.codec, p).suffixes]

    def _check_warm(self, p: Tensor) -> None:
        if p.is_cuda and torch.cuda.is_current_stream_capturing():
            raise RuntimeError(
                f"{type(self).__name__}: a CUDA graph that captures the first step would begin "
                "the state anew whenever it is replayed; call step() once or more before the capture"
            )

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if self._host_bound():  # how a step runs is no part of the state
            for group in self.param_groups:
                group.pop("capturable", None)

    def rule(self, group: Group) -> Rule:
        """The rule that `group` asks for."""
        raise NotImplementedError

    @override
    def begin(self, state: dict[str, Any], p: Tensor, group: Group) -> None:
        codec = codec_for(self.codec, p)
        for kind in self.rule(group).states:
            for suffix, part in zip(codec.suffixes, codec.empty(p, kind), strict=True):
                state.setdefault(kind.name + suffix, part)

    @override
    def begun(self, state: dict[str, Any], group: Group) -> bool:
        return all(name in state for name in self.needed(group)) and (
            not self.counts or "step" in state
        )

    @override
    def needed(self, group: Group) -> tuple[str, ...]:
        return tuple(kind.name for kind in self.rule(group).states)

    @override
    def update(self, group: Group, members: list[Member]) -> None:
        rule = self.rule(group)
        scale = self._scale(group, [m.g for m in members])
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
                [local(m.p) for m in bucket],
                [local(m.g) for m in bucket],
                [
                    [[local(real(m.state[k.name + x])) for m in bucket] for x in codec.suffixes]
                    for k in rule.states
                ],
                scale=scale,
                seed=seed_of(t),
            )
            executor = choose(self.backend, batch)
            executor.run(batch)
            ran.append(executor.name)
            if len(buckets) == 1 and batch.addresses is not None:
                batch.grads = []
                self._remember(bucket, batch)
        self.ran = tuple(sorted({*ran}))

    # Python's own time counts for many small tensors: a group that steps as it did last time, on
    # the same memory, is stepped without looking at each tensor in Python.

    _plans: dict[int, _Plan]

    def _fresh(self) -> dict[str, Any]:
        return {**super()._fresh(), "_plans": {}}

    @override
    def forget(self) -> None:
        super().forget()
        self._plans.clear()

    def _remember(self, bucket: list[Member], batch: Batch) -> None:
        if not self.elementwise():
            return
        params = [m.tensor for m in bucket]
        for k, group in enumerate(self.param_groups):
            if any(p is params[0] for p in group["params"]):
                real_and_dense = all(
                    m.p is m.tensor and local(m.p) is m.p and m.p.is_contiguous() for m in bucket
                )
                if real_and_dense:
                    self._plans[k] = self._plan(k, params, [m.state for m in bucket], batch)
                return

    def _plan(
        self, k: int, params: list[Tensor], states: list[dict[str, Any]], batch: Batch
    ) -> _Plan:
        assert batch.addresses is not None
        suffixes = batch.codec.suffixes
        names = [kind.name + suffix for kind in batch.rule.states for suffix in suffixes]
        columns = [part for state in batch.states for part in state]
        cohort = self._cohorts.get(k)
        if cohort is not None and not cohort.of(params):
            cohort = None
        if cohort is not None:
            names, columns = [*names, "step"], [*columns, cohort.held]
        return _Plan(params, states, batch, cohort, batch.addresses.watch(states, names, columns))

    @override
    def planned(self, k: int, params: list[Tensor], grads: list[Tensor]) -> bool:
        plan = self._plans.get(k)
        if plan is None:
            return False
        if plan.fits(params, grads, self.state, self.backend):
            return True
        del self._plans[k]
        return False

    @override
    def replay(self, k: int, group: Group, grads: list[Tensor]) -> None:
        plan = self._plans[k]
        batch, rule = plan.batch, self.rule(group)
        t: int | None = 2
        if plan.cohort is not None and self._cohorts.get(k) is plan.cohort:
            t = self._counted(k, plan.cohort)
        elif self.counts:
            t = self._together(k, plan.params, plan.states)
        if t is None or rule is not batch.rule:
            if self.counts and t is not None:  # taken back: `_members` counts the step
                self._cohorts[k].t -= 1
                self._cohorts[k].steps -= 1
            del self._plans[k]
            self.update(group, self._members(k, group, plan.params, grads))
            return
        batch.scalars, batch.grads = rule.scalars(group, t), grads
        batch.scale, batch.seed = self._scale(group, grads), seed_of(t)
        executor = choose(self.backend, batch)
        executor.run(batch)
        self.ran = (executor.name,)
        batch.grads = []  # theirs who own the parameters; a plan must not keep them

    def decoded(self, m: Member, name: str, group: Group) -> Tensor:
        """The state `name` of a member as numbers of the computing dtype."""
        codec = codec_for(self.codec, m.tensor)
        (kind,) = (k for k in self.rule(group).states if k.name == name)
        parts = tuple(real(m.state[name + suffix]) for suffix in codec.suffixes)
        return codec.decode(parts, kind, computing_dtype(m.p.dtype))

    @override
    def restored(self, saved: dict[str, Any], p: Tensor, group: Group) -> dict[str, Any]:
        state = super().restored(saved, p, group)
        if group.get("capturable") and "step" in state:
            state["step"] = state["step"].to(p.device)
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
