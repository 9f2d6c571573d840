"""Print what optimizers reach in the worlds: `python -m tests.benchmarks.worlds`.

Needs no network and no key. The figures measure the flow of information, robustness and economy, not
how clever a model is. The seeds begin at 1000: no world was tuned with them. Peers that are installed
(trace-opt, textgrad, gepa) stand in the same table, see `tests/benchmarks/world_peers.py`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from optimizers import OPRO, OptoPrime, Reflect, TextGrad, fit
from optimizers.training.loop import Training
from optimizers.training.options import Options
from tests.benchmarks.world_peers import (
    Gepa,
    Polyglot,
    TextGradPeer,
    TraceOptoPrime,
    gepa_alone,
    installed,
)
from tests.worlds.from_examples import FromExamples
from tests.worlds.hidden_rules import HiddenRules
from tests.worlds.intransitive import Intransitive
from tests.worlds.noisy import Noisy
from tests.worlds.two_objectives import TwoObjectives
from tests.worlds.two_stages import TwoStages
from tests.worlds.world import World

__all__ = ["ROWS", "Figures", "Row", "figures", "holds", "identical", "main"]

_RUNS = 400
_PROMPT_TOKENS = 1_250
_FIRST = 1_000


@dataclass(frozen=True, slots=True)
class Figures:
    """What one seed came to."""

    accuracy: float
    calls: int
    longest: int
    runs: int


@dataclass(frozen=True, slots=True)
class Row:
    """One way to train, in one world.

    Args:
        name: of the optimizer.
        train: trains in the world of a seed.
        group: "hidden rules" or "worlds".
        batch_size, sabotage, masked, tells: of the world and the loop.
        wanted: the accuracy that was aimed at; `calls` and `characters`: the most that it may take.
    """

    name: str
    train: Callable[[Row, int], Figures]
    group: str = "hidden rules"
    batch_size: int = 10
    sabotage: float = 0.0
    masked: bool = False
    tells: bool = False
    wanted: float | None = None
    calls: int | None = None
    characters: int | None = None
    options: Mapping[str, Any] = field(default_factory=dict)


def _in_our_loop(make: Callable[..., Any], row: Row, seed: int) -> Figures:
    """Train once: 40 examples, 30 to validate, 200 to test, 400 runs."""
    world = _hidden(row, seed)
    run, prompt = world.workflow()
    fit(
        run, world.train, world.guide, validation=world.validation, budget=_RUNS,
        optimizer=make([prompt], llm=world.ask), batch_size=row.batch_size, validate_every=5,
        perfect=1.0, workers=1, seed=seed,
    )  # fmt: skip
    return _counted(world, world.accuracy(prompt.data))


def _gepa_alone(row: Row, seed: int) -> Figures:
    world = _hidden(row, seed)
    prompt = gepa_alone(world, runs=_RUNS, batch_size=row.batch_size, seed=seed)
    return _counted(world, world.accuracy(prompt))


def _in_world(make: Callable[..., World], row: Row, seed: int) -> Figures:
    world = make(seed, sabotage=row.sabotage, **row.options)
    return _counted(world, world.learn())


def _hidden(row: Row, seed: int) -> HiddenRules:
    return Polyglot(seed, sabotage=row.sabotage, masked=row.masked, tells=row.tells)


def _counted(world: World, accuracy: float) -> Figures:
    return Figures(accuracy, world.calls["optimizer"], world.longest, world.calls["task"])


def _ours(make: Callable[..., Any], **options: Any) -> Callable[[Row, int], Figures]:
    return partial(_in_our_loop, partial(make, budget=_PROMPT_TOKENS, **options))


def _mixed(seed: int, **options: Any) -> World:
    from tests.worlds.mixed import Mixed  # the one world that needs torch

    return Mixed(seed, **options)


def _both(row: Row) -> tuple[Row, Row]:
    """A row without and with sabotage."""
    return row, replace(row, sabotage=0.3)


_FORGETFUL = _ours(OptoPrime, memory_size=0)

OURS = (
    *_both(Row("OptoPrime", _ours(OptoPrime), wanted=0.96, calls=25, characters=5_000)),
    *_both(Row("OptoPrime", _ours(OptoPrime), batch_size=5, wanted=0.93)),
    *_both(Row("OptoPrime", _ours(OptoPrime), tells=True)),
    *_both(Row("OptoPrime without memory", _FORGETFUL)),
    *_both(Row("OptoPrime without memory", _FORGETFUL, batch_size=5)),
    Row("TextGrad", _ours(TextGrad), wanted=0.89, calls=120),
    Row("TextGrad", _ours(TextGrad), sabotage=0.3),
    *_both(Row("Reflect", _ours(Reflect))),
    Row("OPRO", _ours(OPRO)),
    Row("OptoPrime, feedback masked", _ours(OptoPrime), masked=True, wanted=0.0),
    Row("TextGrad, feedback masked", _ours(TextGrad), masked=True, wanted=0.0),
)

_TRACE = partial(_in_our_loop, TraceOptoPrime)
_TRACE_MEMORY = partial(_in_our_loop, partial(TraceOptoPrime, memory_size=10))
_TEXTGRAD = partial(_in_our_loop, TextGradPeer)
_GEPA = partial(_in_our_loop, Gepa)

PEERS: Mapping[str, tuple[Row, ...]] = {
    "opto": (
        *_both(Row("trace-opt OptoPrime", _TRACE)),
        *_both(Row("trace-opt OptoPrime", _TRACE, batch_size=5)),
        *_both(Row("trace-opt OptoPrime, memory 10", _TRACE_MEMORY)),
        *_both(Row("trace-opt OptoPrime, memory 10", _TRACE_MEMORY, batch_size=5)),
        *_both(Row("trace-opt OptoPrime, memory 10", _TRACE_MEMORY, tells=True)),
    ),
    "textgrad": (
        *_both(Row("textgrad TGD", _TEXTGRAD)),
        *_both(Row("textgrad TGD", _TEXTGRAD, batch_size=5)),
    ),
    "gepa": (
        *_both(Row("gepa, its mutation", _GEPA)),
        *_both(Row("gepa, its mutation", _GEPA, batch_size=5)),
        *_both(Row("gepa, its own loop", _gepa_alone)),
        *_both(Row("gepa, its own loop", _gepa_alone, batch_size=5)),
    ),
}

_WORLDS: tuple[tuple[str, Callable[..., World]], ...] = (
    ("two stages", TwoStages),
    ("code from examples", FromExamples),
    ("prompt and vector", _mixed),
    ("two objectives", TwoObjectives),
    ("noisy metric", Noisy),
    ("intransitive judge", Intransitive),
)
_MASKS: Mapping[str, tuple[Any, ...]] = {"prompt and vector": ("words", "gradients")}


def _masked(name: str, make: Callable[..., World], mask: Any) -> Row:
    train = partial(_in_world, make)
    options = {"masked": mask}
    return Row(f"{name}, masked", train, "worlds", masked=True, wanted=0.0, options=options)


WORLDS = tuple(
    row
    for name, make in _WORLDS
    for row in (
        Row(name, partial(_in_world, make), "worlds", sabotage=0.3),
        *(_masked(name, make, mask) for mask in _MASKS.get(name, (True,))),
    )
)

ROWS = (
    *OURS,
    *(row for package, rows in PEERS.items() if installed(package) for row in rows),
    *(row for row in WORLDS if installed("torch") or "vector" not in row.name),
)


def figures(row: Row, seed: int) -> Figures:
    """Train once in the world of a seed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what a peer warns of, it has in its figures
        return row.train(row, seed)


