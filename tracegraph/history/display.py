"""How kept runs look in a terminal and in a notebook: as rows, facts, numbers in words."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tracegraph.kinds import show
from tracegraph.view.plain import fit, one_line

__all__ = [
    "duration",
    "fact",
    "model",
    "money",
    "number",
    "runs_rows",
    "steps_rows",
    "summary_facts",
    "tokens",
    "when",
]

Rows = tuple[list[str], list[list[str]]]
_CELLS = 1_000  # of a terminal, for a name or a note: no terminal is wider


def runs_rows(runs: Sequence[Any]) -> Rows:
    """Titles and a row for each run."""
    rows = []
    for run in runs:
        facts = run.summary
        rows.append([
            str(run.id), fit(one_line(run.name), _CELLS), run.status, when(run.created), str(facts["steps"]),
            number(facts["best_score"]), money(facts["cost"]),
        ])  # fmt: skip
    return _filled(["run", "name", "status", "began", "steps", "best", "cost"], rows)


def steps_rows(steps: Sequence[Any]) -> Rows:
    """Titles and a row for each step; a column in which nothing would stand is left out."""
    rows = []
    for step in steps:
        took = "" if step.seconds is None else duration(step.seconds)
        rows.append([
            str(step.number), number(step.score), str(step.changes or ""),
            str(step.rejections or ""), took, money(step.cost), fit(one_line(step.note), _CELLS),
        ])  # fmt: skip
    return _filled(["step", "score", "changes", "rejected", "time", "cost", "note"], rows)


def _filled(titles: list[str], rows: list[list[str]]) -> Rows:
    """The columns in which something stands; all where there is no row."""
    kept = [at for at in range(len(titles)) if not rows or any(row[at] for row in rows)]
    return [titles[at] for at in kept], [[row[at] for at in kept] for row in rows]


def summary_facts(run: Any) -> dict[str, str]:
    """What a run came to, by name: only what is known."""
    totals = run.summary
    facts = {
        "began": when(run.created),
        "took": duration(totals["seconds"]),
        "steps": f"{totals['steps']:,}",
        "best score": number(totals["best_score"]),
        "last score": number(totals["last_score"]),
        "calls of models": f"{totals['calls']:,}" if totals["calls"] else "",
        "tokens": tokens(totals["tokens_in"], totals["tokens_out"]),
        "cost": money(totals["cost"]),
        "error": run.error or "",
    }
    return {name: said for name, said in facts.items() if said}


def when(seconds: float) -> str:
    """A moment, in local time."""
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(seconds))


def duration(seconds: float) -> str:
    """A time in the unit that fits.

    >>> duration(0.00012), duration(2.5), duration(100), duration(4321.2)
    ('0.12 ms', '2.5 s', '100 s', '4,321 s')
    """
    if seconds < 0.9995:
        return f"{seconds * 1_000:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 999.5 else f"{seconds:,.0f} s"


def fact(name: str, value: Any) -> str:
    """A fact of a run or a step in words, by its name: times, money, else as text.

    >>> fact("seconds", 2.5), fact("cost", 0.25), fact("status", "done"), fact("error", None)
    ('2.5 s', '$0.2500', 'done', '')
    >>> fact("started", {"argv": ["python", "my program.py"], "directory": "/home"})
    "python 'my program.py', in /home"
    >>> fact("versions", {"python": "3.12", "numpy": "2.4"})
    'python 3.12, numpy 2.4'
    """
    if value is None:
        return ""
    if isinstance(value, Mapping):
        return _of_many(value)
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        if name in ("created", "started", "ended"):
            return when(value)
        if name in _NUMBERS:
            return _NUMBERS[name](value)
    return value if isinstance(value, str) else show(value, 2_000)


def _of_many(facts: Mapping[str, Any]) -> str:
    """Facts under one name, in a line: how a program was started as it would be typed."""
    argv = facts.get("argv")
    if isinstance(argv, list) and all(isinstance(word, str) for word in argv):
        place = facts.get("directory")
        return shlex.join(argv) + (f", in {place}" if place else "")
    return ", ".join(f"{name} {fact(name, value)}" for name, value in facts.items())


def model(name: object) -> str:
    """What a model is called: of a function its own name, without where it was made.

    >>> model("desk.<locals>.answer"), model("gpt-4o"), model(None)
    ('answer', 'gpt-4o', '')
    """
    return str(name or "").rpartition("<locals>.")[2]


def tokens(asked: int | None, answered: int | None) -> str:
    """How many tokens went to models and came back; nothing where none did."""
    return f"{asked or 0:,} in, {answered or 0:,} out" if asked or answered else ""


def number(value: float | None) -> str:
    """A number in four digits; nothing for ``None``."""
    return "" if value is None else f"{value:.4g}"


def money(value: float | None) -> str:
    """Dollars; nothing for ``None``."""
    return "" if value is None else f"${value:.4f}"


_NUMBERS = {
    "seconds": duration, "cost": money, "score": number, "best_score": number, "last_score": number,
}  # fmt: skip
