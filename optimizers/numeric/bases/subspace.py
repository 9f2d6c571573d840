"""Training in a random subspace (Li et al. 2018, "Measuring the intrinsic dimension")."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from optimizers.numeric.codecs.codec import computing_dtype
from optimizers.numeric.members import movable

__all__ = ["RandomSubspace"]


class RandomSubspace:
    """Trains ``p = p0 + P z``: only the `dim` numbers of `z` move, by an optimizer of your choice.

    `P` is random with columns of unit length over all tensors together; it is drawn from `seed`
    again whenever it is used, tensor by tensor, and never kept. What is kept is a copy of the
    tensors as they were, and `coordinates`, which `place` sets for a search without gradients.
    Where some tensors require gradients, those that do not are frozen and stay where they are.
    The smallest `dim` that reaches nine tenths of the full result is the intrinsic dimension of a
    task.

    >>> from optimizers.numeric.sgd import SGD
    >>> w = torch.zeros(100, requires_grad=True)
    >>> optimizer = RandomSubspace([w], 5, lambda z: SGD(z, lr=0.1))
    >>> for _ in range(200):
    ...     optimizer.zero_grad()
    ...     loss = (w - 1).square().sum()
    ...     loss.backward()
    ...     optimizer.step()
    >>> bool(90 < loss.item() < 100), tuple(optimizer.coordinates.shape)
    (True, (5,))
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        dim: int,
        make: Callable[[list[Tensor]], Optimizer],
        *,
        seed: int = 0,
    ) -> None:
        if dim < 1:
            raise ValueError(f"dim={dim} must be 1 or more")
        self.params = list(params)
        for i, p in enumerate(self.params):
            if not p.is_floating_point():
                raise ValueError(
                    f"RandomSubspace moves real floating-point tensors, and tensor {i} is {p.dtype}"
                )
        if not self.params:
            raise ValueError("RandomSubspace got an empty list of tensors")
        self.dim, self.seed = dim, seed
        self.start = [p.detach().clone() for p in self.params]
        dtypes = [computing_dtype(p.dtype) for p in self.params]
        dtype = torch.float64 if torch.float64 in dtypes else torch.float32
        self.coordinates = torch.zeros(dim, dtype=dtype, device="cpu", requires_grad=True)
        total = torch.zeros(dim, dtype=torch.float64, device="cpu")
        for i in range(len(self.params)):
            total += self._columns(i).double().square().sum(dim=0)
        self._length = total.sqrt().clamp(min=1e-30).to(dtype)
        self.inner = make([self.coordinates])

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Those of the optimizer of the coordinates."""
        return self.inner.param_groups

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of the tensors and of the coordinates."""
        self.inner.zero_grad(set_to_none=set_to_none)
        for p in self.params:
            if set_to_none:
                p.grad = None
            elif p.grad is not None:
                p.grad.zero_()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Step the coordinates by ``P^T g`` and write the tensors; returns the closure's loss."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        pulled = torch.zeros_like(self.coordinates)
        for i, p in enumerate(self.params):
            if p.grad is not None:
                g = p.grad.detach().reshape(-1).to("cpu", pulled.dtype)
                pulled += self._columns(i).mT @ g
        self.coordinates.grad = pulled / self._length
        self.inner.step()
        self._write()
        return loss

    @torch.no_grad()
    def place(self, coordinates: Tensor) -> None:
        """Set the coordinates, and the tensors with them."""
        if coordinates.shape != (self.dim,):
            raise ValueError(
                f"coordinates have shape {tuple(coordinates.shape)} and must have ({self.dim},)"
            )
        self.coordinates.copy_(coordinates)
        self._write()

    def _columns(self, i: int) -> Tensor:
        """The rows of `P` that belong to tensor `i`, before their columns have unit length."""
        generator = torch.Generator().manual_seed(self.seed + 7919 * i)
        shape = (self.params[i].numel(), self.dim)
        return torch.randn(shape, generator=generator, dtype=self.coordinates.dtype, device="cpu")

    def _write(self) -> None:
        z = self.coordinates.detach() / self._length
        free = set(map(id, movable(self.params)))
        for i, (p, start) in enumerate(zip(self.params, self.start, strict=True)):
            if id(p) in free:
                p.copy_(start + (self._columns(i) @ z).view(p.shape).to(p))

    def state_dict(self) -> dict[str, Any]:
        """The seed, the coordinates, the tensors' first values and the inner optimizer's state."""
        return {
            "seed": self.seed,
            "coordinates": self.coordinates.detach().clone(),
            "start": [p.clone() for p in self.start],
            "inner": self.inner.state_dict(),
        }

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state dict of the same dimension, seed and shapes; writes the tensors."""
        start = state_dict["start"]
        shapes = [tuple(p.shape) for p in self.params]
        if (
            state_dict["seed"] != self.seed
            or state_dict["coordinates"].shape != (self.dim,)
            or [tuple(p.shape) for p in start] != shapes
        ):
            raise ValueError(
                f"RandomSubspace cannot load this state: it has seed {state_dict['seed']} and "
                f"{state_dict['coordinates'].numel()} coordinates, this one seed {self.seed} and "
                f"{self.dim}, for tensors of shapes {shapes}"
            )
        self.inner.load_state_dict(state_dict["inner"])
        self.start = [p.detach().clone().to(q) for p, q in zip(start, self.params, strict=True)]
        self.place(state_dict["coordinates"])
