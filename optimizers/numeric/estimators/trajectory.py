"""Sharpness-aware training for free: a term of the loss instead of a second pass.

A loss that falls too fast for a sample marks a sharp place. The term holds a model's outputs near
those that it, or its running average, had some time ago (Du et al. 2022, arXiv 2205.14083).
"""

from __future__ import annotations

import copy
from collections.abc import Hashable, Iterable
from typing import Any, final

import torch
from torch import Tensor
from torch.func import functional_call

from optimizers.numeric.hyperparameters import check_nonnegative

__all__ = ["MESA", "SAF", "trajectory_loss"]


def trajectory_loss(now: Tensor, past: Tensor, temperature: float = 5.0) -> Tensor:
    """The mean over samples of ``KL(softmax(past / T), softmax(now / T))``.

    Logits lie in the last dimension; no gradient goes to `past`. Zero where they are equal.

    >>> x = torch.tensor([[2.0, 0.0]])
    >>> trajectory_loss(x, x).item(), bool(trajectory_loss(x, -x) > 0)
    (0.0, True)
    """
    if now.shape != past.shape or now.ndim < 1:
        raise ValueError(
            f"logits have shape {tuple(now.shape)} now and had {tuple(past.shape)}; give logits of "
            "the same samples, in the same order"
        )
    was = torch.log_softmax(past.detach() / temperature, dim=-1)
    new = torch.log_softmax(now / temperature, dim=-1)
    return (was.exp() * (was - new)).sum(dim=-1).mean()


def _check(weight: float, temperature: float, start: int) -> None:
    check_nonnegative(weight=weight, start=start)
    if not temperature > 0:
        raise ValueError(f"temperature={temperature} must be more than 0")


@final
class SAF:
    """The trajectory loss against each sample's own outputs `lag` epochs ago (Du et al. 2022).

    Add what `penalty` returns to the loss. It is ``weight`` times the mean over those samples of
    which outputs were kept, from epoch `start` on; before that it is zero and only keeps. Kept:
    the logits of `lag` epochs.

    >>> saf = SAF(lag=1, start=1)
    >>> saf.penalty([7], torch.tensor([[0.0, 0.0]]), epoch=0).item()
    0.0
    >>> later = torch.tensor([[3.0, 0.0]], requires_grad=True)
    >>> bool(saf.penalty([7], later, epoch=1) > 0)
    True
    """

    def __init__(
        self, *, lag: int = 3, start: int = 5, weight: float = 0.3, temperature: float = 5.0
    ) -> None:
        _check(weight, temperature, start)
        if lag < 1:
            raise ValueError(f"lag={lag} must be 1 or more epochs")
        self.lag, self.start, self.weight, self.temperature = lag, start, weight, temperature
        self._kept: dict[int, dict[Hashable, Tensor]] = {}

    def penalty(self, samples: Iterable[Hashable] | Tensor, logits: Tensor, epoch: int) -> Tensor:
        """The term for a batch: `samples` names each row of `logits`, in every epoch alike.

        Raises:
            ValueError: there are not as many names as rows, or the epochs go backwards.
        """
        names = samples.tolist() if isinstance(samples, Tensor) else list(samples)
        if len(names) != len(logits):
            raise ValueError(f"{len(names)} samples are named, and logits have {len(logits)} rows")
        if self._kept and epoch < max(self._kept):
            raise ValueError(f"epoch={epoch} comes after epoch {max(self._kept)}; count upwards")
        past = self._kept.get(epoch - self.lag, {})
        for old in [e for e in self._kept if e < epoch - self.lag]:
            del self._kept[old]
        known = [i for i, name in enumerate(names) if name in past]
        self._kept.setdefault(epoch, {}).update(
            zip(names, logits.detach().clone().unbind(), strict=True)
        )
        if epoch < self.start or not known:
            return logits.new_zeros(())
        held = torch.stack([past[names[i]] for i in known])
        return self.weight * trajectory_loss(logits[known], held, self.temperature)

    def state_dict(self) -> dict[str, Any]:
        """The kept logits by epoch: the samples' names, and one row for each."""
        return {
            "kept": {
                epoch: (list(rows), torch.stack(list(rows.values())))
                for epoch, rows in self._kept.items()
            }
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state dict."""
        self._kept = {
            int(epoch): dict(zip(names, rows.clone().unbind(), strict=True))
            for epoch, (names, rows) in state_dict["kept"].items()
        }


@final
class MESA:
    """The trajectory loss against the outputs of the model's running average (Du et al. 2022).

    Add what `penalty` returns to the loss, and call `update` after each step. Costs one forward
    pass more, without gradients, and a copy of the parameters. ``average(...)`` calls the averaged
    model.

    >>> model = torch.nn.Linear(2, 3)
    >>> mesa = MESA(model, decay=0.9)
    >>> x = torch.ones(1, 2)
    >>> mesa.penalty(model(x), x).item()
    0.0
    """

    def __init__(
        self,
        model: torch.nn.Module,
        *,
        decay: float = 0.9995,
        weight: float = 0.8,
        temperature: float = 1.5,
        start: int = 0,
    ) -> None:
        _check(weight, temperature, start)
        if not 0.0 <= decay < 1.0:
            raise ValueError(f"decay={decay} must be in [0, 1)")
        self.model, self.decay = model, decay
        self.weight, self.temperature, self.start = weight, temperature, start
        self.steps = 0
        self._mean = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def average(self, *inputs: Any) -> Any:
        """The averaged model's outputs, without gradients; the model's buffers stay as they are."""
        buffers = {name: b.clone() for name, b in self.model.named_buffers()}
        return functional_call(self.model, {**self._mean, **buffers}, inputs)

    def penalty(self, logits: Tensor, *inputs: Any) -> Tensor:
        """The term for a batch, of the model's `logits` on `inputs`; zero before step `start`."""
        if self.steps < self.start:
            return logits.new_zeros(())
        return self.weight * trajectory_loss(logits, self.average(*inputs), self.temperature)

    @torch.no_grad()
    def update(self) -> None:
        """Move the average towards the parameters as they are now."""
        for name, p in self.model.named_parameters():
            self._mean[name].lerp_(p.detach(), 1 - self.decay)
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        """The number of steps and the averages, by parameter name."""
        return {"steps": self.steps, "mean": copy.deepcopy(self._mean)}

    @torch.no_grad()
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a state dict of a model with the same parameters."""
        mean = state_dict["mean"]
        shapes = {name: tuple(x.shape) for name, x in mean.items()}
        mine = {name: tuple(x.shape) for name, x in self._mean.items()}
        if shapes != mine:
            raise ValueError(
                f"MESA cannot load this state: it has parameters {shapes}, the model has {mine}"
            )
        for name, x in mean.items():
            self._mean[name].copy_(x)
        self.steps = int(state_dict["steps"])
