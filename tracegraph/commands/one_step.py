"""A kept step in lines for a terminal: its numbers in words, and all that was said in it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from tracegraph.history import KeptStep
from tracegraph.history.display import fact, model, money, tokens
from tracegraph.view.plain import one_line, plain

__all__ = ["step_lines"]


def step_lines(step: KeptStep, details: Mapping[str, Any]) -> Iterator[str]:
    """What is known of a step, name by name, then what was said in it, part by part."""
    for name, value in asdict(step).items():
        if value not in (None, "", 0):
            yield f"{name}: {one_line(fact(name, value))}"
    for name, value in details.items():
        if not value:
            continue
        yield f"\n{name}:"
        parts = _PARTS.get(name)
        try:
            lines = list(_said(value) if parts is None else parts(value))
        except (KeyError, TypeError, ValueError, AttributeError):  # of another version
            lines = list(_said(value))
        yield from lines


def _said(value: Any) -> Iterator[str]:
    yield plain(value if isinstance(value, str) else json.dumps(value, indent=1))


def _feedback(given: Any) -> Iterator[str]:
    for one in given:
        where = f" at #{one['output']}" if one.get("output") is not None else ""
        yield from _indented(f"{one['kind']}{where}: {one['text']}")


def _rejections(refused: Any) -> Iterator[str]:
    for one in refused:
        yield from _indented(f"{one['name']}: {one['reason']}")
        if one.get("value") not in (None, "None"):
            yield from _indented(f"the proposal: {one['value']}", 4)


def _exchanges(asked: Any) -> Iterator[str]:
    for number, one in enumerate(asked, 1):
        spent = [tokens(*(one.get("usage") or (None, None))), money(one.get("cost"))]
        yield "  " + one_line(
            ", ".join(filter(None, (f"call {number}", model(one.get("model")), *spent)))
        )
        for role, text in [*one["prompt"], ["reply", one["reply"]]]:
            yield f"  [{one_line(role)}]"
            yield from _indented(text, 4)


def _indented(text: str, by: int = 2) -> Iterator[str]:
    for line in plain(text).splitlines() or [""]:
        yield (" " * by + line).rstrip()


_PARTS: dict[str, Callable[[Any], Iterator[str]]] = {
    "feedback": _feedback, "rejections": _rejections, "exchanges": _exchanges,
    "problem": _indented, "reasoning": _indented, "error": _indented,
    "changes": lambda names: _indented(", ".join(names)),
}  # fmt: skip
