"""Choose the green times of a traffic signal, from what drivers in a simulation wait.

    python examples/traffic.py                      # no key needed: Evolve, a search by scores
    python examples/traffic.py --model gpt-4o-mini  # OptoPrime: a model reads the trace

The task is the traffic-signal one of the Trace paper (see `traffic_world`). Two green times, within
[15, 90] seconds, are the parameters; one bundle builds the world, another analyses it. The score is
the mean delay of a driver in seconds. The trace graph of the best plan is written as SVG.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pydantic import Field
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import tracegraph as tg
from examples.traffic_world import World, analyse, build_world
from optimizers import Evolve, OptoPrime

Green = Annotated[float, Field(ge=15, le=90)]
Advance = Callable[[str], None]


def parameters() -> dict[str, tg.Parameter[float]]:
    """The two green times, at a plan without knowledge: the same for both directions."""
    return {
        "ew_green": tg.node(
            60.0, trainable=True, name="ew_green", constraint=Green,
            description="seconds of green for east-west, which carries more traffic",
        ),
        "ns_green": tg.node(
            60.0, trainable=True, name="ns_green", constraint=Green,
            description="seconds of green for north-south",
        ),
    }  # fmt: skip


@tg.bundle
def create_world(ew_green: float, ns_green: float, seed: int) -> World:
    """Build a crossing whose signal is green this long for each direction, in seconds."""
    return build_world(ew_green, ns_green, seed)


@tg.bundle
def analyse_world(world: World) -> dict[str, Any]:
    """Simulate the crossing; the score is the mean delay of a driver in seconds, smaller is better."""
    return analyse(world)


def run(greens: Mapping[str, Any], seed: int) -> tuple[tg.Node[Any], float | None, str]:
    """Run the workflow once: its output node, its score, and feedback in words.

    A green time out of range raises inside `create_world`; the error is the feedback then.
    """
    try:
        output = analyse_world(create_world(greens["ew_green"], greens["ns_green"], seed))
    except tg.ExecutionError as error:
        return error.exception_node, None, str(error)
    found = output.data
    waits = ", ".join(
        f"{way.replace('_', '-')} {found[way]['average_delay']:.1f} s"
        for way in ("east_west", "north_south")
    )
    return output, found["score"], f"Drivers wait {found['score']:.1f} s on average ({waits})."


def score_of(values: Mapping[str, float], seed: int) -> tuple[float | None, str]:
    """Evaluate one candidate: what a worker process runs."""
    with tg.stop_tracing():
        _, score, said = run(values, seed)
    return score, said


def evolve(
    greens: dict[str, tg.Parameter[float]],
    steps: int,
    brood: int,
    seed: int,
    pool: Executor,
    advance: Advance,
) -> None:
    """Search by scores alone: the `brood` of a step is simulated side by side."""
    optimizer = Evolve(greens, minimize=True, lambda_=brood, seed=seed)
    for step in range(steps):
        candidates = optimizer.ask(brood)
        jobs = [pool.submit(score_of, dict(c.values), seed) for c in candidates]
        found = [job.result() for job in jobs]
        for candidate, (score, said) in zip(candidates, found, strict=True):
            optimizer.tell(candidate, score, feedback=said)
        tried = ", ".join("failed" if score is None else f"{score:.1f}" for score, _ in found)
        best = f"best {optimizer.best_score:6.2f} s  {_plan(optimizer.best.values)}"
        advance(f"step {step + 1}: {best}  (tried {tried})")
    optimizer.apply(optimizer.best)


def ask_model(
    greens: dict[str, tg.Parameter[float]], steps: int, seed: int, model: Any, advance: Advance
) -> None:
    """Let a model read the trace and the feedback, and propose; keep the best plan."""
    optimizer = OptoPrime(
        greens, llm=model, objective="Make the drivers wait as little as possible on average."
    )
    best: tuple[float, dict[str, float]] = (float("inf"), {})
    for step in range(steps):
        output, score, said = run(greens, seed)
        if score is not None and score < best[0]:
            best = (score, {name: p.data for name, p in greens.items()})
        optimizer.zero_feedback()
        optimizer.backward(output, said)
        shown = "no score" if score is None else f"{score:6.2f} s"
        advance(f"step {step + 1}: {shown}  {_plan({n: p.data for n, p in greens.items()})}")
        if step + 1 < steps:
            optimizer.step()
    for name, value in best[1].items():
        greens[name].assign(value, origin="optimizer")


def main(arguments: list[str] | None = None) -> float:
    """Run the example; gives the best mean delay in seconds."""
    options = _options(arguments)
    steps, brood = (1, 2) if options.quick else (options.steps, options.brood)
    greens = parameters()
    console = Console()
    _, before, _ = run(greens, options.seed)
    console.print(f"start:  {before:6.2f} s  {_plan({n: p.data for n, p in greens.items()})}")
    with _progress(console, steps) as advance:
        if options.model:
            ask_model(greens, steps, options.seed, options.model, advance)
        else:
            with ProcessPoolExecutor(options.workers) as pool:
                evolve(greens, steps, brood, options.seed, pool, advance)
    output, after, said = run(greens, options.seed)
    output.backward((-(after or 0.0), said))
    console.print(f"best:   {after:6.2f} s  {_plan({n: p.data for n, p in greens.items()})}")
    path = Path(options.graph)
    path.parent.mkdir(parents=True, exist_ok=True)
    tg.Graph.of(output).render(path)
    console.print(f"the trace graph is in {path}")
    return after or float("inf")


def _plan(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value:.1f} s" for name, value in values.items())


@contextmanager
def _progress(console: Console, steps: int) -> Iterator[Advance]:
    """A bar on a terminal, plain lines elsewhere; a line for each step in both."""
    columns = TextColumn("simulating"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=steps)

        def advance(line: str) -> None:
            console.print(line, highlight=False)
            bar.advance(task)

        yield advance


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", help="a model's name for litellm; without it, Evolve searches")
    parser.add_argument("--steps", type=int, default=10, help="how many steps (default 10)")
    parser.add_argument("--brood", type=int, default=4, help="candidates of a step (default 4)")
    parser.add_argument("--seed", type=int, default=0, help="of the demand and the search")
    parser.add_argument("--workers", type=int, default=2, help="simulations side by side")
    parser.add_argument("--graph", default="out/traffic.svg", help="where the trace graph goes")
    parser.add_argument("--quick", action="store_true", help="one step of two candidates")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
