"""What code as a parameter costs: run `python -m tests.benchmarks.code` on a quiet machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import tracegraph as tg

CALLS, ROUNDS = 200, 300  # short rounds: on a busy machine some still run undisturbed
LINES = 300


@tg.bundle
def plain(x: int) -> int:
    """A plain bundle."""
    return x + 1


@tg.bundle(trainable=True)
def trainable(x: int) -> int:
    """The same function, whose text is a parameter."""
    return x + 1


@tg.bundle(trainable=True)
def rewritten(x: int) -> int:
    """The same, with another text, trusted."""
    return x + 1


@tg.bundle(trainable=True)
def apart(x: int) -> int:
    """The same, with another text, in the sandbox."""
    return x + 1


@tg.bundle(trainable=True)
class Whole:
    """The same as a method of a class whose text is a parameter, with another text, trusted."""

    def method(self, x: int) -> int:
        """One more."""
        return x + 1


@tg.bundle(trainable=True)
def long(x: int) -> int:
    """Becomes a long function; only one of its lines runs."""
    return x + 1


def micros(action: Callable[[], object], calls: int) -> float:
    """Microseconds of one call, on average."""
    began = time.perf_counter()
    for _ in range(calls):
        action()
    return 1e6 * (time.perf_counter() - began) / calls


def side_by_side(
    *actions: Callable[[], object], calls: int = CALLS, rounds: int = ROUNDS
) -> list[float]:
    """The best round of each action, measured in turns, so that a busy moment hits all of them."""
    taken = [[micros(action, calls) for action in actions] for _ in range(rounds)]
    return [min(column) for column in zip(*taken, strict=True)]


def main() -> None:
    """Measure, and print a table."""
    for function in (rewritten, apart, long):
        body = "    return x + 2\n"
        if function is long:
            skipped = "".join(f"        x = x * {n} + {n}\n" for n in range(LINES - 3))
            body = f"    if x < 0:\n{skipped}{body}"
        parameter = function.parameters()[0]
        parameter.assign(f"def {function.name}(x):\n{body}", origin="optimizer")
        if function is not apart:
            parameter.trust()
    whole = Whole()
    Whole.parameter.assign(Whole.parameter.data.replace("x + 1", "x + 2"))  # type: ignore[attr-defined]
    actions: list[Callable[[int], object]] = [
        plain,
        trainable,
        rewritten,
        apart,
        long,
        whole.method,
    ]
    for action in actions:
        action(1)  # compiled, and the sandbox started, before anything is measured
    base, first, other, lengthy, member = side_by_side(
        lambda: plain(1),
        lambda: trainable(1),
        lambda: rewritten(1),
        lambda: long(1),
        lambda: whole.method(1),
    )
    (away,) = side_by_side(lambda: apart(1), calls=20, rounds=15)
    rows = (
        ("plain bundle", base, ""),
        ("trainable bundle, first text", first, "1.3"),
        ("trainable bundle, another text, trusted", other, "1.3"),
        (f"trainable bundle of {LINES} lines", lengthy, "1.3"),
        ("method of a trainable class, another text", member, ""),
        ("trainable bundle, isolated, fresh child", away, ""),
    )
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}; microseconds a call, best round")
    print(f"{'what':44}{'a call':>10}{'of plain':>10}{'at most':>10}")
    for what, taken, limit in rows:
        print(f"{what:44}{taken:10.2f}{taken / base:10.2f}{limit:>10}")


if __name__ == "__main__":
    main()