def holds(row: Row, found: Sequence[Figures]) -> bool | None:
    """Whether a row reached what was wanted of it."""
    if row.wanted is None:
        return None
    accuracy = statistics.mean(f.accuracy for f in found)
    if row.masked:
        return max(f.accuracy for f in found) == 0.0
    return (
        accuracy >= row.wanted
        and (row.calls is None or max(f.calls for f in found) <= row.calls)
        and (row.characters is None or max(f.longest for f in found) <= row.characters)
    )


class _Killed(BaseException):
    """Ends a training where nobody can catch it."""


def identical(seed: int) -> bool:
    """Whether 16 workers, and a stop after each third save, come to the result of one worker."""

    def trained(workers: int, stop: int | None = None) -> Any:
        world = HiddenRules(seed, sabotage=0.3)
        kept: list[str] = []

        class Store:
            def load(self) -> Any:
                return json.loads(kept[-1]) if kept else None

            def save(self, state: Any) -> None:
                kept.append(json.dumps(state))
                if stop is not None and len(kept) % stop == 0:
                    raise _Killed

        while True:
            run, prompt = world.workflow()
            options = Options(
                validation=world.validation, budget=_RUNS, seed=seed, workers=workers, store=Store(),
                optimizer=OptoPrime([prompt], llm=world.ask, budget=_PROMPT_TOKENS),
                validate_every=5, perfect=1.0,
            )  # fmt: skip
            training = Training(run, world.train, world.guide, options)
            try:
                result = training.run()
            except _Killed:
                continue
            return prompt.data, result.history, dict(world.calls)

    expected = trained(1)
    return bool(trained(16) == expected == trained(1, stop=3))


