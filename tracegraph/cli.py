"""The command ``tracegraph``: look at kept runs, compare, draw and export them; see what is installed.

Exit codes: 0 when it worked, 1 when it did not and the message says why, 2 for a wrong command line,
130 after Ctrl-C. Nothing heavy is imported until a command needs it.
"""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tracegraph.errors import TracegraphError

if TYPE_CHECKING:
    from tracegraph.history import History, KeptRun

__all__ = ["app", "main"]

_SETTINGS = {"help_option_names": ["-h", "--help"]}
app = typer.Typer(
    help="Look at kept runs, compare, draw and export them; see what is installed.",
    epilog="Example: tracegraph runs list",
    context_settings=_SETTINGS, no_args_is_help=True, rich_markup_mode=None,
    pretty_exceptions_enable=False,
)  # fmt: skip
runs = typer.Typer(
    help="The runs that are kept here.", epilog="Example: tracegraph runs show first-try --step 3",
    context_settings=_SETTINGS, no_args_is_help=True, rich_markup_mode=None,
)  # fmt: skip
app.add_typer(runs, name="runs")

Store = Annotated[
    str | None,
    typer.Option("--store", help="A directory or *.sqlite file; .tracegraph by default."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
RunName = Annotated[str, typer.Argument(metavar="RUN", help="Its number or its name.")]
Output = Annotated[str | None, typer.Option("--output", "-o", help="A file; else the screen.")]


@app.callback()
def options(
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None:
    """Options before the command; `main` reads ``--debug`` itself."""


def main() -> None:
    """Run the command line; errors are one line on stderr."""
    try:
        app(prog_name="tracegraph")
    except KeyboardInterrupt:
        sys.exit(130)
    except (TracegraphError, OSError) as error:
        if "--debug" in sys.argv:
            raise
        typer.echo(f"error: {_line(str(error))}", err=True)
        sys.exit(1)


@runs.command("list", epilog="Example: tracegraph runs list --json")
def list_runs(
    store: Store = None,
    limit: Annotated[int, typer.Option(min=1, help="How many of the latest.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List the runs, the latest last."""
    found = _history(store).runs()[-limit:]
    if as_json:
        _json([_listed(run) for run in found])
        return
    rows = []
    for run in found:
        facts = run.summary
        rows.append([
            str(run.id), _line(run.name), run.status, _when(run.created), str(facts["steps"]),
            _number(facts["best_score"]), _money(facts["cost"]),
        ])  # fmt: skip
    _table(["run", "name", "status", "began", "steps", "best", "cost"], rows)


@runs.command("show", epilog="Example: tracegraph runs show first-try --step 3")
def show_run(
    run: RunName,
    step: Annotated[int | None, typer.Option(help="Show this step.")] = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Show a run: what it ran with, its steps, its parameters; or one step with all that was said."""
    from tracegraph.history.export import run_facts, value_facts

    kept = _history(store).run(run)
    if step is not None:
        _show_step(kept, step, as_json)
        return
    steps, values = kept.steps, kept.parameters()
    if as_json:
        _json({
            **run_facts(kept), "steps": [_step(s) for s in steps],
            "parameters": {name: value_facts(v) for name, v in values.items()},
        })  # fmt: skip
        return
    typer.echo(f"run {kept.id} {_line(kept.name)}: {kept.status}, began {_when(kept.created)}")
    if kept.error:
        typer.echo(_text(kept.error))
    for name, value in kept.about.items():
        if value:
            typer.echo(f"{name}: {_line(json.dumps(value))}")
    typer.echo("")
    _table(
        ["step", "score", "changes", "rejected", "seconds", "cost", "note"],
        [
            [str(s.number), _number(s.score), str(s.changes), str(s.rejections),
             _number(s.seconds), _money(s.cost), _line(s.note)[:60]]
            for s in steps
        ],
    )  # fmt: skip
    for name, value in values.items():
        typer.echo(f"\n{_line(name)} ({value.kind}, version {value.version}, {value.origin}):")
        typer.echo(_text(_shown(value.value)))


@runs.command("compare", epilog="Example: tracegraph runs compare first-try second-try")
def compare(one: RunName, other: RunName, store: Store = None, as_json: AsJson = False) -> None:
    """Compare two runs: their totals, what they ran with, and their parameters at the end."""
    from tracegraph.history import differences
    from tracegraph.history.export import run_facts

    history = _history(store)
    left, right = history.run(one), history.run(other)
    changed = differences(left.parameters(), right.parameters())
    facts = run_facts(left), run_facts(right)
    if as_json:
        _json({"runs": facts, "parameters": [_difference(d) for d in changed]})
        return
    names = [k for k in facts[0] if facts[0][k] != facts[1].get(k) or k in ("best_score", "steps")]
    _table(
        ["", f"run {left.id}", f"run {right.id}"],
        [[name, *(_line(_shown(f.get(name)))[:60] for f in facts)] for name in names],
    )
    for difference in changed:
        typer.echo(f"\n{_text(difference.text)}")


@runs.command("diff", epilog="Example: tracegraph runs diff first-try 0 12")
def diff(
    run: RunName,
    before: Annotated[int, typer.Argument(help="After this step; 0 is the start.")] = 0,
    after: Annotated[
        int | None, typer.Argument(help="Up to this step; the end if left out.")
    ] = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Show how the parameters changed within a run."""
    changed = _history(store).run(run).diff(before, after)
    if as_json:
        _json([_difference(d) for d in changed])
    elif not changed:
        typer.echo("no parameter changed")
    for difference in () if as_json else changed:
        typer.echo(_text(difference.text) + "\n")


@app.command("export", epilog="Example: tracegraph export first-try --format csv -o steps.csv")
@runs.command("export", epilog="Example: tracegraph runs export first-try -o run.jsonl")
def export(
    run: RunName,
    form: Annotated[str, typer.Option("--format", help="jsonl or csv.")] = "jsonl",
    graphs: Annotated[bool, typer.Option("--graphs", help="With trace graphs (jsonl).")] = False,
    output: Output = None,
    store: Store = None,
) -> None:
    """Write a run as lines of JSON, or its steps as CSV."""
    from tracegraph.history.export import csv_text, json_lines

    if form not in ("jsonl", "csv"):
        raise typer.BadParameter(f"{form!r} is no format; use jsonl or csv")
    kept = _history(store).run(run)
    text = csv_text(kept) if form == "csv" else "\n".join(json_lines(kept, graphs=graphs)) + "\n"
    _write(text, output)


@runs.command("prune", epilog="Example: tracegraph runs prune --keep 20 --dry-run")
def prune(
    keep: Annotated[int | None, typer.Option(min=0, help="Keep this many of the latest.")] = None,
    older: Annotated[
        float | None, typer.Option("--older-than", min=0, help="Delete those older, in days.")
    ] = None,
    run: Annotated[list[str] | None, typer.Option("--run", help="Delete this run.")] = None,
    dry: Annotated[bool, typer.Option("--dry-run", help="Only say what would be deleted.")] = False,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Delete runs, and what only they used. A run that is going on is left."""
    import time

    if keep is None and older is None and not run:
        raise typer.BadParameter("say which: --keep N, --older-than DAYS or --run RUN")
    history = _history(store)
    every = history.runs()
    chosen = {r.id: r for r in map(history.run, run or [])}
    if keep is not None:
        chosen |= {r.id: r for r in every[: max(len(every) - keep, 0)]}
    if older is not None:
        chosen |= {r.id: r for r in every if r.created < time.time() - older * 86_400}
    count, freed = history.prune(list(chosen.values()), dry=dry)
    if as_json:
        _json({"runs": count, "bytes": freed, "dry_run": dry})
    else:
        which = f"{count} run" if count == 1 else f"{count} runs"
        done = "would be deleted" if dry else f"deleted, {freed:,} bytes freed"
        typer.echo(f"{which} {done}")


@app.command("view", epilog="Example: tracegraph view first-try --step 3 -o graph.svg")
def view(
    run: Annotated[
        str | None, typer.Argument(help="Its number or name; the latest if left out.")
    ] = None,
    step: Annotated[int | None, typer.Option(help="This step only.")] = None,
    output: Output = None,
    store: Store = None,
) -> None:
    """Show a run as a page to click through, all its steps or one; ``-o graph.svg`` draws one step."""
    from pathlib import Path

    from tracegraph.history.pages import page
    from tracegraph.view import write_html

    kept = _history(store).run(run)
    shown = page(kept, step)
    path = Path(output or f"run-{kept.id}.html")
    if path.suffix == ".svg":
        number = step or [s.number for s in kept.steps if s.nodes][-1]
        path.write_text(kept.graph(number).to_svg(), encoding="utf-8")
    else:
        write_html(shown, path)
    typer.echo(str(path))


@app.command("doctor", epilog="Example: tracegraph doctor --live gpt-4o-mini")
def doctor(
    live: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Ask this model one short question.")
    ] = None,
    store: Store = None,
    as_json: AsJson = False,
) -> None:
    """Say what is installed, which walls the sandbox has, which devices and keys there are."""
    from tracegraph.doctor import examined

    found = examined(store, live)
    if as_json:
        _json(found)
    else:
        for title, facts in found.items():
            typer.echo(title)
            for name, said in facts.items():
                typer.echo(f"  {name:<24} {_line(str(said))}")
    if found.get("live check", {}).get("answered") is False:
        raise typer.Exit(1)


# Reading


def _history(store: str | None) -> History:
    from tracegraph.history import History

    return History(store)


def _show_step(kept: KeptRun, number: int, as_json: bool) -> None:
    details = kept.details(number)
    step = next(s for s in kept.steps if s.number == number)
    if as_json:
        _json({**_step(step), **details})
        return
    for name, value in _step(step).items():
        if value not in (None, "", 0):
            typer.echo(f"{name}: {_line(str(value))}")
    for name, value in details.items():
        typer.echo(f"\n{name}:")
        typer.echo(_text(value if isinstance(value, str) else json.dumps(value, indent=1)))
    if step.nodes:
        typer.echo(f"\ngraph:\n{_text(kept.graph(number).to_text())}")


def _listed(run: KeptRun) -> dict[str, Any]:
    return {
        "id": run.id, "name": run.name, "status": run.status, "created": run.created,
        "ended": run.ended, "error": run.error, **run.summary,
    }  # fmt: skip


def _step(step: Any) -> dict[str, Any]:
    from dataclasses import asdict

    return asdict(step)


def _difference(difference: Any) -> dict[str, Any]:
    return {
        "name": difference.name, "before": _shown(difference.before),
        "after": _shown(difference.after), "diff": difference.text,
    }  # fmt: skip


# Writing


def _json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=1, default=str))


def _write(text: str, output: str | None) -> None:
    if output is None:
        typer.echo(text, nl=False)
        return
    from pathlib import Path

    Path(output).write_text(text, encoding="utf-8", errors="surrogatepass")
    typer.echo(output)


def _table(titles: list[str], rows: list[list[str]]) -> None:
    """Columns as wide as their longest cell; the last one is not padded."""
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    for row in [titles, *rows]:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        typer.echo("  ".join(cells).rstrip())


def _line(text: str) -> str:
    """A model's or user's words on one line, without characters that steer a terminal."""
    from tracegraph.view.plain import one_line

    return one_line(text)


def _text(text: str) -> str:
    from tracegraph.view.plain import plain

    return plain(text)


def _shown(value: Any) -> str:
    from tracegraph.kinds import show

    return value if isinstance(value, str) else show(value, 2_000)


def _when(seconds: float) -> str:
    import time

    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


def _money(value: float | None) -> str:
    return "" if value is None else f"${value:.4f}"
