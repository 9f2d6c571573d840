"""Sophia and AdaHessian: optimizers that read a diagonal of the Hessian."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Unpack

import torch
from torch import Tensor
from typing_extensions import override

from optimizers.numeric.estimators.gauss_newton import gauss_newton_diagonal
from optimizers.numeric.estimators.hutchinson import hessian_diagonal
from optimizers.numeric.hyperparameters import check_betas, check_nonnegative
from optimizers.numeric.members import Group
from optimizers.numeric.rule_optimizer import Options, RuleOptimizer
from optimizers.numeric.rules.curvature import ADAHESSIAN, SOPHIA
from optimizers.numeric.rules.rule import Rule
from tracegraph.errors import OptimizerError

__all__ = ["AdaHessian", "Sophia"]


class _Curvature(RuleOptimizer):
    """A rule optimizer with a place for an estimate of the Hessian's diagonal."""

    def trainable(self) -> list[Tensor]:
        """All tensors of all groups that require a gradient."""
        return [p for group in self.param_groups for p in group["params"] if p.requires_grad]

    def _state_of(self, p: Tensor, group: Group) -> dict[str, Any]:
        state: dict[str, Any] = self.state[p]
        if not self.begun(state, group):
            state.setdefault("step", torch.zeros((), device="cpu"))
            self.begin(state, p, group)
        return state


class Sophia(_Curvature):
    """Sophia (Liu et al. 2023): momentum over a clipped diagonal of the Hessian.

    Every ten steps or so call one of the two estimators: `update_hessian(loss)`, Hutchinson's, with
    a loss whose graph is still there (Sophia-H), or `update_gauss_newton()` after a backward pass
    on labels sampled from the model (Sophia-G; `batch_size` is then the number of tokens in the
    batch). Before the first estimate a step is that of the sign. State: 8 bytes per parameter.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1e-4,
        betas: tuple[float, float] = (0.965, 0.99),
        rho: float = 0.04,
        weight_decay: float = 0.1,
        batch_size: float = 1.0,
        **options: Unpack[Options],
    ) -> None:
        check_betas(betas)
        check_nonnegative(rho=rho, weight_decay=weight_decay, batch_size=batch_size)
        if options.get("state", "fp32").startswith("8bit"):
            raise ValueError(
                "Sophia keeps its Hessian in plain numbers; use state='fp32' or 'bf16'"
            )
        defaults = {
            "lr": lr,
            "betas": betas,
            "rho": rho,
            "weight_decay": weight_decay,
            "batch_size": batch_size,
        }
        super().__init__(params, defaults, **options)

    @override
    def rule(self, group: Group) -> Rule:
        return SOPHIA

    def update_hessian(self, loss: Tensor, *, generator: torch.Generator | None = None) -> None:
        """Average in Hutchinson's estimate of the diagonal of the Hessian of `loss`."""
        params = self.trainable()
        self._average(params, hessian_diagonal(loss, params, generator=generator))

    def update_gauss_newton(
        self, logits: Tensor | None = None, *, generator: torch.Generator | None = None
    ) -> None:
        """Average in the squares of the gradients on labels sampled from `logits`.

        Without logits they are the gradients that are there now. The squares are of mean gradients:
        set `batch_size` to the number of samples (Gauss-Newton-Bartlett).
        """
        if logits is not None:
            params, count = self.trainable(), logits.numel() // logits.shape[-1]
            diagonal = gauss_newton_diagonal(logits, params, generator=generator)
            self._average(params, [d / count for d in diagonal])
            return
        params = [p for p in self.trainable() if p.grad is not None]
        self._average(params, [p.grad * p.grad for p in params])  # type: ignore[operator]

    @torch.no_grad()
    def _average(self, params: list[Tensor], estimates: list[Tensor]) -> None:
        for p, estimate in zip(params, estimates, strict=True):
            group = self._group_of(p)
            held = self._state_of(p, group)["hessian"]
            held.lerp_(estimate.to(held.dtype), 1 - float(group["betas"][1]))


class AdaHessian(_Curvature):
    """AdaHessian (Yao et al. 2021): AdamW whose second moment is of the Hessian's diagonal.

    Call ``loss.backward(create_graph=True)`` and then `step()`, which draws one Rademacher vector
    and differentiates once more, or call `estimate(loss)` before an ordinary backward. Kernels of
    four (three) dimensions average the estimate over their last two (one). State: 12 bytes per
    parameter.
    """

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 0.15,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-4,
        weight_decay: float = 0.0,
        *,
        generator: torch.Generator | None = None,
        **options: Unpack[Options],
    ) -> None:
        check_betas(betas)
        check_nonnegative(epsilon=eps, weight_decay=weight_decay)
        if options.get("state", "fp32").startswith("8bit"):
            raise ValueError(
                "AdaHessian keeps its Hessian in plain numbers; use state='fp32' or 'bf16'"
            )
        self.generator = generator
        self.estimated = False  # whether since the last step; a copy of the optimizer has it, too
        defaults = {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay}
        super().__init__(params, defaults, **options)

    @override
    def rule(self, group: Group) -> Rule:
        return ADAHESSIAN

    def estimate(self, loss: Tensor) -> None:
        """Estimate the diagonal of the Hessian of `loss` for the next step; keeps its graph."""
        params = self.trainable()
        self._store(params, hessian_diagonal(loss, params, generator=self.generator))

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Do one step; the gradients must have a graph, or `estimate` have been called."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if not self.estimated:
            params = [p for p in self.trainable() if p.grad is not None]
            bare = [p for p in params if p.grad.grad_fn is None]  # type: ignore[union-attr]
            if bare:
                raise OptimizerError(
                    f"AdaHessian: the gradient of {self.name_of(bare[0])} has no graph, so its "
                    "Hessian cannot be estimated; call loss.backward(create_graph=True), or "
                    "optimizer.estimate(loss) before backward"
                )
            if params:
                grads = [p.grad for p in params]
                self._store(
                    params,
                    hessian_diagonal(None, params, grads=grads, generator=self.generator),  # type: ignore[arg-type]
                )
                for p in params:  # the graph is no longer needed: a cycle would keep it
                    p.grad = p.grad.detach()  # type: ignore[union-attr]
        super().step()
        self.estimated = False
        return loss

    @torch.no_grad()
    def _store(self, params: list[Tensor], estimates: list[Tensor]) -> None:
        for p, d in zip(params, estimates, strict=True):
            if p.ndim in (3, 4):
                d = d.abs().mean(dim=tuple(range(2, p.ndim)), keepdim=True).expand_as(d)
            self._state_of(p, self._group_of(p))["hessian_diag"].copy_(d)
        self.estimated = True
