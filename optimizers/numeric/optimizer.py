"""What every numeric optimizer shares: a `torch.optim.Optimizer` that is careful.

A step first looks at everything (sparse gradients, shapes, NaN) and only then changes anything.
What an optimizer adds is `update`, which is given the tensors of one group that have a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import chain
from typing import Any, ClassVar

import torch
from torch import Tensor
from typing_extensions import override

from optimizers.numeric.codecs.rounding import DRAWN, NEAREST, REST, rounding_for, rounding_named
from optimizers.numeric.counting import StepCounts
from optimizers.numeric.executors.batch import seed_of
from optimizers.numeric.executors.device import captures
from optimizers.numeric.gradients import check_gradients, not_finite
from optimizers.numeric.hyperparameters import check_rate, plain
from optimizers.numeric.members import (
    Group,
    Member,
    Work,
    is_sharded,
    local,
    placed,
    real,
    rounds,
    with_gradient,
)
from optimizers.numeric.parameters import adapt
from optimizers.numeric.rules.rule import Tally
from optimizers.numeric.saved import check_saved, check_shapes, copied, follow_dtype
from optimizers.numeric.traced import Traced
from tracegraph.errors import NonFinite, OptimizerError

__all__ = ["NumericOptimizer"]

NONFINITE = ("allow", "skip", "raise")


class NumericOptimizer(Traced):
    """The base of all numeric optimizers.

    `nonfinite` says what a NaN or infinite gradient does: "allow" computes on, as torch does;
    "skip" leaves everything as it is and counts it in `skipped`; "raise" raises NonFinite, with
    everything as it was. `rounding` says how a bfloat16 parameter takes a step: "nearest", which
    loses small ones; "stochastic", right on average; "24bit" or "32bit", which keep what was rounded
    away in one or two bytes per parameter more.
    """

    whole: bool = False
    """Whether a step looks at a tensor as a whole, so that a shard of it is not enough."""

    counts: ClassVar[bool] = True
    """Whether a tensor's state has its own step number."""

    shaped: ClassVar[tuple[str, ...]] = ("exp_avg", "exp_avg_sq", "momentum_buffer", "z", REST)
    """States that have the shape of their parameter, where an optimizer has them."""

    def __init__(
        self,
        params: Any,
        defaults: dict[str, Any],
        *,
        maximize: bool = False,
        nonfinite: str = "allow",
        rounding: str = "nearest",
    ) -> None:
        if nonfinite not in NONFINITE:
            raise ValueError(f"nonfinite={nonfinite!r} is unknown; use one of {NONFINITE}")
        check_rate(defaults["lr"])
        self.nonfinite = nonfinite
        self.rounding = rounding_named(rounding).name
        self.skips: Any = 0
        self.__dict__.update(self._fresh())
        params, self._bindings = adapt(params, type(self).__name__)
        super().__init__(params, {**defaults, "maximize": maximize})

    _counts: StepCounts

    def _fresh(self) -> dict[str, Any]:
        """Attributes that are only there to be fast, empty."""
        return {"_counts": StepCounts()}

    # -- what an optimizer adds ---------------------------------------------------------------

    def begin(self, state: dict[str, Any], p: Tensor, group: Group) -> None:
        """Write the first state of `p`; its step number is there already."""
        raise NotImplementedError

    def begun(self, state: dict[str, Any], group: Group) -> bool:
        """Whether `state` is complete for this group."""
        return bool(state)

    def elementwise(self) -> bool:
        """Whether a step is that of a rule and no more, which rounds parameters itself."""
        return False

    def draws(self, p: Tensor, group: Group) -> bool:
        """Whether a step of `p` rounds at random what its step number does not count."""
        return rounding_for(self.rounding, p).draws

    def update(self, group: Group, members: list[Member]) -> None:
        """Change the members in place; hyperparameters in `group` are Python numbers."""
        raise NotImplementedError

    # -- the step ------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do one step; returns what `closure` returns, which is called with gradients enabled."""
        if torch.compiler.is_compiling():
            return self.compiled(closure)
        if torch.is_inference_mode_enabled() and not self._of_inference():
            with torch.inference_mode(False), torch.no_grad():  # states must serve other steps, too
                return self._step(closure)
        return self._step(closure)

    def _of_inference(self) -> bool:
        """Whether a tensor can only be changed in torch's inference mode."""
        return any(p.is_inference() for group in self.param_groups for p in group["params"])

    def compiled(self, closure: Callable[[], Any] | None) -> Any:
        """The step inside `torch.compile`, which it leaves unless the optimizer knows better."""
        from optimizers.numeric.registration import uncompiled  # seldom needed

        return uncompiled(self._step, closure)

    def _step(self, closure: Callable[[], Any] | None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._follow()
        work = [with_gradient(group["params"]) for group in self.param_groups]
        known = [self.planned(k, *pairs) for k, pairs in enumerate(work)]
        for pairs, checked in zip(work, known, strict=True):
            if not checked:
                self._check(*pairs)
        groups = list(zip(self.param_groups, work, strict=True))
        for group, (params, _) in groups:
            if params:
                self._check_capture(group, params)
        on_device = {
            k: w for k, (group, w) in enumerate(groups) if w[0] and group.get("capturable")
        }
        if self.nonfinite != "allow" and not self._decides_on_device() and not self._finite(work):
            self.skips += 1
            return loss
        if on_device:
            self.captured(on_device)
        for k, (group, (params, grads)) in enumerate(groups):
            if params and not group.get("capturable"):
                hyper = {key: plain(x) for key, x in group.items() if key != "params"}
                if known[k]:
                    self.replay(k, hyper, grads)
                else:
                    for once in rounds(params, grads):
                        members = self._members(k, hyper, *once)
                        self._update(k, hyper, members)
                        if not self.elementwise():
                            self._round(members)
        self._tell(work)
        return loss

    def _decides_on_device(self) -> bool:
        """Whether only the device knows that a step is skipped."""
        everywhere = all(group.get("capturable") for group in self.param_groups)
        return everywhere and self.nonfinite == "skip" and not self._bindings

    @property
    def skipped(self) -> int:
        """How many steps were skipped because a gradient was not finite; waits for the device."""
        return int(self.skips)

    def planned(self, k: int, params: list[Tensor], grads: list[Tensor]) -> bool:
        """Whether group `k` can be stepped as it was last time, for nothing about it changed."""
        return False

    def replay(self, k: int, group: Group, grads: list[Tensor]) -> None:
        """Step group `k`, found `planned`."""
        raise NotImplementedError

    def captured(self, work: Mapping[int, Work]) -> None:
        """Step `capturable` groups, whose tensors were looked at, without reading their numbers."""
        raise NotImplementedError

    def _check_capture(self, group: Group, params: list[Tensor]) -> None:
        if not captures(params[0].device):
            return
        name = type(self).__name__
        if not group.get("capturable"):
            raise RuntimeError(
                f"{name}: a CUDA graph that captures this step would repeat the rate and the step "
                "count of now; nothing was changed. Pass capturable=True if the optimizer has it, or "
                "step outside of the graph"
            )
        if self.nonfinite == "raise":
            raise RuntimeError(
                f"{name}: nonfinite='raise' has to look at gradients on the host, and a CUDA graph that "
                "captures this step is replayed without it; nothing was changed. Pass "
                "nonfinite='skip', which decides and counts on the device, or step outside of the graph"
            )

    def _check(self, params: list[Tensor], grads: list[Tensor]) -> None:
        name = type(self).__name__
        check_gradients(name, self.name_of, params, grads)
        for p in params:
            if p in self.state:
                check_shapes(name, self.name_of, self.state[p], p, self.shaped)

    def _finite(self, work: list[Work]) -> bool:
        bad = not_finite(work)
        if bad and self.nonfinite == "raise":
            names = ", ".join(self.name_of(p) for p in bad[:5])
            count = sum(g.numel() > 0 for _, grads in work for g in grads)
            raise NonFinite(
                f"{type(self).__name__}: the gradient of {names} holds NaN or infinity "
                f"({len(bad)} of {count} tensors); nothing was changed. Lower the rate, clip "
                "gradients, or pass nonfinite='skip'"
            )
        return not bad

    def _members(
        self, k: int, group: Group, params: list[Tensor], grads: list[Tensor]
    ) -> list[Member]:
        states = [self.state[p] for p in params]
        if not self.elementwise():  # executors of rules convert
            for p, state in zip(params, states, strict=True):
                follow_dtype(state, p)
        fresh = [i for i, state in enumerate(states) if not self.begun(state, group)]
        if fresh:
            steps = torch.zeros(len(fresh), dtype=torch.float32, device="cpu")
            for i, step in zip(fresh, steps.unbind(), strict=True):
                if self.counts:
                    states[i].setdefault("step", step)
                if not (self.whole and is_sharded(params[i])):  # `_update` begins at the owner
                    self.begin(states[i], params[i], group)
        if self.counts:
            everyone = len(fresh) == len(params)
            numbers = self._counts.advance(k, params, states, fresh=everyone)
        else:  # all that matters is whether this step is the first
            new = set(fresh)
            numbers = [1 if i in new else 2 for i in range(len(params))]
        row = zip(params, grads, states, numbers, strict=True)
        if self.rounding == NEAREST.name and not self.draws(params[0], group):  # so of all of them
            return [Member(p, real(p), real(placed(g, p)), state, t) for p, g, state, t in row]
        members = []
        for p, g, state, t in row:
            self._prepare_rounding(p, state, group)
            held = real(p) if self.elementwise() else self._wide(p, state)
            members.append(Member(p, held, real(placed(g, p)), state, t))
        return members

    def _update(self, k: int, group: Group, members: list[Member]) -> None:
        """`update`, with shards made whole where the optimizer needs that."""
        shards = [m for m in members if self.whole and is_sharded(m.tensor)]
        if not shards:
            self.update(group, members)
            return
        from optimizers.numeric.whole import gathered  # what it imports is slow, and seldom needed

        places = {id(p): i for i, p in enumerate(self.param_groups[k]["params"])}
        mine, wholes = [m for m in members if not is_sharded(m.tensor)], []
        for m in shards:
            tensor: Any = m.tensor
            found = gathered(tensor, local(m.p), m.g, places[id(tensor)])
            wholes.append(found)
            if found.mine:
                if not self.begun(m.state, group):
                    self.begin(m.state, found.p, group)
                mine.append(Member(found.p, found.p, found.g, m.state, m.t))
        if mine:
            self.update(group, mine)
        for m, found in zip(shards, wholes, strict=True):
            found.spread(local(m.p))

    def _prepare_rounding(self, p: Tensor, state: dict[str, Any], group: Group) -> None:
        """Make room for the rest of `p`, and count one more rounding at random."""
        rounding_for(self.rounding, p).begin(p, state)
        if self.draws(p, group):
            count = state.setdefault(DRAWN, 0)
            count += 1  # in place where it is counted on the device
            state[DRAWN] = count

    def _wide(self, p: Tensor, state: dict[str, Any]) -> Tensor:
        """A wide copy of `p`, which `_round` writes back; `p` itself where it holds its steps."""
        way = rounding_for(self.rounding, p)
        if way is NEAREST:
            return real(p)
        return way.widened(local(p), local(state[REST]) if way.rest else None)

    def _round(self, members: list[Member]) -> None:
        """Write wide copies back to their parameters."""
        for i, m in enumerate(members):
            way = rounding_for(self.rounding, m.tensor)
            if way is not NEAREST:
                rest = local(m.state[REST]) if way.rest else None
                seed = ~seed_of(m.state.get(DRAWN, 0), i)  # not one that a codec uses
                way.write(m.p, local(m.tensor), rest, seed=seed)

    @override
    def forget(self) -> None:
        self._counts.clear()

    # -- saving --------------------------------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; takes the same kinds of parameters as the constructor."""
        groups, bindings = len(self.param_groups), self._bindings
        try:
            if isinstance(param_group, dict) and "params" in param_group:
                adapted, found = adapt([param_group], type(self).__name__)
                param_group, self._bindings = adapted[0], [*bindings, *found]
            super().add_param_group(param_group)
            self.check_params(self.param_groups[-1]["params"])
        except Exception:
            del self.param_groups[groups:]
            self._bindings = bindings
            raise

    def check_params(self, params: list[Tensor]) -> None:
        """Refuse a group whose tensors this optimizer cannot step."""
        name = type(self).__name__
        shards: list[Any] = [p for p in params if is_sharded(p)]
        if shards:
            from optimizers.numeric.whole import check_sharding

            for p in shards:
                check_sharding(p, name, f"one of shape {tuple(p.shape)}", whole=self.whole)
        half = next((p for p in params if p.dtype == torch.float16), None)
        if half is not None and self.rounding != "nearest":
            raise ValueError(
                f"{name}: rounding={self.rounding!r} is for bfloat16 parameters, and "
                f"one of shape {tuple(half.shape)} is float16; use bfloat16, or leave rounding out"
            )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state dict of this optimizer, or of torch's optimizer of the same name."""
        saved = state_dict["state"]
        ids = list(chain.from_iterable(group["params"] for group in state_dict["param_groups"]))
        mine = list(chain.from_iterable(group["params"] for group in self.param_groups))
        if len(ids) == len(mine):  # torch raises otherwise, and says why
            for key, p in zip(ids, mine, strict=True):
                if key in saved:
                    self.check_saved(saved[key], p)
        defaults = self.defaults
        super().load_state_dict(state_dict)
        self.forget()
        for group in self.param_groups:
            for key, value in defaults.items():
                group.setdefault(key, value)
        for key, p in zip(ids, mine, strict=True):
            if key in saved:
                group = self._group_of(p)
                if self.whole and is_sharded(p):  # its state is that of the whole
                    like = torch.empty(p.shape, dtype=p.dtype, device=p.device)
                    self.state[p] = self.restored(saved[key], like, group)
                else:
                    self.state[p] = self.restored(saved[key], p, group)

    def restored(self, saved: dict[str, Any], p: Tensor, group: Group) -> dict[str, Any]:
        """A saved state of `p` as this optimizer keeps it; tensors keep their own dtype."""
        state = {key: copied(key, value, p) for key, value in saved.items() if value is not None}
        way = rounding_named(self.rounding)
        if REST in state:
            if way.rest is None:
                del state[REST]
            else:
                state[REST] = way.converted(state[REST])
        return state

    def check_saved(self, state: dict[str, Any], p: Tensor) -> None:
        """Refuse a saved state that does not fit `p`."""
        group = self._group_of(p)
        numbers = [tally.name for tally in self.tallies(group)]
        check_saved(type(self).__name__, self.name_of, state, p, self.needed(group), numbers)

    def needed(self, group: Group) -> Iterable[str]:
        """The names of the tensors like `p` that a saved state must have."""
        return ()

    def tallies(self, group: Group) -> Sequence[Tally]:
        """The numbers that a state must have, beside its step number."""
        return ()

    def _group_of(self, p: Tensor) -> Group:
        for group in self.param_groups:
            if any(q is p for q in group["params"]):
                return group
        raise OptimizerError("the tensor belongs to no group of this optimizer")

    def __getstate__(self) -> dict[str, Any]:
        kept = {key: value for key, value in self.__dict__.items() if not key.startswith("_")}
        return {**kept, "_bindings": self._bindings, **self._fresh()}
