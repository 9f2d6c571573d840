"""Steps that never leave the device: `capturable=True`, and steps inside of torch's compiler.

What a step counts and decides lies in tensors there: the step number, the count of roundings at random,
whether gradients are finite. Nothing of it is read by the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from optimizers.numeric.captured import again, rows_of, run, wide
from optimizers.numeric.codecs.rounding import DRAWN, REST, rounding_for
from optimizers.numeric.codecs.table import codec_for
from optimizers.numeric.control.clipping import clip_scale
from optimizers.numeric.counting import Column, in_a_row, row_of
from optimizers.numeric.executors.device import captures
from optimizers.numeric.gradients import all_finite
from optimizers.numeric.members import Group, Work, rounds, with_gradient
from optimizers.numeric.optimizer import NumericOptimizer
from optimizers.numeric.plans import Done, Plan, parts_of, place_of
from optimizers.numeric.rules.rule import Hyper, Rule, Tally
from optimizers.numeric.rules.table import RULES

__all__ = ["Capturable"]


@dataclass(slots=True)
class _Tensors:
    """What a step of a group takes; states and rests are listed tensor by tensor."""

    params: list[Tensor] = field(default_factory=list)
    steps: Column = field(default_factory=Column)
    drawn: Column = field(default_factory=Column)
    states: list[Tensor] = field(default_factory=list)
    tallies: list[Column] = field(default_factory=list)


@dataclass(slots=True)
class _Counted(Plan):
    """A plan of tensors that are counted on the device."""

    tensors: _Tensors


class Capturable(NumericOptimizer):
    """A step that a CUDA graph can replay and torch's compiler can take whole."""

    backend: str
    codec: str
    clip_norm: float | None
    ran: tuple[str, ...]

    def rule(self, group: Group) -> Rule:
        """The rule that `group` asks for."""
        raise NotImplementedError

    @override
    def tallies(self, group: Group) -> Sequence[Tally]:
        return self.rule(group).tallies

    def host_bound(self) -> str | None:
        """Why a step cannot be captured and what to do, None where it can."""
        if not self.elementwise():
            return "its step decides on the host; leave it out"
        return None

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Whether torch's GradScaler hands over its factor and what it found, and waits for nothing.

        It sets `grad_scale` and `found_inf` then. As torch's fused steps do, a step divides by the
        first as it reads gradients and is left out where the second is not 0; `.grad` stays.
        """
        on_device = all(group.get("capturable") for group in self.param_groups)
        return on_device and self.nonfinite != "raise"  # which would raise what the scaler skips

    def _scaler(self, name: str, device: torch.device) -> Tensor | None:
        """What torch's GradScaler has set for this step."""
        held = None if torch.compiler.is_compiling() else getattr(self, name, None)
        return None if held is None else held.to(device, torch.float64).view(())

    @override
    def compiled(self, closure: Callable[[], Any] | None) -> Any:
        known = all(RULES.get(self.rule(g).name) is self.rule(g) for g in self.param_groups)
        here = self.nonfinite == "raise" or self.host_bound() is not None
        if here or self._bindings or not known:
            return super().compiled(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._step_all([(k, *self._traced(group)) for k, group in enumerate(self.param_groups)])
        return loss

    @override
    def captured(self, work: Mapping[int, Work]) -> None:
        self._step_all(
            [
                (k, self._tensors(k, params), grads)
                for k, found in work.items()
                for params, grads in rounds(*found)
            ]
        )

    def _step_all(self, found: list[tuple[int, _Tensors, list[Tensor]]]) -> None:
        go = None
        if self.nonfinite == "skip":
            go = all_finite([g for _, _, grads in found for g in grads])
        first = next((p.device for _, tensors, _ in found for p in tensors.params), None)
        found_inf = None if first is None else self._scaler("found_inf", first)
        if found_inf is not None:
            go = (found_inf == 0) if go is None else go & (found_inf == 0)
        if go is not None:
            self.skips.add_(~go.to(self.skips.device))  # in place: compilers follow no attribute
        for k, tensors, grads in found:
            if tensors.params:
                self._step_group(k, tensors, grads, go)

    def _step_group(
        self, k: int, tensors: _Tensors, grads: list[Tensor], go: Tensor | None
    ) -> None:
        params, group = tensors.params, self.param_groups[k]
        device = params[0].device
        hyper = {key: wide(x, device) for key, x in group.items() if key != "params"}
        one: Any = 1 if go is None else go.to(device, torch.int64)
        rule = self.rule(group)
        if tensors.steps.held:
            t = tensors.steps.all().double() + 1
            tensors.steps.add(one)
        else:  # no scalar of such a rule looks at it
            t = torch.full((len(params),), 2.0, dtype=torch.float64, device=device)
        now = self._tally(rule, hyper, tensors.tallies, t, go)
        drawn: Any = 0
        if tensors.drawn.held:
            drawn = tensors.drawn.all().double() + 1
            tensors.drawn.add(one)
        scale: Any = -1.0 if group["maximize"] else 1.0
        grad_scale = self._scaler("grad_scale", device)
        if self.clip_norm is not None:
            scale = scale * clip_scale(grads, self.clip_norm, by=grad_scale)
        if grad_scale is not None:
            scale = scale / grad_scale
        count = t if self.counts else drawn
        rows = rows_of([*rule.scalars(now, t), scale, one, count, drawn], t)
        guarded = go is not None
        if torch.compiler.is_compiling():
            from optimizers.numeric.registration import step_

            how = (self.codec, self.backend, self.rounding, guarded)
            step_(params, grads, tensors.states, rows, rule.name, *how)
        else:
            self.ran = tuple(sorted(self._run(k, tensors, grads, rows, rule, guarded)))

    def _tally(
        self, rule: Rule, hyper: Group, tallies: list[Column], t: Tensor, go: Tensor | None
    ) -> Hyper:
        """The rule's tallies after step `t` beside the hyperparameters; they move on where `go` holds."""
        held = [column.all() for column in tallies]
        now = rule.tallied(hyper, held, t)
        for tally, column, before in zip(rule.tallies, tallies, held, strict=True):
            after = now[tally.name]
            if go is not None:
                after = torch.where(go.to(after.device), after, before)
            column.take(after)
        return now

    # -- as last time --------------------------------------------------------------------------

    _plans: dict[int, Plan]

    def _fresh(self) -> dict[str, Any]:
        return {**super()._fresh(), "_plans": {}}

    @override
    def forget(self) -> None:
        super().forget()
        self._plans.clear()

    @override
    def planned(self, k: int, params: list[Tensor], grads: list[Tensor]) -> bool:
        plan = self._plans.get(k)
        if plan is None:
            return False
        here = isinstance(plan, _Counted) == bool(self.param_groups[k].get("capturable"))
        if here and plan.fits(params, grads, self.state, self.backend):
            return True
        del self._plans[k]
        return False

    def _run(
        self,
        k: int,
        tensors: _Tensors,
        grads: list[Tensor],
        rows: Tensor,
        rule: Rule,
        guarded: bool,
    ) -> Iterable[str]:
        """Step a group by its plan, or tensor by tensor; returns the names of the executors."""
        plan = self._plans.pop(k, None)
        mine = isinstance(plan, _Counted) and plan.tensors is tensors
        if plan is not None and mine and plan.parts[0].batch.rule is rule:
            ran = again(plan.parts, grads, rows, self.backend, guarded)
            if ran is not None:
                self._plans[k] = plan
                return ran
        how = (self.codec, self.backend, self.rounding, guarded)
        done = run(tensors.params, grads, tensors.states, rows, rule, *how)
        self._plan_counted(k, tensors, rule, done)
        return {batch.executor for batch in done}

    def _plan_counted(self, k: int, tensors: _Tensors, rule: Rule, done: Sequence[Done]) -> None:
        """Keep what stepped a group, where a plan can have it all."""
        params = tensors.params
        whole = [places for _, places, _ in done] == [list(range(len(params)))]
        counted = bool(done) and all(batch.rows is not None for batch, _, _ in done)
        if not whole and not counted:
            return  # numbers that were read differ
        columns = {"step": tensors.steps, DRAWN: tensors.drawn}
        columns |= {x.name: column for x, column in zip(rule.tallies, tensors.tallies, strict=True)}
        states = [self.state[p] for p in params]
        numbers = {name: x.held for name, x in columns.items() if x.held}
        parts = parts_of(done, params, states, numbers)
        if parts:
            first = place_of(states, self.state.values())
            self._plans[k] = _Counted(params, states, parts, first, tensors)

    # -- its tensors ---------------------------------------------------------------------------

    def _tensors(self, k: int, params: list[Tensor]) -> _Tensors:
        """What a step of group `k` takes."""
        plan = self._plans.get(k)
        if isinstance(plan, _Counted):
            return plan.tensors
        group = self.param_groups[k]
        lists: Any = [], [], [], []
        self._begin_all(group, params, *lists, apart=False)
        found = self._listed(group, params, *lists)
        for column in (found.steps, found.drawn, *found.tallies):
            column.row = row_of(column.held) if column.held else None
        return found

    def _traced(self, group: Group) -> tuple[_Tensors, list[Tensor]]:
        """What a compiled step of a group takes, and the gradients."""
        lists: Any = [], [], [], []
        params: list[Tensor] = []
        grads: list[Tensor] = []
        self._init_group(group, params, grads, *lists)
        return self._listed(group, params, *lists), grads

    def _listed(
        self,
        group: Group,
        params: list[Tensor],
        steps: list[Tensor],
        drawn: list[Tensor],
        states: list[Tensor],
        tallies: list[Tensor],
    ) -> _Tensors:
        count = len(self.rule(group).tallies)
        columns = [Column(tallies[i::count]) for i in range(count)]
        return _Tensors(params, Column(steps), Column(drawn), states, columns)

    def _init_group(
        self,
        group: Group,
        params: list[Tensor],
        grads: list[Tensor],
        steps: list[Tensor],
        drawn: list[Tensor],
        states: list[Tensor],
        tallies: list[Tensor],
    ) -> None:
        """Begin what has no state, and append what a step takes, state by state of each tensor.

        The name and the way of returning are those that torch's compiler knows: it calls this once,
        while it compiles, and finds out where the tensors come from.
        """
        found = with_gradient(group["params"])
        self._check(*found)
        params += found[0]
        grads += found[1]
        self._begin_all(group, params, steps, drawn, states, tallies, apart=True)

    def _numbers(self, group: Group, params: list[Tensor]) -> list[tuple[str, float, torch.dtype]]:
        """What is counted for each tensor of a group: the name, the first number and the dtype."""
        rule, found = self.rule(group), []
        if rule.states or self.counts:
            found.append(("step", 0.0, torch.float32))
        if any(self.draws(p, group) for p in {p.dtype: p for p in params}.values()):
            found.append((DRAWN, 0, torch.int64))  # of all in the group, so that they make a row
        return found + [(tally.name, tally.first, torch.float64) for tally in rule.tallies]

    def _begin_all(
        self,
        group: Group,
        params: list[Tensor],
        steps: list[Tensor],
        drawn: list[Tensor],
        states: list[Tensor],
        tallies: list[Tensor],
        *,
        apart: bool,
    ) -> None:
        """Begin what has no state, and append what a step takes.

        Numbers of tensors that begin together lie in a row; none is a view where they are `apart`.
        """
        if len({p.device for p in params}) > 1:
            raise ValueError(
                f"{type(self).__name__}: a param group that is captured or compiled is on one "
                f"device, and this one is on {sorted({str(p.device) for p in params})}; make one "
                "group for each"
            )
        if params and not isinstance(self.skips, Tensor):
            self._check_warm(params[0])
            self.skips = torch.full((), self.skips, dtype=torch.int64, device=params[0].device)
        rule, numbers = self.rule(group), self._numbers(group, params)
        fresh = [self.state[p] for p in params]
        if not apart and fresh and not any(fresh):
            self._check_warm(params[0])
            for name, first, dtype in numbers:
                row = torch.full((len(params),), first, dtype=dtype, device=params[0].device)
                for state, number in zip(fresh, row.unbind(), strict=True):
                    state[name] = number
        to = {"step": steps, DRAWN: drawn}
        for p in params:
            state = self.state[p]
            begun = all(kind.name in state for kind in rule.states)
            for name, first, dtype in numbers:
                later = name == "step" and begun and not self.counts
                self._count_beside(state, name, float(later) or first, dtype, p, apart=apart)
                to.get(name, tallies).append(state[name])
            if not begun:
                self._check_warm(p)
                self.begin(state, p, group)
            for kind in rule.states:
                states += [state[kind.name + x] for x in codec_for(self.codec, p).suffixes]
            way = rounding_for(self.rounding, p)
            if way.rest is not None:
                if REST not in state:
                    self._check_warm(p)
                way.begin(p, state)
                states.append(state[REST])

    def _count_beside(
        self,
        held: dict[str, Any],
        key: str,
        first: float,
        dtype: torch.dtype,
        p: Tensor,
        *,
        apart: bool,
    ) -> None:
        """Make the count ``held[key]`` a tensor beside `p`, `first` where it is not there.

        One that is a view becomes a tensor of its own where they are to be `apart`.
        """
        count = held.get(key)
        if not isinstance(count, Tensor):
            self._check_warm(p)
            number = first if count is None else count
            held[key] = torch.full((), number, dtype=dtype, device=p.device)
        elif count.device != p.device:
            self._check_warm(p)
            held[key] = count.detach().to(p.device, copy=True)
        elif apart and count._base is not None:
            held[key] = count.detach().clone()

    def _check_warm(self, p: Tensor) -> None:
        if captures(p.device):
            raise RuntimeError(
                f"{type(self).__name__}: a CUDA graph that captures the first step would begin "
                "the state anew whenever it is replayed; call step() once or more before the capture"
            )

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        if self.host_bound():  # how a step runs is no part of the state
            for group in self.param_groups:
                group.pop("capturable", None)
        for group in self.param_groups:
            states = [self.state[p] for p in group["params"] if p in self.state]
            if group.get("capturable") and states:
                for name, *_ in self._numbers(group, group["params"]):
                    found = [state.get(name) for state in states]
                    if all(isinstance(x, Tensor) and x.device == found[0].device for x in found):
                        in_a_row(states, name)
