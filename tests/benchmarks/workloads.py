"""What is measured: each function does one piece of work with either library."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.contenders import Contender
from tests.benchmarks.harness import bytes_kept, import_seconds, seconds, seconds_per_operation

__all__ = ["ROWS", "Row", "Scale"]


@dataclass(frozen=True, slots=True)
class Scale:
    """How much of everything; `QUICK` is for trying the benchmarks out."""

    operations: int = 2_000
    chain: int = 10_000
    layers: int = 500
    parameters: int = 1_000
    steps: int = 2_000
    forwards: int = 10_000
    long_chain: int = 1_000_000
    repeats: int = 5
    walks: int = 3


QUICK = Scale(
    operations=500,
    chain=500,
    layers=50,
    parameters=50,
    steps=100,
    forwards=500,
    long_chain=20_000,
    repeats=3,
    walks=1,
)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: at most `limit` in `unit`, or at most 1/`fraction` of the peer."""

    name: str
    unit: str
    measure: Callable[[Contender, Scale], float]
    fraction: float | None = None
    limit: float | None = None
    peer_too: bool = True
    peer_once: bool = False
    """Whether the peer takes so long that one run of it must do."""


def increment(x: Any) -> Any:
    """Add one."""
    return x + 1


def total(*values: Any) -> Any:
    """Add everything."""
    return sum(values)


def chain(contender: Contender, length: int) -> Any:
    """The end of `length` additions that begin at a parameter."""
    x = contender.node(1, trainable=True)
    for _ in range(length):
        x = x + 1
    return x


def ladder(contender: Contender, layers: int) -> Any:
    """The end of `layers` layers: each node is used twice, and what comes of it is added.

    Never `x + x`: Trace raises where one operation takes a recorded node twice.
    """
    x = contender.node(0, trainable=True)
    for _ in range(layers):
        x = (x + 1) + (x + 2)
    return x


def traced_add(contender: Contender, scale: Scale) -> float:
    x = contender.node(1)

    def run(times: int) -> None:
        for _ in range(times):
            x + 1

    return 1e6 * seconds_per_operation(run, operations=scale.operations, repeats=scale.repeats)


def bundle_call(contender: Contender, scale: Scale, *, trainable: bool = False) -> float:
    function = contender.bundle(increment, trainable=trainable)
    x = contender.node(1)

    def run(times: int) -> None:
        for _ in range(times):
            function(x)

    return 1e6 * seconds_per_operation(run, operations=scale.operations, repeats=scale.repeats)


def trainable_bundle_call(contender: Contender, scale: Scale) -> float:
    return bundle_call(contender, scale, trainable=True)


def add_memory(contender: Contender, scale: Scale) -> float:
    return bytes_kept(lambda n: chain(contender, n), operations=scale.operations)


def backward_over_chain(contender: Contender, scale: Scale) -> float:
    return _backward(contender, lambda: chain(contender, scale.chain), scale.walks)


def backward_over_ladder(contender: Contender, scale: Scale) -> float:
    return _backward(contender, lambda: ladder(contender, scale.layers), scale.walks)


def backward_over_long_chain(contender: Contender, scale: Scale) -> float:
    return _backward(contender, lambda: chain(contender, scale.long_chain), 1)


def growth_of_backward(contender: Contender, scale: Scale) -> float:
    """How many times longer a ten times longer chain takes: 10 is linear."""
    short = _backward(contender, lambda: chain(contender, scale.long_chain // 10), scale.walks)
    return backward_over_long_chain(contender, scale) / short


def problem_of_many_parameters(contender: Contender, scale: Scale) -> float:
    gather = contender.bundle(total)

    def prepare() -> Callable[[], object]:
        contender.forget()
        parameters = [contender.node(i, trainable=True) for i in range(scale.parameters)]
        optimizer = contender.optimizer(parameters)
        contender.backward(gather(*parameters), "too small")
        return lambda: contender.problem(optimizer)

    return seconds(prepare, repeats=scale.walks)


def problem_of_many_operations(contender: Contender, scale: Scale) -> float:
    return 1e3 * seconds(_asking(contender, scale), repeats=scale.repeats)


def prompt_of_many_operations(contender: Contender, scale: Scale) -> float:
    """How many characters the model would be asked."""
    prompt = _asking(contender, scale)()()
    return float(len(str(prompt)))


def _asking(contender: Contender, scale: Scale) -> Callable[[], Callable[[], object]]:
    step = contender.bundle(increment)

    def prepare() -> Callable[[], object]:
        contender.forget()
        parameter = contender.node(1, trainable=True)
        optimizer = contender.optimizer([parameter])
        end = parameter
        for _ in range(scale.steps):
            end = step(end)
        contender.backward(end, "too small")
        return lambda: contender.problem(optimizer)

    return prepare


def import_recording(contender: Contender, scale: Scale) -> float:
    return 1e3 * import_seconds(contender.packages[0], repeats=scale.repeats)


def import_optimizers(contender: Contender, scale: Scale) -> float:
    return 1e3 * import_seconds(contender.packages[1], repeats=scale.repeats)


def dropped_forwards(contender: Contender, scale: Scale) -> float:
    parameter = contender.node(1, trainable=True)

    def run(times: int) -> None:
        for _ in range(times):
            parameter + 1 + 2 + 3

    return bytes_kept(run, operations=scale.forwards)


def untraced_add(contender: Contender, scale: Scale) -> float:
    """How many times longer an addition takes than on the wrapped values, tracing off."""
    a, b = contender.node(1), contender.node(2)

    def nodes(times: int) -> None:
        with contender.untraced():
            for _ in range(times):
                a + b

    def values(times: int) -> None:
        for _ in range(times):
            a.data + b.data

    many = 10 * scale.operations
    plain = seconds_per_operation(values, operations=many, repeats=scale.repeats)
    return seconds_per_operation(nodes, operations=many, repeats=scale.repeats) / plain


def _backward(contender: Contender, output: Callable[[], Any], walks: int) -> float:
    def prepare() -> Callable[[], object]:
        contender.forget()
        end = output()
        return lambda: contender.backward(end, "too small")

    return seconds(prepare, repeats=walks)


ROWS = (
    Row("a traced + on a node", "us", traced_add, fraction=25),
    Row("a call of a trivial bundle", "us", bundle_call, fraction=15),
    Row("a call of a trivial trainable bundle", "us", trainable_bundle_call, fraction=15),
    Row("memory per traced +", "bytes", add_memory, limit=400),
    Row("backward over a chain of {chain:,}", "s", backward_over_chain, 500, peer_once=True),
    Row("backward over a ladder of {layers:,}", "s", backward_over_ladder, 500, peer_once=True),
    Row("backward over a chain of {long_chain:,}", "s", backward_over_long_chain, peer_too=False),
    Row("... against a tenth of it", "times", growth_of_backward, limit=13, peer_too=False),
    Row(
        "problem from {parameters:,} parameters into one call",
        "s",
        problem_of_many_parameters,
        fraction=300,
        peer_once=True,
    ),
    Row("prompt from a graph of {steps:,} calls", "ms", problem_of_many_operations, limit=20),
    Row("... its length", "characters", prompt_of_many_operations, limit=4 * 4_000),
    Row("import of the recorder", "ms", import_recording, limit=150),
    Row("import of the optimizers", "ms", import_optimizers, limit=150),
    Row("growth per dropped forward, of {forwards:,}", "bytes", dropped_forwards, limit=1),
    Row("+ with tracing off, to + on the values", "times", untraced_add, limit=3),
)
