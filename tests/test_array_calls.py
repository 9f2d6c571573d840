"""Gradients of numpy's functions, against central differences of numpy's own values."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import tracegraph as tg
from tracegraph import functions as ops
from tracegraph.arithmetic import _PULLS
from tracegraph.array_calls import CALLS

A = np.array([[0.3, -0.7, 0.5], [0.2, 0.9, -0.4]])
V = np.array([0.41, -0.31, 0.83])
S = np.array([[2.0, 0.3], [-0.4, 1.5]])
LARGE = np.abs(A) + 1.1


def of(name: str, *beside: Any) -> Callable[[Any], Any]:
    """The function of numpy that is called `name`, with arguments `beside` the node."""
    return lambda x: getattr(np, name)(x, *beside)


PROGRAMS: list[tuple[str, np.ndarray[Any, Any], Callable[[Any], Any]]] = [
    *((name, A, of(name)) for name in
      ("arccos", "arcsin", "arcsinh", "arctan", "arctanh", "cosh", "exp2", "expm1", "reciprocal",
       "sinh", "tan", "exp", "sin", "cos", "tanh", "square", "negative", "absolute")),
    *((name, LARGE, of(name)) for name in
      ("arccosh", "log10", "log1p", "log2", "log", "sqrt", "prod", "std", "var", "median")),
    *((f"{name} of two", A, of(name, V)) for name in
      ("arctan2", "fmax", "fmin", "hypot", "logaddexp", "maximum", "minimum", "inner", "outer",
       "kron", "remainder", "dot", "matmul", "multiply")),
    ("the left of two", V, lambda x: np.maximum(A, x)),
    ("a number beside", A, lambda x: np.minimum(x, 0.1)),
    ("the right of a dot", V, lambda x: A.dot(np.ones(3)) @ np.ones(2) * x.dot(V)),
    ("the scalar of a dot", V, lambda x: np.dot(2.0, x)),
    ("sum", A, np.sum), ("sum of an axis", A, lambda x: x.sum(0)),
    ("sum that keeps its axis", A, lambda x: x.sum(axis=1, keepdims=True)),
    ("sum of two axes", A, lambda x: x.sum(axis=(0, 1))),
    ("mean", A, np.mean), ("mean of the last axis", A, lambda x: x.mean(axis=-1)),
    ("max", A, lambda x: x.max()), ("max of an axis", A, lambda x: np.max(x, axis=0)),
    ("amax", A, np.amax), ("min", A, lambda x: x.min(axis=1)), ("amin", A, np.amin),
    ("prod of an axis", A, lambda x: x.prod(axis=1)),
    ("var with a correction", A, lambda x: np.var(x, axis=1, ddof=1)),
    ("std of an axis", A, lambda x: x.std(axis=0)),
    ("median of an even number", A, np.median), ("median of an axis", A, lambda x: np.median(x, 1)),
    ("cumsum", A, np.cumsum), ("cumsum of an axis", A, lambda x: x.cumsum(axis=1)),
    ("cumprod", A, np.cumprod), ("diff", V, np.diff),
    ("norm", A, np.linalg.norm), ("norm of rows", A, lambda x: np.linalg.norm(x, axis=1)),
    ("another norm", V, lambda x: np.linalg.norm(x, 3)),
    ("tensordot", A, lambda x: np.tensordot(x, V, 1)),
    ("einsum", A, lambda x: np.einsum("ij,j->i", x, V)),
    ("inv", S, np.linalg.inv), ("det", S, np.linalg.det),
    ("solve", S, lambda x: np.linalg.solve(x, np.ones(2))),
    ("the right side", np.ones(2), lambda x: np.linalg.solve(S, x)),
    ("trace", S, np.trace), ("diag", S, np.diag), ("diag above", S, lambda x: np.diag(x, 1)),
    ("where", A, lambda x: np.where(A > 0, x, x * x)),
    ("clip", A, lambda x: np.clip(x, -0.45, 0.35)), ("clip below", A, lambda x: x.clip(min=0.1)),
    ("an element", A, lambda x: x[1, 2]), ("a row", A, lambda x: x[0]),
    ("a column backwards", A, lambda x: x[::-1, 1]), ("a mask", A, lambda x: x[A > 0]),
    ("rows twice", A, lambda x: x[[0, 0, 1]]), ("a new axis", V, lambda x: x[None] * A),
    ("iterating", V, lambda x: sum(i * e for i, e in enumerate(x, 1))),
    ("item", A, lambda x: x.item(4)), ("item by two", A, lambda x: x.item(1, 0)),
    ("T", A, lambda x: x.T * V[:, None]), ("real", A, lambda x: x.real),
    ("reshape", A, lambda x: x.reshape(3, 2)), ("reshape by a tuple", A, lambda x: np.reshape(x, (3, -1))),
    ("ravel", A, np.ravel), ("flatten", A, lambda x: x.flatten()),
    ("transpose", A, np.transpose), ("transpose by axes", A, lambda x: x.transpose(1, 0)),
    ("swapaxes", A, lambda x: np.swapaxes(x, 0, 1)), ("moveaxis", A, lambda x: np.moveaxis(x, 0, 1)),
    ("squeeze", A[:1], np.squeeze), ("squeeze an axis", A[:1], lambda x: np.squeeze(x, 0)),
    ("expand_dims", V, lambda x: np.expand_dims(x, 1)),
    ("broadcast_to", V, lambda x: np.broadcast_to(x, (2, 3))),
    ("tile", V, lambda x: np.tile(x, 2)), ("repeat", A, lambda x: np.repeat(x, 2)),
    ("repeat rows", A, lambda x: np.repeat(x, [1, 3], axis=0)),
    ("sort", A, np.sort), ("concatenate", V, lambda x: np.concatenate([x, x * x])),
    ("concatenate rows", A, lambda x: np.concatenate([x, x], axis=1)),
    ("stack", V, lambda x: np.stack([x, x * 2], 1)), ("hstack", V, lambda x: np.hstack([x, x])),
    ("vstack", V, lambda x: np.vstack([x, x])), ("astype", A, lambda x: x.astype(np.float64) * 2),
    ("copy", A, lambda x: x.copy()), ("ceil", A, np.ceil), ("floor", A, np.floor),
    ("trunc", A, np.trunc), ("sign", A, np.sign), ("mod", A, lambda x: x % 0.36),
    ("cond", V, lambda x: ops.cond(x[0] > 0, x * 2, x)),
]  # fmt: skip


def plain(value: Any) -> Any:
    return value.data if isinstance(value, tg.Node) else value


@pytest.mark.parametrize(("at", "program"), [p[1:] for p in PROGRAMS], ids=[p[0] for p in PROGRAMS])
def test_a_gradient_is_that_of_central_differences(
    at: np.ndarray[Any, Any], program: Callable[[Any], Any]
) -> None:
    x = tg.node(at.copy(), trainable=True, name="x")
    made = program(x)
    given = np.cos(np.arange(np.size(plain(made)), dtype=float)).reshape(np.shape(plain(made)))
    received = made.backward(tg.Gradient(given))
    found = received[x][tg.Gradient].value
    step = 1e-6
    for place in np.ndindex(*at.shape):
        beside = np.zeros_like(at)
        beside[place] = step
        rise = np.asarray(plain(program(at + beside))) - np.asarray(plain(program(at - beside)))
        assert found[place] == pytest.approx(np.sum(given * rise) / (2 * step), rel=1e-5, abs=1e-7)


def test_every_call_of_the_tables_is_tried() -> None:
    seen: list[tg.Node[Any]] = []
    with tg.recording(observers=[seen.append]):
        for _, at, program in PROGRAMS:
            program(tg.node(at, trainable=True))
    others = {"identity", "clone", "pos", "add", "subtract", "divide", "power", "neg", "abs"}
    assert (set(CALLS) | set(_PULLS)) - others - {made.op for made in seen} == set()


def test_it_goes_on_from_torch_and_in_single_precision() -> None:
    x = tg.node(A.astype(np.float32), trainable=True, name="x")
    loss = (np.mean(x * 2, axis=0) * torch.tensor([1.0, 2.0, 3.0])).sum()
    found = loss.backward(1.0)[x][tg.Gradient].value
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[1, 2, 3], [1, 2, 3]])


@pytest.mark.parametrize(
    "program",
    [
        lambda x: x.reshape(3, 2, order="F"),
        lambda x: np.exp(x, where=A > 0, out=None),
        lambda x: np.concatenate([A, x]),
        lambda x: np.sum(x, where=A > 0),
        lambda x: np.repeat(x, 2, 0)[x[0, 0] > 0 and slice(None)].ravel("F"),
    ],
    ids=["order", "ufunc where", "a constant in a list", "sum where", "ravel"],
)
@pytest.mark.filterwarnings("ignore:'where' used without 'out'")
def test_a_call_that_is_not_known_is_an_error_and_never_a_wrong_number(
    program: Callable[[Any], Any],
) -> None:
    x = tg.node(A, trainable=True, name="x")
    with pytest.raises(tg.errors.NoRule, match="rules="):
        program(x).backward(tg.Gradient(np.ones_like(plain(program(x)))))
    assert not x.feedback


def test_a_call_that_is_not_known_but_of_constants_stands_in_no_way() -> None:
    x = tg.node(2.0, trainable=True, name="x")
    loss = np.sum(tg.node(A), where=A > 0) * x
    assert loss.backward(tg.Gradient(1.0))[x][tg.Gradient].value == pytest.approx(A[A > 0].sum())


def test_a_number_taken_out_of_a_tensor_is_a_constant_as_in_torch() -> None:
    x = tg.node(torch.tensor([1.0, 2.0]), trainable=True, name="x")
    t = x.data.detach().clone().requires_grad_()
    (t * t.norm().item() + t.sum().item() * 2.0).sum().backward()
    received = (x * x.norm().item() + x.sum().item() * 2.0).sum().backward(1.0)
    assert torch.equal(received[x][tg.Gradient].value, t.grad)


@pytest.mark.parametrize("name", ["square", "exp", "mean", "mod"])
def test_a_bundle_that_is_called_as_a_function_of_numpy_is_not_taken_for_it(name: str) -> None:
    cube = tg.bundle(name=name)(lambda x: x**3)
    w = tg.node(2.0, trainable=True, name="w")
    with pytest.raises(tg.errors.NoRule, match=f"a gradient reached {name}"):
        cube(w).backward(tg.Gradient(1.0))
    assert not (cube(w) * torch.tensor(1.0)).data.requires_grad