def table(title: str, results: Sequence[tuple[Row, Sequence[Figures]]]) -> Table:
    """The results for a person."""
    drawn = Table(title=title)
    for heading in (
        "optimizer or world", "batch", "told", "sabotaged", "accuracy", "least", "calls", "most",
        "characters", "runs", "wanted", "holds",
    ):  # fmt: skip
        drawn.add_column(heading, justify="left" if heading == "optimizer or world" else "right")
    for row, found in results:
        verdict = {None: "-", True: "yes", False: "NO"}[holds(row, found)]
        limit = "" if row.calls is None else f" in {row.calls}"
        drawn.add_row(
            row.name, str(row.batch_size) if row.group == "hidden rules" else "-",
            "whole" if row.tells else "-", f"{row.sabotage:.0%}",
            f"{statistics.mean(f.accuracy for f in found):.3f}",
            f"{min(f.accuracy for f in found):.2f}",
            f"{statistics.mean(f.calls for f in found):.1f}", str(max(f.calls for f in found)),
            f"{max(f.longest for f in found):,}", str(max(f.runs for f in found)),
            "-" if row.wanted is None else f"{row.wanted:.2f}{limit}", verdict,
        )  # fmt: skip
    return drawn


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print the tables, and say by the exit status whether all that was wanted holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=30, help="how many worlds (30)")
    parser.add_argument("--first", type=int, default=_FIRST, help=f"the first seed ({_FIRST})")
    parser.add_argument("--only", default="", help="rows of this group, or with this in the name")
    asked = parser.parse_args(arguments)
    console = Console(width=140)
    began = time.perf_counter()
    seeds = range(asked.first, asked.first + asked.seeds)
    rows = [row for row in ROWS if asked.only == row.group or asked.only in row.name]
    results = [
        (row, [figures(row, seed) for seed in seeds])
        for row in track(rows, "training", console=Console(stderr=True), transient=True)
    ]
    for group in dict.fromkeys(row.group for row in rows):
        shown = [(row, found) for row, found in results if row.group == group]
        console.print(table(f"{group}: flow of information, not cleverness", shown))
    same = [identical(seed) for seed in seeds[:10] if any(r.group != "worlds" for r in rows)]
    if same:
        console.print(
            "workers 1 and 16, and a run that was stopped again and again: identical in "
            f"{sum(same)} of {len(same)}"
        )
    console.print(f"{asked.seeds} seeds each, {time.perf_counter() - began:.0f} s")
    return 0 if all(same) and all(holds(row, f) is not False for row, f in results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
