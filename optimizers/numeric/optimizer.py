"""What every numeric optimizer shares: a `torch.optim.Optimizer` that is careful.

A step first looks at everything (sparse gradients, shapes, NaN) and only then changes anything.
What an optimizer adds is `update`, which is given the tensors of one group that have a gradient.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, repeat
from operator import attrgetter, is_, is_not, methodcaller
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from optimizers.base import reach
from optimizers.numeric.codecs.rounding import REST, rounding_named
from optimizers.numeric.parameters import adapt, forget
from tracegraph.errors import NonFinite, OptimizerError, Rejected
from tracegraph.node import Node

__all__ = ["Cohort", "Member", "NumericOptimizer", "check_betas", "check_nonnegative", "check_rate"]

Group = dict[str, Any]
NONFINITE = ("allow", "skip", "raise")
BOOKKEEPING = frozenset({"step", "roundings", REST})
"""What a state holds beside what an optimizer's own step needs."""


@dataclass(slots=True)
class Member:
    """One tensor in a step: real views of it and its gradient, its state, its step number.

    `tensor` is the parameter itself. `t` is 1 at the first step.
    """

    tensor: Tensor
    p: Tensor
    g: Tensor
    state: dict[str, Any]
    t: int


@dataclass(slots=True)
class Cohort:
    """Tensors of a group whose step numbers are views of one tensor and equal."""

    params: list[Tensor]
    held: list[Tensor]
    steps: Tensor
    t: int

    def of(self, params: list[Tensor]) -> bool:
        """Whether these are its tensors, in order."""
        return len(params) == len(self.params) and all(map(is_, params, self.params))


def check_rate(lr: float | Tensor) -> None:
    """Refuse a learning rate that is negative or a tensor of several numbers."""
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError("Tensor lr must be 1-element")
    if not lr >= 0.0:
        raise ValueError(f"Invalid learning rate: {lr}; it must be 0 or more")


def check_nonnegative(**values: float) -> None:
    """Refuse a negative hyperparameter, by name."""
    for name, value in values.items():
        if not value >= 0.0:
            raise ValueError(f"Invalid {name} value: {value}; it must be 0 or more")


def check_betas(betas: Sequence[float | Tensor]) -> None:
    """Refuse decay rates of moments outside [0, 1)."""
    for k, beta in enumerate(betas):
        if isinstance(beta, Tensor) and beta.numel() != 1:
            raise ValueError(f"Tensor betas[{k}] must be 1-element")
        if not 0.0 <= beta < 1.0:
            raise ValueError(
                f"Invalid beta parameter at index {k}: {float(beta)}; it must be in [0, 1)"
            )


def _plain(value: Any) -> Any:
    """A hyperparameter as Python's own number."""
    if isinstance(value, Tensor):
        return value.item()
    if isinstance(value, tuple | list):
        return tuple(_plain(x) for x in value)
    return value


def real(x: Tensor) -> Tensor:
    """`x`, or its real view where it is complex."""
    return torch.view_as_real(x) if x.is_complex() else x


def local(x: Tensor) -> Tensor:
    """The part of a DTensor that this process holds, which an element-wise rule steps alone."""
    to_local = getattr(x, "to_local", None)
    return x if to_local is None else to_local()


def is_sharded(x: Tensor) -> bool:
    """Whether `x` is a DTensor."""
    return hasattr(x, "to_local")


def _placed(g: Tensor, p: Tensor) -> Tensor:
    """A gradient with the placements of its DTensor `p`, so that local parts belong together."""
    placements = getattr(p, "placements", None)
    if placements is None or getattr(g, "placements", None) == placements:
        return g
    sharded: Any = g
    return sharded.redistribute(placements=placements)


_Work = tuple[list[Tensor], list[Tensor]]


