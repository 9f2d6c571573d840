"""Which executor runs a batch."""

from __future__ import annotations

from importlib.util import find_spec

from optimizers.numeric.executors import native
from optimizers.numeric.executors.batch import Batch, Executor
from optimizers.numeric.executors.eager import Eager
from optimizers.numeric.executors.foreach import Foreach
from optimizers.numeric.members import in_memory
from tracegraph.errors import MissingExtra

__all__ = ["BACKENDS", "check_backend", "choose"]

EAGER: Executor = Eager()
FOREACH: Executor = Foreach()
NATIVE: Executor = native.Native()

BACKENDS = ("auto", "eager", "foreach", "native", "compiled", "triton")
WORTH_COMPILING = 1 << 14  # elements; below, the time is Python's
MANY = 64  # tensors, for each of which torch's own operations cost time, however small it is


def check_backend(name: str) -> str:
    """`name` where it can run here; a ValueError or MissingExtra that says what to do otherwise."""
    if name not in BACKENDS:
        raise ValueError(f"backend={name!r} is unknown; use one of {', '.join(BACKENDS)}")
    if name == "triton" and find_spec("triton") is None:
        raise MissingExtra(
            "backend='triton' needs triton: pip install 'tracegraph[gpu]', or use backend='auto'"
        )
    if name == "native" and not native.available():
        raise MissingExtra(
            "backend='native' needs a C++ compiler: install one (apt install g++), name one by "
            "CXX, or use backend='foreach'"
        )
    return name


def _triton() -> Executor:
    from optimizers.numeric.executors.triton import Triton

    return Triton()


def _compiled() -> Executor:
    from optimizers.numeric.executors.compiled import Compiled

    return Compiled()


def choose(backend: str, batch: Batch) -> Executor:
    """The executor for `batch`: the one named, or with "auto" the fastest that takes it.

    A batch that the named executor cannot run (8-bit state for ``foreach``, a strided view for
    ``native``) goes to ``eager``, which takes everything, as does one of tensors that are not in
    memory themselves.
    """
    if batch.addresses is None and not in_memory(batch.params, batch.grads):
        return EAGER
    if backend == "auto":
        return _fastest(batch)
    named: Executor
    match backend:
        case "foreach":
            named = FOREACH
        case "native":
            named = NATIVE
        case "compiled":
            named = _compiled()
        case "triton":
            named = _triton()
        case _:
            named = EAGER
    return named if named.takes(batch) else EAGER


def _fastest(batch: Batch) -> Executor:
    if not batch.params or batch.params[0].device.type == "cpu":
        worth = batch.elements >= WORTH_COMPILING or len(batch.params) >= MANY
        if worth and native.available() and NATIVE.takes(batch):
            return NATIVE
    elif batch.params[0].device.type == "cuda" and find_spec("triton") is not None:
        triton = _triton()
        if triton.takes(batch):
            return triton
    return FOREACH if FOREACH.takes(batch) else EAGER
