"""Gradients for what torch cannot differentiate: each function makes a rule for one operation.

===================== ============================================== ============================
estimator             for                                            costs
===================== ============================================== ============================
`finite_differences`  smooth functions of a few numbers              two calls for each number
`spsa`                black boxes of many numbers, noisy ones        two calls for each sample
`score_function`      samples and choices, which a `Score` judges    no call
`straight_through`    rounding, thresholds, argmax                   no call
`implicit`            solutions of equations                         one linear solve
===================== ============================================== ============================

The first two call the operation's function again, so it must do no harm when called again.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from tracegraph.arithmetic import is_real
from tracegraph.errors import FeedbackError, NoRule
from tracegraph.feedback import Gradient
from tracegraph.kinds import is_array, is_tensor, show
from tracegraph.node import Node
from tracegraph.recorder import stop_tracing

__all__ = ["finite_differences", "implicit", "score_function", "spsa", "straight_through"]

Rule = Callable[[Node[Any], Any], Mapping[str, Any]]


def finite_differences(
    *, step: float | None = None, function: Callable[..., Any] | None = None
) -> Rule:
    """A rule for `Gradient`: central differences, one number at a time.

    The error falls with the square of the step; by default it is the cube root of the numbers'
    precision times the number's size, which balances truncation and rounding (J. Nocedal and S. J.
    Wright, "Numerical Optimization", 2nd ed., 2006, section 8.1).

    Args:
        step: how far to move each number, positive.
        function: what to call; by default the operation's own function.

    >>> import tracegraph as tg
    >>> @tg.bundle(rules={tg.Gradient: finite_differences()})
    ... def cube(x):
    ...     return x**3
    >>> x = tg.node(2.0, trainable=True)
    >>> round(cube(x).backward(tg.Gradient(1.0))[x][tg.Gradient].value, 6)
    12.0
    """
    _check_step(step)

    def rule(node: Node[Any], gradient: Any) -> Mapping[str, Any]:
        import numpy

        call = _Again(node, function)
        found = {}
        for name, value in call.movable.items():
            at = _array(value)
            slope = numpy.zeros(at.size)
            for k in range(at.size):
                size = step or _step(value) * max(1.0, abs(at.flat[k]))
                move = numpy.zeros(at.size)
                move[k] = size
                move = move.reshape(at.shape)
                slope[k] = call.difference({name: move}, gradient.value) / (2 * size)
            found[name] = slope.reshape(at.shape)
        return found

    return rule


def spsa(
    *,
    samples: int = 1,
    step: float = 1e-3,
    seed: int = 0,
    function: Callable[..., Any] | None = None,
) -> Rule:
    """A rule for `Gradient`: all numbers moved at once, each by `step` up or down at random.

    The mean over the draws is the gradient, up to terms of ``step**2`` (J. C. Spall, "Multivariate
    stochastic approximation using a simultaneous perturbation gradient approximation", IEEE
    Transactions on Automatic Control 37, 1992).

    Args:
        samples: how many draws to average, at least 1.
        step: how far each number moves, positive.
        seed: of the draws; the same seed gives the same draws in the same order of use.
        function: what to call; by default the operation's own function.
    """
    _check_step(step)
    if type(samples) is not int or samples < 1:
        raise ValueError(f"samples= counts draws, at least 1, got {samples!r}")
    draws: list[Any] = []

    def rule(node: Node[Any], gradient: Any) -> Mapping[str, Any]:
        import numpy

        if not draws:
            draws.append(numpy.random.default_rng(seed))
        call = _Again(node, function)
        shapes = {name: _array(value).shape for name, value in call.movable.items()}
        found = {name: numpy.zeros(shape) for name, shape in shapes.items()}
        for _ in range(samples):
            signs = {n: draws[0].integers(0, 2, size=s) * 2.0 - 1.0 for n, s in shapes.items()}
            moves = {name: step * sign for name, sign in signs.items()}
            slope = call.difference(moves, gradient.value) / (2 * step)
            for name, sign in signs.items():
                found[name] += slope * sign / samples
        return found

    return rule


def score_function(
    log_probability: Callable[..., Any], *, inputs: Iterable[str], baseline: float | None = 0.9
) -> Rule:
    """A rule for `Score`, at an operation that draws a sample: the score-function gradient.

    The gradient at the inputs is ``-(score - b)`` times the derivative of the log-probability of what
    was drawn; its mean is the derivative of the expected score, whatever was sampled and however the
    score came about (R. J. Williams, "Simple statistical gradient-following algorithms for
    connectionist reinforcement learning", Machine Learning 8, 1992). The baseline ``b`` is a running
    mean of earlier scores, which leaves the mean of the gradient and lessens its variance; the first
    score sets it and moves nothing.

    Other inputs receive the `Score` unchanged.

    Args:
        log_probability: ``log_probability(sample, **inputs)`` in torch operations.
        inputs: the names of the inputs that the gradient is for.
        baseline: how slowly the running mean forgets, in [0, 1); ``None`` uses no baseline.
    """
    names = (inputs,) if isinstance(inputs, str) else tuple(inputs)
    if baseline is not None and not 0 <= baseline < 1:
        raise ValueError(f"baseline= is a decay in [0, 1) or None, got {baseline!r}")
    mean: list[float] = []

    def rule(node: Node[Any], score: Any) -> Mapping[str, Any]:
        from tracegraph.tensor import vector_jacobian

        known = node.inputs
        missing = [name for name in names if name not in known]
        if missing:
            raise FeedbackError(
                f"{node.op!r} has no input {', '.join(map(repr, missing))}; it has "
                f"{', '.join(known)}"
            )
        reached = sum(weight * said for _, weight, said in score.entries)
        total = sum(abs(weight) for _, weight, _ in score.entries)
        advantage = reached
        if baseline is not None:
            before = mean[0] if mean else score.mean
            advantage = reached - total * before
            mean[:] = [baseline * before + (1 - baseline) * score.mean]
        values = {name: known[name]._data for name in names}
        found = vector_jacobian(
            lambda **leaves: log_probability(node._data, **leaves), values, -advantage
        )
        others = {name: score for name in known if name not in names}
        return {**others, **{name: Gradient(value) for name, value in found.items()}}

    return rule


def straight_through(*inputs: str, low: float = -math.inf, high: float = math.inf) -> Rule:
    """A rule for `Gradient`: it passes as if the operation gave its input itself.

    For rounding and thresholds, whose derivative is zero almost everywhere (Y. Bengio, N. Leonard and
    A. Courville, "Estimating or propagating gradients through stochastic neurons for conditional
    computation", 2013). It is biased; it points the right way where the output grows with the input.

    Args:
        *inputs: the names of the inputs; by default the first that has a derivative.
        low: no gradient where the input is below.
        high: no gradient where it is above.

    >>> import tracegraph as tg
    >>> @tg.bundle(rules={tg.Gradient: straight_through()})
    ... def rounded(x):
    ...     return float(round(x))
    >>> x = tg.node(2.3, trainable=True)
    >>> (rounded(x) * 3.0).backward(tg.Gradient(1.0))[x][tg.Gradient].value
    3.0
    """

    def rule(node: Node[Any], gradient: Any) -> Mapping[str, Any]:
        known = node.inputs
        names = inputs or tuple(n for n, i in known.items() if _moves(i._data))[:1]
        if not names or any(name not in known for name in names):
            raise FeedbackError(
                f"straight_through({', '.join(inputs)}) finds no such number among the inputs of "
                f"{node.op!r}: {', '.join(known)}"
            )
        return {name: _within(known[name]._data, gradient.value, low, high) for name in names}

    return rule


def implicit(residual: Callable[..., Any]) -> Rule:
    """A rule for `Gradient`, at a solver whose solution ``x`` makes ``residual(x, **inputs)`` zero.

    The implicit function theorem gives the derivative from the residual at the solution alone, however
    it was found: ``J.T u = gradient``, then ``-u`` times the residual's derivative by each input (M.
    Blondel et al., "Efficient and modular implicit differentiation", NeurIPS 2022, section 2).

    Args:
        residual: in torch operations; as many equations as the solution has numbers. Its arguments
            are named as the solver's inputs.

    Raises:
        FeedbackError: when it is used: the derivative of the residual is singular, or not square.

    >>> import tracegraph as tg
    >>> @tg.bundle(rules={tg.Gradient: implicit(lambda x, a: x * x - a)})
    ... def root(a):
    ...     return a**0.5
    >>> a = tg.node(4.0, trainable=True)
    >>> root(a).backward(tg.Gradient(1.0))[a][tg.Gradient].value
    0.25
    """

    def rule(node: Node[Any], gradient: Any) -> Mapping[str, Any]:
        from tracegraph.tensor import solve_transposed, vector_jacobian

        values = {name: i._data for name, i in node.inputs.items() if name not in node.captured}
        direction = solve_transposed(
            lambda x: residual(x, **_torch_inputs(values)), node._data, gradient.value
        )
        return vector_jacobian(
            lambda **leaves: residual(_solution(node._data), **leaves), values, -direction
        )

    return rule


# The parts


class _Again:
    """A recorded operation that can be called again, with some of its inputs moved."""

    def __init__(self, node: Node[Any], function: Callable[..., Any] | None) -> None:
        operation = node._operation
        self.function = function or (None if operation is None else operation.function)
        self.name = node.op
        self.values = {n: i._data for n, i in node.inputs.items() if n not in node.captured}
        if function is None:
            self._check_callable(node)
        self.movable = {name: value for name, value in self.values.items() if _moves(value)}

    def _check_callable(self, node: Node[Any]) -> None:
        code = self.values.pop("__code", None)
        names = set(self.values)
        plain = _plain_names(self.function)
        changed = code is not None and node.inputs["__code"].version != 0
        if self.function is None or changed or plain is None or not names <= plain:
            raise NoRule(
                f"{self.name!r} cannot be called again from what was recorded of it "
                + ("(its code has changed): " if changed else f"({', '.join(names)}): ")
                + "give the estimator function=, which takes the inputs by these names"
            )

    def difference(self, moves: Mapping[str, Any], gradient: Any) -> float:
        """``gradient`` times the change of the result from ``-moves`` to ``+moves``."""
        import numpy

        up, down = (self._result(moves, sign) for sign in (1.0, -1.0))
        change = numpy.asarray(up - down, dtype=float)
        slope = float((numpy.broadcast_to(_array(gradient), change.shape) * change).sum())
        if not math.isfinite(slope):
            raise FeedbackError(
                f"{self.name!r} gave NaN or infinity beside the recorded inputs; choose a smaller step"
            )
        return slope

    def _result(self, moves: Mapping[str, Any], sign: float) -> Any:
        moved = {
            n: _like(self.values[n], _array(self.values[n]) + sign * m) for n, m in moves.items()
        }
        with stop_tracing():
            result = self.function(**{**self.values, **moved})  # type: ignore[misc]
        result = result.data if isinstance(result, Node) else result
        if not _moves(result) and not isinstance(result, int):
            raise NoRule(
                f"{self.name!r} gave {show(result, 60)}: differences need a number, an array or a tensor"
            )
        return _array(result)


def _plain_names(function: Any) -> set[str] | None:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return None
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    names = {p.name for p in parameters if p.kind in kinds}
    return None if {"self", "cls"} & names else names


def _check_step(step: float | None) -> None:
    if step is not None and not (math.isfinite(step) and step > 0):
        raise ValueError(f"step= is how far a number moves, a positive number, got {step!r}")


def _moves(value: Any) -> bool:
    return value.is_floating_point() if is_tensor(value) else is_real(value)


def _step(value: Any) -> float:
    """The cube root of the precision of the numbers in `value`."""
    import numpy

    kind = str(value.dtype).removeprefix("torch.") if hasattr(value, "dtype") else "float64"
    precision = 2.0**-8 if kind == "bfloat16" else float(numpy.finfo(kind).eps)
    return float(precision ** (1 / 3))


def _array(value: Any) -> Any:
    import numpy

    if is_tensor(value):
        value = value.detach().double().cpu().numpy()
    return numpy.asarray(value, dtype=float)


def _like(value: Any, array: Any) -> Any:
    if is_tensor(value):
        return value.detach().new_tensor(array)
    return array.astype(value.dtype) if is_array(value) else float(array)


def _within(value: Any, gradient: Any, low: float, high: float) -> Any:
    if math.isinf(low) and math.isinf(high):
        return gradient
    if is_tensor(value) or is_array(value):
        return gradient * ((value >= low) & (value <= high))
    return gradient if low <= value <= high else 0.0 * gradient


def _solution(value: Any) -> Any:
    from tracegraph.tensor import constant

    return constant(value)


def _torch_inputs(values: Mapping[str, Any]) -> dict[str, Any]:
    from tracegraph.tensor import constant

    return {name: constant(value) if _moves(value) else value for name, value in values.items()}
