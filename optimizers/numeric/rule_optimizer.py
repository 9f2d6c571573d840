"""An optimizer made of a rule, a codec and an executor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypedDict

import torch
from torch import Tensor
from typing_extensions import override

from optimizers.numeric.capturable import Capturable
from optimizers.numeric.codecs.codec import computing_dtype
from optimizers.numeric.codecs.companding import COMPANDING
from optimizers.numeric.codecs.dynamic import DYNAMIC
from optimizers.numeric.codecs.plain import FP32
from optimizers.numeric.codecs.rounding import DRAWN, REST, rounding_for
from optimizers.numeric.codecs.table import codec_for, codec_named
from optimizers.numeric.control.clipping import clip_factor
from optimizers.numeric.counting import Cohort, in_a_row, read, shared
from optimizers.numeric.executors.batch import Batch, seed_of
from optimizers.numeric.executors.choice import check_backend
from optimizers.numeric.executors.running import run
from optimizers.numeric.hyperparameters import check_flags
from optimizers.numeric.members import Group, Member, local, real
from optimizers.numeric.plans import Done, Plan, parts_of, place_of
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
    rounding: str
    clip_norm: float | None


@dataclass(slots=True)
class _Replay(Plan):
    """A plan of tensors that the host counts for."""

    cohort: Cohort | None
    tallies: list[Tensor]
    """Each tally of the rule, of all states, where there is a cohort."""


class RuleOptimizer(Capturable):
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
        check_flags(
            type(self).__name__, foreach=foreach, fused=fused, differentiable=differentiable
        )
        if backend == "auto" and foreach is not None:
            backend = "foreach" if foreach else "eager"
        self.backend = check_backend(backend)
        self.codec = codec_named(state).name
        self.clip_norm = clip_norm
        self.ran: tuple[str, ...] = ()
        self.nonfinite, self.rounding = nonfinite, rounding
        reason = self.host_bound()
        if capturable and reason:
            raise ValueError(f"{type(self).__name__} does not support capturable=True: {reason}")
        if reason is None:  # torch's compiler sets the flag where it finds it
            defaults = {**defaults, "capturable": capturable}
        super().__init__(
            params, defaults, maximize=maximize, nonfinite=nonfinite, rounding=rounding
        )

    @override
    def elementwise(self) -> bool:
        return type(self).update is RuleOptimizer.update

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

    @override
    def draws(self, p: Tensor, group: Group) -> bool:
        rule, drawing = self.rule(group), self.codec == "bf16-stochastic"
        return super().draws(p, group) or (drawing and not self.counts and bool(rule.states))

    @override
    def begin(self, state: dict[str, Any], p: Tensor, group: Group) -> None:
        codec = codec_for(self.codec, p)
        for kind in self.rule(group).states:
            for suffix, part in zip(codec.suffixes, codec.empty(p, kind), strict=True):
                state.setdefault(kind.name + suffix, part)
        for tally in self.tallies(group):
            if tally.name not in state:
                state[tally.name] = torch.tensor(tally.first, dtype=torch.float64, device="cpu")

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
        buckets: dict[Any, list[int]] = {}
        for i, m in enumerate(members):
            codec, drawn = codec_for(self.codec, m.tensor), int(m.state.get(DRAWN, 0))
            held = [read(m.state[x.name], x.first) for x in rule.tallies]
            key = (m.p.device, m.p.dtype, codec.name, m.t, drawn, *held)
            buckets.setdefault(key, []).append(i)
        done: list[Done] = []
        place = 0
        for (_, _, name, t, drawn, *held), places in buckets.items():
            bucket = [members[i] for i in places]
            codec, way = codec_named(name), rounding_for(self.rounding, bucket[0].p)
            now = rule.tallied(group, held, t)
            for x in rule.tallies:
                for m in bucket:
                    m.state[x.name].fill_(now[x.name])
            batch = Batch(
                rule,
                rule.scalars(now, t),
                codec,
                [local(m.p) for m in bucket],
                [local(m.g) for m in bucket],
                [
                    [[local(real(m.state[k.name + x])) for m in bucket] for x in codec.suffixes]
                    for k in rule.states
                ],
                scale=scale,
                seed=seed_of(t if self.counts else drawn, place),
                rounding=way,
                rests=[local(m.state[REST]) for m in bucket] if way.rest else [],
                draw=seed_of(drawn, place),
                place=place,
            )
            done.append(Done(batch, places, run(self.backend, batch)))
            place += len(bucket)
        self.ran = tuple(sorted({x.executor for x in done}))
        together = len({tuple(numbers) for _, _, _, *numbers in buckets}) == 1
        if together and self.elementwise():
            self._remember(members, done)

    def _remember(self, members: list[Member], done: list[Done]) -> None:
        """Keep what stepped tensors of a group that are at the same step."""
        first = members[0].tensor
        for k, group in enumerate(self.param_groups):
            if any(p is first for p in group["params"]):
                self._plan(k, [m.tensor for m in members], [m.state for m in members], done)
                return

    def _plan(
        self, k: int, params: list[Tensor], states: list[dict[str, Any]], done: list[Done]
    ) -> None:
        numbers: dict[str, list[Tensor]] = {}
        cohort, tallies = self._counts.cohort(k, params), []
        if cohort is not None:
            numbers["step"] = cohort.held
            for x in done[0].batch.rule.tallies:
                row, numbers[x.name] = in_a_row(states, x.name)
                tallies.append(row)
        parts = parts_of(done, params, states, numbers)
        if parts:
            first = place_of(states, self.state.values())
            self._plans[k] = _Replay(params, states, parts, first, cohort, tallies)

    @override
    def replay(self, k: int, group: Group, grads: list[Tensor]) -> None:
        plan, rule = self._plans[k], self.rule(group)
        assert isinstance(plan, _Replay)  # `planned` says so
        t: int | None = 2
        if plan.cohort is not None and self._counts.cohort(k, plan.params) is plan.cohort:
            t = self._counts.again(k)
        elif self.counts:
            t = self._counts.together(k, plan.params, plan.states)
        held = [shared(row) for row in plan.tallies]
        known = rule is plan.parts[0].batch.rule
        if t is None or not known or None in held or len(held) < len(rule.tallies):
            if self.counts and t is not None:  # taken back: `_members` counts the step
                self._counts.take_back(k)
            del self._plans[k]
            self.update(group, self._members(k, group, plan.params, grads))
            return
        drawn = 0
        if self.draws(plan.params[0], group):
            drawn = int(plan.states[0][DRAWN]) + 1
            for state in plan.states:
                state[DRAWN] = drawn
        now = rule.tallied(group, held, t)
        for x, row in zip(rule.tallies, plan.tallies, strict=True):
            row.fill_(now[x.name])
        scalars, scale, ran = rule.scalars(now, t), self._scale(group, grads), set()
        for part in plan.parts:
            batch = part.batch
            batch.scalars, batch.scale, batch.grads = scalars, scale, part.of(grads)
            batch.seed = seed_of(t if self.counts else drawn, batch.place)
            batch.draw = seed_of(drawn, batch.place)
            ran.add(run(self.backend, batch))
            batch.grads = []  # theirs who own the parameters; a plan must not keep them
        self.ran = tuple(sorted(ran))

    def decoded(self, m: Member, name: str, group: Group) -> Tensor:
        """The state `name` of a member as numbers of the computing dtype."""
        codec = codec_for(self.codec, m.tensor)
        (kind,) = (k for k in self.rule(group).states if k.name == name)
        parts = tuple(real(m.state[name + suffix]) for suffix in codec.suffixes)
        return codec.decode(parts, kind, computing_dtype(m.p.dtype))

    @override
    def restored(self, saved: dict[str, Any], p: Tensor, group: Group) -> dict[str, Any]:
        state = super().restored(saved, p, group)
        where = p.device if group.get("capturable") else torch.device("cpu")
        if "step" in state:
            state["step"] = state["step"].to(where)
        for x in self.tallies(group):
            if x.name in state:
                state[x.name] = torch.tensor(
                    float(state[x.name]), dtype=torch.float64, device=where
                )
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
