"""What optimizers share that look at a whole matrix at a time."""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import Any, TypedDict, Unpack

import torch
from torch import Tensor
from typing_extensions import override

from optimizers.numeric.codecs.codec import computing_dtype
from optimizers.numeric.hyperparameters import check_betas, check_flags, check_nonnegative
from optimizers.numeric.members import Group, Member
from optimizers.numeric.optimizer import NumericOptimizer
from optimizers.numeric.rule_optimizer import direction
from optimizers.numeric.rules.adam import ADAMW
from optimizers.numeric.saved import BOOKKEEPING

__all__ = ["MatrixAdam", "MatrixOptimizer", "MatrixOptions", "as_matrix", "orthogonal", "zeros"]


class MatrixOptions(TypedDict, total=False):
    """The keyword options that every matrix optimizer takes; see NumericOptimizer.

    `foreach` and `fused` are torch's flags, which change nothing here; `capturable` and
    `differentiable` are refused where they are True.
    """

    maximize: bool
    nonfinite: str
    rounding: str
    foreach: bool | None
    fused: bool | None
    capturable: bool
    differentiable: bool


def as_matrix(x: Tensor) -> Tensor:
    """A tensor of two or more dimensions as its first dimension by the rest."""
    return x.reshape(x.shape[0], math.prod(x.shape[1:]))


def zeros(like: Tensor) -> Tensor:
    """Zeros in the computing dtype, contiguous, so that `as_matrix` of them is a view."""
    dtype = computing_dtype(like.dtype)
    return torch.zeros_like(like, dtype=dtype, memory_format=torch.contiguous_format)


def orthogonal(
    g: Tensor,
    *,
    steps: int = 5,
    coefficients: tuple[float, float, float] = (3.4445, -4.775, 2.0315),
    eps: float = 1e-7,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """A matrix, or a batch of them, with its singular values brought near 1, by Newton-Schulz.

    The quintic iteration of Jordan et al. 2024 (Muon): after five steps singular values lie
    between .7 and 1.2. Computed in `dtype`: bfloat16, or float32 on a CPU, where that is faster.

    >>> x = orthogonal(torch.diag(torch.tensor([3.0, 1.0])))
    >>> bool(((x.diagonal() > 0.6) & (x.diagonal() < 1.3)).all())
    True
    """
    a, b, c = coefficients
    dtype = dtype or (torch.float32 if g.device.type == "cpu" else torch.bfloat16)
    tall = g.shape[-2] > g.shape[-1]
    x = (g.mT if tall else g).to(dtype)
    x = x / torch.linalg.matrix_norm(x, keepdim=True).clamp(min=eps)
    flat = x.reshape(-1, *x.shape[-2:]).contiguous()
    many = flat.shape[0] > 3 or flat.shape[1] > 2048  # else torch's own products are as fast
    if x.is_cuda and many and find_spec("triton") is not None:
        from optimizers.numeric.executors.newton_schulz import iterate

        flat = iterate(flat, steps, coefficients)
    else:
        for _ in range(steps):
            gram = torch.bmm(flat, flat.mT)
            polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
            flat = torch.baddbmm(flat, polynomial, flat, beta=a)
    x = flat.view(x.shape)
    return (x.mT if tall else x).to(g.dtype)


def _shape(x: Any) -> Any:
    return tuple(x.shape) if isinstance(x, Tensor) else type(x).__name__


class MatrixOptimizer(NumericOptimizer):
    """The base: each tensor is moved by `moved`, in float32 at the least.

    Of a sharded DTensor the whole is gathered, and one process steps it and keeps its state.
    """

    whole: bool = True

    def __init__(
        self,
        params: Any,
        defaults: dict[str, Any],
        *,
        maximize: bool = False,
        nonfinite: str = "allow",
        rounding: str = "nearest",
        foreach: bool | None = None,
        fused: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        name = type(self).__name__
        if capturable:
            raise ValueError(
                f"{name} does not support capturable=True: its step decides on the host; leave it out"
            )
        check_flags(name, foreach=foreach, fused=fused, differentiable=differentiable)
        super().__init__(
            params, defaults, maximize=maximize, nonfinite=nonfinite, rounding=rounding
        )

    @override
    def check_params(self, params: list[Tensor]) -> None:
        super().check_params(params)
        for p in params:
            if p.is_complex():
                raise ValueError(
                    f"{type(self).__name__} does not take complex tensors (shape "
                    f"{tuple(p.shape)}); give it torch.view_as_real of it, or use AdamW"
                )

    @override
    def begun(self, state: dict[str, Any], group: Group) -> bool:
        return bool(state.keys() - BOOKKEEPING)

    @override
    def check_saved(self, state: dict[str, Any], p: Tensor) -> None:
        wanted: dict[str, Any] = {}
        like = torch.empty(p.shape, dtype=p.dtype, device="meta")  # shapes alone, no memory
        self.begin(wanted, like, self._group_of(p))
        held = {k: x for k, x in state.items() if x is not None and k not in BOOKKEEPING}
        shapes, mine = ({k: _shape(x) for k, x in d.items()} for d in (held, wanted))
        if held and shapes != mine:
            raise ValueError(
                f"{type(self).__name__} cannot load this state: for {self.name_of(p)} it has "
                f"{shapes}, and {mine} is needed; it was saved by another optimizer or with other "
                "options"
            )

    @override
    def update(self, group: Group, members: list[Member]) -> None:
        for m in members:
            dtype = computing_dtype(m.p.dtype)
            g = m.g.to(dtype)
            g = -g if group["maximize"] else g
            if m.p.numel():
                m.p.copy_(self.moved(m.p.to(dtype), g, m.state, group, m.t))

    def moved(self, p: Tensor, g: Tensor, state: dict[str, Any], group: Group, t: int) -> Tensor:
        """The new value of `p`; `state` is changed in place."""
        raise NotImplementedError


class MatrixAdam(MatrixOptimizer):
    """The base of those that keep Adam's moments, in coordinates of their own."""

    def __init__(
        self,
        params: Any,
        lr: float | Tensor,
        betas: tuple[float, float],
        eps: float,
        weight_decay: float,
        more: dict[str, Any],
        **options: Unpack[MatrixOptions],
    ) -> None:
        check_betas(betas)
        check_nonnegative(epsilon=eps, weight_decay=weight_decay)
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay, **more}
        super().__init__(params, defaults, **options)

    @staticmethod
    def moments(state: dict[str, Any], like: Tensor) -> None:
        """Begin first and second moments shaped as `like`."""
        for name in ("exp_avg", "exp_avg_sq"):
            if name not in state:
                state[name] = zeros(like)

    @staticmethod
    def adam(g: Tensor, state: dict[str, Any], group: Group, t: int) -> Tensor:
        """AdamW's direction for `g`, by its rule."""
        return direction(ADAMW, g, [state["exp_avg"], state["exp_avg_sq"]], group, t)