def with_gradient(params: Iterable[Tensor]) -> _Work:
    """The tensors that have a gradient, and the gradients."""
    params = list(params)
    grads = list(map(attrgetter("grad"), params))
    if all(map(is_not, grads, repeat(None))):
        return params, grads
    pairs = [(p, g) for p, g in zip(params, grads, strict=True) if g is not None]
    return [p for p, _ in pairs], [g for _, g in pairs]


class NumericOptimizer(Optimizer):
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
        self.skipped = 0
        self.__dict__.update(self._fresh())
        params, self._bindings = adapt(params, type(self).__name__)
        super().__init__(params, {**defaults, "maximize": maximize})

    _cohorts: dict[int, Cohort]

    def _fresh(self) -> dict[str, Any]:
        """Attributes that are only there to be fast, empty."""
        return {"_cohorts": {}}

    # -- what an optimizer adds ---------------------------------------------------------------

    def begin(self, state: dict[str, Any], p: Tensor, group: Group) -> None:
        """Write the first state of `p`; its step number is there already."""
        raise NotImplementedError

    def begun(self, state: dict[str, Any], group: Group) -> bool:
        """Whether `state` is complete for this group."""
        return bool(state)

    def update(self, group: Group, members: list[Member]) -> None:
        """Change the members in place; hyperparameters in `group` are Python numbers."""
        raise NotImplementedError

    # -- the step ------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do one step; returns what `closure` returns, which is called with gradients enabled."""
        if torch.compiler.is_compiling():
            return self.compiled(closure)
        return self._step(closure)

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
        if self.nonfinite != "allow" and not self._finite(work):
            self.skipped += 1
            return loss
        for k, (group, (params, grads)) in enumerate(zip(self.param_groups, work, strict=True)):
            if params:
                if group.get("capturable"):
                    self.captured(group)
                    continue
                self._check_capture(params)
                hyper = {key: _plain(x) for key, x in group.items() if key != "params"}
                if known[k]:
                    self.replay(k, hyper, grads)
                else:
                    members = self._members(k, hyper, params, grads)
                    self._update(k, hyper, members)
                    self._round(members)
        self._tell(work)
        return loss

    def planned(self, k: int, params: list[Tensor], grads: list[Tensor]) -> bool:
        """Whether group `k` can be stepped as it was last time, for nothing about it changed."""
        return False

    def replay(self, k: int, group: Group, grads: list[Tensor]) -> None:
        """Step group `k`, found `planned`."""
        raise NotImplementedError

    def captured(self, group: Group) -> None:
        """Step a `capturable` group without looking at a number on the host."""
        raise NotImplementedError

    def _check_capture(self, params: list[Tensor]) -> None:
        if params[0].is_cuda and torch.cuda.is_current_stream_capturing():
            raise RuntimeError(
                f"{type(self).__name__}: a CUDA graph that captures this step would repeat the rate "
                "and the step count of now; nothing was changed. Pass capturable=True if the "
                "optimizer has it, or step outside of the graph"
            )

    def _check(self, params: list[Tensor], grads: list[Tensor]) -> None:
        for p, g in zip(params, grads, strict=True):
            if g.layout is not torch.strided:
                raise RuntimeError(
                    f"{type(self).__name__} does not support sparse gradients, and "
                    f"{self.name_of(p)} has one; use torch.optim.SparseAdam for it, or "
                    "sparse=False in its Embedding"
                )
            if g.shape != p.shape or g.device != p.device:
                raise ValueError(
                    f"{type(self).__name__}: {self.name_of(p)} is {tuple(p.shape)} on {p.device} "
                    f"and its gradient {tuple(g.shape)} on {g.device}; nothing was changed. "
                    "Call zero_grad() after changing a parameter, and run backward again"
                )
            if is_sharded(p) != is_sharded(g):
                raise ValueError(
                    f"{type(self).__name__}: of {self.name_of(p)} and its gradient one is a DTensor "
                    "and the other is not; nothing was changed. Distribute both over the same mesh"
                )
            if p in self.state:
                self._check_shapes(self.state[p], p)

    def _check_shapes(self, state: dict[str, Any], p: Tensor) -> None:
        for name in self.shaped:
            value = state.get(name)
            if isinstance(value, Tensor) and value.shape != p.shape:
                raise ValueError(
                    f"{type(self).__name__}: {self.name_of(p)} has shape {tuple(p.shape)} and its "
                    f"{name} {tuple(value.shape)}; a parameter keeps its shape. Make a new "
                    f"{type(self).__name__} for it"
                )

    def _finite(self, work: Iterable[_Work]) -> bool:
        pairs = [(p, g) for ps, gs in work for p, g in zip(ps, gs, strict=True) if g.numel() > 0]
        if not pairs:
            return True
        tops = torch._foreach_norm([g for _, g in pairs], float("inf"))
        bad = [p for (p, _), top in zip(pairs, tops, strict=True) if not bool(top.isfinite())]
        if bad and self.nonfinite == "raise":
            names = ", ".join(self.name_of(p) for p in bad[:5])
            raise NonFinite(
                f"{type(self).__name__}: the gradient of {names} holds NaN or infinity "
                f"({len(bad)} of {len(pairs)} tensors); nothing was changed. Lower the rate, clip "
                "gradients, or pass nonfinite='skip'"
            )
        return not bad

    def _members(
        self, k: int, group: Group, params: list[Tensor], grads: list[Tensor]
    ) -> list[Member]:
        states = [self.state[p] for p in params]
        fresh = [i for i, state in enumerate(states) if not self.begun(state, group)]
        if fresh:
            steps = torch.zeros(len(fresh), dtype=torch.float32)
            for i, step in zip(fresh, steps.unbind(), strict=True):
                if self.counts:
                    states[i].setdefault("step", step)
                if not (self.whole and is_sharded(params[i])):  # `_update` begins at the owner
                    self.begin(states[i], params[i], group)
        if self.counts:
            numbers = self._advance(k, params, states, len(fresh) == len(params))
        else:  # all that matters is whether this step is the first
            new = set(fresh)
            numbers = [1 if i in new else 2 for i in range(len(params))]
        return [
            Member(p, self._wide(p, state), real(_placed(g, p)), state, t)
            for p, g, state, t in zip(params, grads, states, numbers, strict=True)
        ]

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

    def _wide(self, p: Tensor, state: dict[str, Any]) -> Tensor:
        """What a step changes for `p`: itself, or a wide copy that `_round` writes back."""
        way = rounding_named(self.rounding)
        if way.name == "nearest" or p.dtype != torch.bfloat16:
            return real(p)
        if way.rest is None:
            state["roundings"] = state.get("roundings", 0) + 1
        elif REST not in state:
            state[REST] = torch.zeros_like(p, dtype=way.rest)
        return way.widened(local(p), local(state[REST]) if way.rest else None)

    def _round(self, members: list[Member]) -> None:
        """Write wide copies back to their parameters."""
        way = rounding_named(self.rounding)
        if way.name == "nearest":
            return
        for i, m in enumerate(members):
            if m.tensor.dtype == torch.bfloat16:
                rest = local(m.state[REST]) if way.rest else None
                seed = ~((m.state.get("roundings", 0) << 20) + i)  # not one that a codec uses
                way.write(m.p, local(m.tensor), rest, seed=seed)

    def _advance(
        self, k: int, params: list[Tensor], states: list[dict[str, Any]], fresh: bool
    ) -> Sequence[int]:
        """Add one to the step numbers, and return them."""
        base = states[0]["step"]._base
        if fresh and base is not None and base.numel() == len(params) and not base.any():
            self._cohorts[k] = Cohort(params, [state["step"] for state in states], base, 0)
        t = self._together(k, params, states)
        if t is not None:
            return [t] * len(params)
        for state in states:
            state["step"] += 1
        return [int(state["step"]) for state in states]

    def _together(self, k: int, params: list[Tensor], states: list[dict[str, Any]]) -> int | None:
        """The next step number of tensors that have always stepped together, None for others."""
        cohort = self._cohorts.get(k)
        if (
            cohort is not None
            and cohort.of(params)
            and all(map(is_, map(methodcaller("get", "step"), states), cohort.held))
        ):
            return self._counted(k, cohort)
        self._cohorts.pop(k, None)
        return None

    def _counted(self, k: int, cohort: Cohort) -> int | None:
        """The next step number of group `k`, None where others have written to its numbers."""
        if bool((cohort.steps == cohort.t).all()):
            cohort.t += 1
            cohort.steps += 1
            return cohort.t
        self._cohorts.pop(k, None)
        return None

    # -- tracegraph parameters -----------------------------------------------------------------

    @property
    def parameters(self) -> list[Any]:
        """The parameters in order: tracegraph's where they were given, tensors elsewhere."""
        held = {id(binding.tensor): binding.parameter for binding in self._bindings}
        return [held.get(id(p), p) for group in self.param_groups for p in group["params"]]

    def backward(self, outputs: Any, feedback: Any = None, **options: Any) -> Mapping[Any, Any]:
        """Carry feedback back: ``backward(node, feedback)`` or ``backward([(node, feedback), ...])``.

        ``backward(loss)`` of a tensor with one number gives it the gradient 1, as torch does.

        >>> import tracegraph as tg
        >>> from optimizers import SGD
        >>> rate = tg.node(1.0, trainable=True, name="rate")
        >>> optimizer = SGD([rate], lr=0.1)
        >>> received = optimizer.backward(rate * torch.tensor(3.0))
        >>> optimizer.step()
        >>> round(rate.data, 6)
        0.7

        Raises:
            NotReached: none of this optimizer's parameters lies behind any of the outputs.
            OptimizerError: a tensor of several numbers without feedback.
        """
        if feedback is None and isinstance(outputs, Node) and isinstance(outputs.data, Tensor):
            if outputs.data.numel() != 1:
                raise OptimizerError(
                    f"only a loss of one number has the gradient 1; {outputs.name} has the shape "
                    f"{tuple(outputs.data.shape)}: sum or average it first, or give a gradient of that shape"
                )
            feedback = 1.0
        mine = {binding.name: binding.parameter for binding in self._bindings}
        return reach(outputs, feedback, mine, options)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the tensors' ``.grad`` and the feedback of tracegraph parameters."""
        super().zero_grad(set_to_none=set_to_none)
        for binding in self._bindings:
            forget(binding.parameter)

    def zero_feedback(self) -> None:
        """The same as `zero_grad`, by the name that all optimizers have."""
        self.zero_grad()

    def name_of(self, p: Tensor) -> str:
        """The name of a tensor in messages: its own, or its place in the groups."""
        for binding in self._bindings:
            if binding.tensor is p:
                return f"parameter {binding.name!r}"
        for k, group in enumerate(self.param_groups):
            for i, q in enumerate(group["params"]):
                if q is p:
                    names = group.get("param_names")
                    return f"parameter {names[i]!r}" if names else f"parameter {i} of group {k}"
        return "a parameter"

    def _follow(self) -> None:
        """Take over tensors that have replaced those of tracegraph parameters, and numbers."""
        for binding in self._bindings:
            binding.take()
            new = binding.moved()
            if new is None:
                continue
            old = binding.tensor
            if new.shape != old.shape or new.dtype != old.dtype or new.device != old.device:
                raise Rejected(
                    parameter=binding.parameter,
                    reason=(
                        f"parameter {binding.name!r} was {tuple(old.shape)} {old.dtype} on "
                        f"{old.device} and is {tuple(new.shape)} {new.dtype} on {new.device}; its "
                        f"state does not fit. Make a new {type(self).__name__} for it"
                    ),
                )
            for group in self.param_groups:
                group["params"] = [new if p is old else p for p in group["params"]]
            if old in self.state:
                self.state[new] = self.state.pop(old)
            self.forget()
            binding.tensor = new

    def _tell(self, work: Iterable[_Work]) -> None:
        if self._bindings:
            changed = {id(p) for params, _ in work for p in params}
            for binding in self._bindings:
                if id(binding.tensor) in changed:
                    binding.changed()

    def forget(self) -> None:
        """Drop what was only kept to be fast; it is found again."""
        self._cohorts.clear()

    # -- saving --------------------------------------------------------------------------------

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a group; takes the same kinds of parameters as the constructor."""
        if isinstance(param_group, dict) and "params" in param_group:
            adapted, bindings = adapt([param_group], type(self).__name__)
            param_group = adapted[0]
            self._bindings += bindings
        super().add_param_group(param_group)
        self._check_shards(self.param_groups[-1]["params"])
        half = [p for p in self.param_groups[-1]["params"] if p.dtype == torch.float16]
        if half and self.rounding != "nearest":
            del self.param_groups[-1]
            raise ValueError(
                f"{type(self).__name__}: rounding={self.rounding!r} is for bfloat16 parameters, and "
                f"one of shape {tuple(half[0].shape)} is float16; use bfloat16, or leave rounding out"
            )

    def _check_shards(self, params: list[Tensor]) -> None:
        """Refuse DTensors that cannot be stepped, and the group with them."""
        shards: list[Any] = [p for p in params if is_sharded(p)]
        if not shards:
            return
        from optimizers.numeric.whole import check_sharding

        try:
            for p in shards:
                check_sharding(
                    p, type(self).__name__, f"one of shape {tuple(p.shape)}", whole=self.whole
                )
        except ValueError:
            del self.param_groups[-1]
            raise

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Load a state dict of this optimizer, or of torch's optimizer of the same name."""
        saved = state_dict["state"]
        ids = list(chain.from_iterable(group["params"] for group in state_dict["param_groups"]))
        mine = list(chain.from_iterable(group["params"] for group in self.param_groups))
        if len(ids) == len(mine):  # torch raises otherwise, and says why
            for key, p in zip(ids, mine, strict=True):
                if key in saved:
                    self._check_state(saved[key], p)
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
        state = {key: _copied(key, value, p) for key, value in saved.items() if value is not None}
        way = rounding_named(self.rounding)
        if REST in state:
            if way.rest is None:
                del state[REST]
            else:
                state[REST] = way.converted(state[REST])
        return state

    def needed(self, group: Group) -> Iterable[str]:
        """The names that a saved state must have."""
        return ()

    def _group_of(self, p: Tensor) -> Group:
        for group in self.param_groups:
            if any(q is p for q in group["params"]):
                return group
        raise OptimizerError("the tensor belongs to no group of this optimizer")

    def _check_state(self, state: dict[str, Any], p: Tensor) -> None:
        held = {key for key, value in state.items() if value is not None}
        missing = [name for name in self.needed(self._group_of(p)) if name not in held]
        if held - BOOKKEEPING and missing:
            raise ValueError(
                f"{type(self).__name__} cannot load this state: for {self.name_of(p)} it has "
                f"{sorted(held)} and lacks {missing}; it was saved by another optimizer or with "
                "other options"
            )
        for key, value in state.items():
            full = isinstance(value, Tensor) and key in self.needed(self._group_of(p))
            if full and value.shape != p.shape:
                raise ValueError(
                    f"{type(self).__name__} cannot load this state: {key} of {self.name_of(p)} has "
                    f"shape {tuple(value.shape)}, the parameter {tuple(p.shape)}"
                )

    def __getstate__(self) -> dict[str, Any]:
        kept = {key: value for key, value in self.__dict__.items() if not key.startswith("_")}
        return {**kept, "_bindings": self._bindings, **self._fresh()}


def _copied(key: str, value: Any, p: Tensor) -> Any:
    if not isinstance(value, Tensor):
        return value
    if key == "step":
        return value.detach().to(dtype=torch.float32, device="cpu", copy=True)
    return value.detach().to(device=p.device, copy=True)
