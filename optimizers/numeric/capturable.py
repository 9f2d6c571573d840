"""Steps that never leave the device: `capturable=True`, and steps inside of torch's compiler.

What a step counts and decides lies in tensors there: the step number, the count of roundings at random,
whether gradients are finite. Nothing of it is read by the host.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from optimizers.numeric.captured import rows_of, run, wide
from optimizers.numeric.codecs.rounding import DRAWN, REST, rounding_for
from optimizers.numeric.codecs.table import codec_for
from optimizers.numeric.control.clipping import clip_scale
from optimizers.numeric.gradients import all_finite
from optimizers.numeric.members import Group, with_gradient
from optimizers.numeric.optimizer import NumericOptimizer
from optimizers.numeric.rules.rule import Hyper, Rule, Tally
from optimizers.numeric.rules.table import RULES

__all__ = ["Capturable"]


@dataclass(slots=True)
class _Tensors:
    """The tensors of a group: states, rests and tallies are listed tensor by tensor."""

    params: list[Tensor] = field(default_factory=list)
    grads: list[Tensor] = field(default_factory=list)
    steps: list[Tensor] = field(default_factory=list)
    drawn: list[Tensor] = field(default_factory=list)
    states: list[Tensor] = field(default_factory=list)
    tallies: list[Tensor] = field(default_factory=list)


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
        if self.nonfinite == "raise":
            return (
                "nonfinite='raise' has to look at gradients on the host; pass nonfinite='skip', "
                "which decides and counts on the device, or leave one out"
            )
        return None

    @property
    def _step_supports_amp_scaling(self) -> bool:
        """Whether torch's GradScaler hands over its factor and what it found, and waits for nothing.

        It sets `grad_scale` and `found_inf` then. As torch's fused steps do, a step divides by the
        first as it reads gradients and is left out where the second is not 0; `.grad` stays.
        """
        return all(group.get("capturable") for group in self.param_groups)

    def _scaler(self, name: str, device: torch.device) -> Tensor | None:
        """What torch's GradScaler has set for this step."""
        held = None if torch.compiler.is_compiling() else getattr(self, name, None)
        return None if held is None else held.to(device, torch.float64).view(())

    @override
    def compiled(self, closure: Callable[[], Any] | None) -> Any:
        known = all(RULES.get(self.rule(g).name) is self.rule(g) for g in self.param_groups)
        if self.host_bound() is not None or self._bindings or not known:
            return super().compiled(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.captured(self.param_groups)
        return loss

    @override
    def captured(self, groups: Sequence[Group]) -> None:
        found = [self._tensors(group) for group in groups]
        go = None
        if self.nonfinite == "skip":
            go = all_finite([g for tensors in found for g in tensors.grads])
        first = next((p.device for tensors in found for p in tensors.params), None)
        found_inf = None if first is None else self._scaler("found_inf", first)
        if found_inf is not None:
            go = (found_inf == 0) if go is None else go & (found_inf == 0)
        if go is not None:
            self.skips.add_(~go.to(self.skips.device))  # in place: compilers follow no attribute
        for group, tensors in zip(groups, found, strict=True):
            if tensors.params:
                self._step_on_device(group, tensors, go)

    def _step_on_device(self, group: Group, tensors: _Tensors, go: Tensor | None) -> None:
        params, grads = tensors.params, tensors.grads
        device = params[0].device
        hyper = {key: wide(x, device) for key, x in group.items() if key != "params"}
        one: Any = 1 if go is None else go.to(device, torch.int64)
        ones: Any = one if go is None else [one] * len(params)  # lists are never read by the host
        rule = self.rule(group)
        if tensors.steps:
            t = torch.stack(tensors.steps).double() + 1
            torch._foreach_add_(tensors.steps, ones)
        else:  # no scalar of such a rule looks at it
            t = torch.full((len(params),), 2.0, dtype=torch.float64, device=device)
        now = self._tally(rule, hyper, tensors.tallies, t, go)
        drawn = torch.zeros_like(t)
        if tensors.drawn:
            drawn = torch.stack(tensors.drawn).double() + 1
            torch._foreach_add_(tensors.drawn, ones)
        scale: Any = -1.0 if group["maximize"] else 1.0
        grad_scale = self._scaler("grad_scale", device)
        if self.clip_norm is not None:
            scale = scale * clip_scale(grads, self.clip_norm, by=grad_scale)
        if grad_scale is not None:
            scale = scale / grad_scale
        count = t if self.counts else drawn
        rows = rows_of([*rule.scalars(now, t), scale, one, count, drawn], t)
        how = (self.codec, self.backend, self.rounding, go is not None)
        if torch.compiler.is_compiling():
            from optimizers.numeric.registration import step_

            step_(params, grads, tensors.states, rows, rule.name, *how)
        else:
            self.ran = tuple(sorted(run(params, grads, tensors.states, rows, rule, *how)))

    def _tally(
        self, rule: Rule, hyper: Group, tallies: list[Tensor], t: Tensor, go: Tensor | None
    ) -> Hyper:
        """The rule's tallies after step `t` beside the hyperparameters; they move on where `go` holds."""
        columns = [tallies[i :: len(rule.tallies)] for i in range(len(rule.tallies))]
        held = [torch.stack(column) for column in columns]
        now = rule.tallied(hyper, held, t)
        for tally, column, before in zip(rule.tallies, columns, held, strict=True):
            after = now[tally.name]
            if go is not None:
                after = torch.where(go.to(after.device), after, before)
            torch._foreach_copy_(column, list(after.unbind()))
        return now

    def _tensors(self, group: Group) -> _Tensors:
        found = _Tensors()
        self._init_group(
            group,
            found.params,
            found.grads,
            found.steps,
            found.drawn,
            found.states,
            found.tallies,
        )
        return found

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
        if len({p.device for p in params}) > 1:
            raise ValueError(
                f"{type(self).__name__}: a param group that is captured or compiled is on one "
                f"device, and this one is on {sorted({str(p.device) for p in params})}; make one "
                "group for each"
            )
        if params and not isinstance(self.skips, Tensor):
            self._check_warm(params[0])
            self.skips = torch.tensor(self.skips, device=params[0].device)
        rule = self.rule(group)
        drawing = any(self.draws(p, group) for p in params)
        for p in params:
            state = self.state[p]
            begun = all(kind.name in state for kind in rule.states)
            if rule.states or self.counts:
                on_device(state, "step", float(begun and not self.counts), torch.float32, p)
                steps.append(state["step"])
            if drawing:  # of all in the group, so that they make a row
                on_device(state, DRAWN, 0, torch.int64, p)
                drawn.append(state[DRAWN])
            if not begun:
                self._check_warm(p)
                self.begin(state, p, group)
            for tally in rule.tallies:
                on_device(state, tally.name, tally.first, torch.float64, p)
                tallies.append(state[tally.name])
            for kind in rule.states:
                states += [state[kind.name + x] for x in codec_for(self.codec, p).suffixes]
            way = rounding_for(self.rounding, p)
            way.begin(p, state)
            if way.rest is not None:
                states.append(state[REST])

    def _check_warm(self, p: Tensor) -> None:
        if p.is_cuda and torch.cuda.is_current_stream_capturing():
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


def on_device(held: dict[str, Any], key: str, first: float, dtype: torch.dtype, p: Tensor) -> None:
    """Make the count ``held[key]`` a tensor of its own beside `p`, `first` where it is not there."""
    count = held.get(key)
    if not isinstance(count, Tensor):
        held[key] = torch.full((), first if count is None else count, dtype=dtype, device=p.device)
    elif count._base is not None or count.device != p.device:  # others' as well
        held[key] = count.detach().to(p.device, copy=True)
