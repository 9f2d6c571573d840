"""Print what optimizers reach in the hidden-rule world: `python -m tests.benchmarks.worlds`.

Needs no network and no key. The figures measure the flow of information, robustness and economy, not
how clever a model is. `--seeds 5` is quick; the documentation's figures are of 30 seeds.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from optimizers import OPRO, OptoPrime, Reflect, TextGrad, fit
from tests.worlds.hidden_rules import HiddenRules

_RUNS = 400
_PROMPT_TOKENS = 1_250


@dataclass(frozen=True, slots=True)
class Row:
    """One way to train: which optimizer, in what world, with what batches."""

    name: str
    make: Callable[..., Any]
    batch_size: int = 10
    sabotage: float = 0.0
    masked: bool = False
    wanted: float | None = None
    calls: int | None = None


@dataclass(frozen=True, slots=True)
class Figures:
    """What one seed came to."""

    accuracy: float
    calls: int
    longest: int
    runs: int


def _forgetful(parameters: Any, **options: Any) -> OptoPrime:
    return OptoPrime(parameters, memory_size=0, **options)


ROWS = (
    Row("OptoPrime", OptoPrime, wanted=0.96, calls=25),
    Row("OptoPrime", OptoPrime, sabotage=0.3, wanted=0.96, calls=25),
    Row("OptoPrime", OptoPrime, batch_size=5, wanted=0.93),
    Row("OptoPrime", OptoPrime, batch_size=5, sabotage=0.3, wanted=0.93),
    Row("OptoPrime without memory", _forgetful),
    Row("OptoPrime without memory", _forgetful, sabotage=0.3),
    Row("TextGrad", TextGrad, wanted=0.89, calls=120),
    Row("TextGrad", TextGrad, sabotage=0.3, wanted=0.88, calls=120),
    Row("Reflect", Reflect),
    Row("Reflect", Reflect, sabotage=0.3),
    Row("OPRO", OPRO),
    Row("OptoPrime, feedback masked", OptoPrime, masked=True, wanted=0.0),
    Row("TextGrad, feedback masked", TextGrad, masked=True, wanted=0.0),
)


def figures(row: Row, seed: int) -> Figures:
    """Train once in the world of a seed: 40 examples, 30 to validate, 200 to test, 400 runs."""
    world = HiddenRules(seed, sabotage=row.sabotage, masked=row.masked)
    run, prompt = world.workflow()
    fit(
        run, world.train, world.guide, validation=world.validation, budget=_RUNS,
        optimizer=row.make([prompt], llm=world.ask, budget=_PROMPT_TOKENS),
        batch_size=row.batch_size, validate_every=5, perfect=1.0, workers=1, seed=seed,
    )  # fmt: skip
    return Figures(
        world.accuracy(prompt.data), world.calls["optimizer"], world.longest, world.calls["task"]
    )


def holds(row: Row, found: Sequence[Figures]) -> bool | None:
    """Whether a row reached what was wanted of it."""
    if row.wanted is None:
        return None
    accuracy = statistics.mean(f.accuracy for f in found)
    if row.masked:
        return max(f.accuracy for f in found) == 0.0
    return accuracy >= row.wanted and (
        row.calls is None or max(f.calls for f in found) <= row.calls
    )


def table(results: Sequence[tuple[Row, Sequence[Figures]]]) -> Table:
    """The results for a person."""
    drawn = Table(title="The hidden-rule world: flow of information, not cleverness")
    for heading in (
        "optimizer", "batch", "sabotaged", "accuracy", "least", "calls", "most", "characters",
        "runs", "wanted", "holds",
    ):  # fmt: skip
        drawn.add_column(heading, justify="left" if heading == "optimizer" else "right")
    for row, found in results:
        verdict = {None: "-", True: "yes", False: "NO"}[holds(row, found)]
        limit = "" if row.calls is None else f" in {row.calls}"
        drawn.add_row(
            row.name, str(row.batch_size), f"{row.sabotage:.0%}",
            f"{statistics.mean(f.accuracy for f in found):.3f}",
            f"{min(f.accuracy for f in found):.2f}",
            f"{statistics.mean(f.calls for f in found):.1f}", str(max(f.calls for f in found)),
            f"{max(f.longest for f in found):,}", str(max(f.runs for f in found)),
            "-" if row.wanted is None else f"{row.wanted:.2f}{limit}", verdict,
        )  # fmt: skip
    return drawn


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the table, and say by the exit status whether all that was wanted holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=30, help="how many worlds (30)")
    asked = parser.parse_args(arguments)
    console = Console(width=120)
    began = time.perf_counter()
    results = [
        (row, [figures(row, seed) for seed in range(asked.seeds)])
        for row in track(ROWS, "training", console=Console(stderr=True), transient=True)
    ]
    console.print(table(results))
    console.print(f"{asked.seeds} seeds each, {time.perf_counter() - began:.0f} s")
    return 0 if all(holds(row, found) is not False for row, found in results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
