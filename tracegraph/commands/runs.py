"""``tracegraph runs``: list, show, compare, diff, export and prune the runs that are kept here."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Annotated, Any

import typer

from tracegraph.commands.export import export
from tracegraph.commands.one_step import step_lines
from tracegraph.commands.options import AsJson, RunName, Store, history
from tracegraph.commands.printing import (
    as_json,
    difference,
    difference_facts,
    lines_wide,
    shown,
    table,
)
from tracegraph.commands.waiting import waiting
from tracegraph.history import KeptRun, differences
from tracegraph.history.display import fact, runs_rows, steps_rows, summary_facts, when
from tracegraph.history.export import run_facts, value_facts
from tracegraph.view.plain import one_line, plain

__all__ = ["app"]

app = typer.Typer(
    help="The runs that are kept here.", epilog="Example: tracegraph runs show first-try --step 3",
    context_settings={"help_option_names": ["-h", "--help"]}, no_args_is_help=True,
    rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False,
)  # fmt: skip
app.command("export", epilog="Example: tracegraph runs export first-try -o run.jsonl")(export)


@app.command("list", epilog="Example: tracegraph runs list --json")
def list_runs(
    store: Store = None,
    limit: Annotated[int, typer.Option(min=1, help="How many of the latest.")] = 50,
    in_json: AsJson = False,
) -> None:
    """List the runs, the latest last."""
    found = history(store).runs()[-limit:]
    if in_json:
        as_json([_listed(run) for run in found])
        return
    table(*runs_rows(found), elastic=[1])


@app.command("show", epilog="Example: tracegraph runs show first-try --step 3")
def show_run(
    run: RunName,
    step: Annotated[int | None, typer.Option(help="Show this step.")] = None,
    store: Store = None,
    in_json: AsJson = False,
) -> None:
    """Show a run: what it ran with, its steps, its parameters; or one step with all that was said."""
    kept = history(store).run(run)
    if step is not None:
        _show_step(kept, step, in_json)
        return
    steps, values = kept.steps, kept.parameters()
    if in_json:
        as_json({
            **run_facts(kept), "steps": [asdict(s) for s in steps],
            "parameters": {name: value_facts(v) for name, v in values.items()},
        })  # fmt: skip
        return
    typer.echo(f"run {kept.id} {one_line(kept.name)}: {kept.status}, began {when(kept.created)}")
    if kept.error:
        typer.echo(plain(kept.error))
    for name, value in {**summary_facts(kept), **kept.about}.items():
        if value and name not in ("began", "error"):
            typer.echo(f"{name}: {one_line(fact(name, value))}")
    typer.echo("")
    titles, rows = steps_rows(steps)
    table(titles, rows, elastic=[at for at, title in enumerate(titles) if title == "note"])
    for name, value in values.items():
        typer.echo(f"\n{one_line(name)} ({value.kind}, version {value.version}, {value.origin}):")
        typer.echo(plain(shown(value.value)))


def _show_step(kept: KeptRun, wanted: int, in_json: bool) -> None:
    details = kept.details(wanted)
    step = next(s for s in kept.steps if s.number == wanted)
    if in_json:
        as_json({**asdict(step), **details})
        return
    for line in step_lines(step, details):
        typer.echo(line)
    if step.nodes:
        typer.echo(f"\ngraph:\n{plain(kept.graph(wanted).to_text(width=lines_wide()))}")


@app.command("compare", epilog="Example: tracegraph runs compare first-try second-try")
def compare(one: RunName, other: RunName, store: Store = None, in_json: AsJson = False) -> None:
    """Compare two runs: their totals, what they ran with, and their parameters at the end."""
    kept = history(store)
    left, right = kept.run(one), kept.run(other)
    changed = differences(left.parameters(), right.parameters())
    facts = run_facts(left), run_facts(right)
    if in_json:
        as_json({"runs": facts, "parameters": [difference_facts(d) for d in changed]})
        return
    names = [k for k in facts[0] if facts[0][k] != facts[1].get(k) or k in ("best_score", "steps")]
    table(
        ["", f"run {left.id}", f"run {right.id}"],
        [[name, *(one_line(fact(name, f.get(name))) for f in facts)] for name in names],
        elastic=[1, 2],
    )
    for change in changed:
        typer.echo("")
        difference(change.text)


@app.command("diff", epilog="Example: tracegraph runs diff first-try 0 12")
def diff(
    run: RunName,
    before: Annotated[int, typer.Argument(help="After this step; 0 is the start.")] = 0,
    after: Annotated[
        int | None, typer.Argument(help="Up to this step; the end if left out.")
    ] = None,
    store: Store = None,
    in_json: AsJson = False,
) -> None:
    """Show how the parameters changed within a run."""
    changed = history(store).run(run).diff(before, after)
    if in_json:
        as_json([difference_facts(d) for d in changed])
    elif not changed:
        typer.echo("no parameter changed")
    for change in () if in_json else changed:
        difference(change.text)
        typer.echo("")


@app.command("prune", epilog="Example: tracegraph runs prune --keep 20 --dry-run")
def prune(
    keep: Annotated[int | None, typer.Option(min=0, help="Keep this many of the latest.")] = None,
    older: Annotated[
        float | None, typer.Option("--older-than", min=0, help="Delete those older, in days.")
    ] = None,
    run: Annotated[list[str] | None, typer.Option("--run", help="Delete this run.")] = None,
    dry: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    store: Store = None,
    in_json: AsJson = False,
) -> None:
    """Delete runs, and what only they used. A run that is going on is left."""
    if keep is None and older is None and not run:
        raise typer.BadParameter("say which: --keep N, --older-than DAYS or --run RUN")
    kept = history(store)
    every = kept.runs()
    chosen = {r.id: r for r in map(kept.run, run or [])}
    if keep is not None:
        chosen |= {r.id: r for r in every[: max(len(every) - keep, 0)]}
    if older is not None:
        chosen |= {r.id: r for r in every if r.created < time.time() - older * 86_400}
    with waiting(f"deleting from {kept.path}"):
        count, freed = kept.prune(list(chosen.values()), dry=dry)
    if in_json:
        as_json({"runs": count, "bytes": freed, "dry_run": dry})
    else:
        which = f"{count} run" if count == 1 else f"{count} runs"
        done = "would be deleted" if dry else f"deleted, {freed:,} bytes freed"
        typer.echo(f"{which} {done}")


def _listed(run: KeptRun) -> dict[str, Any]:
    return {
        "id": run.id, "name": run.name, "status": run.status, "created": run.created,
        "ended": run.ended, "error": run.error, **run.summary,
    }  # fmt: skip
