"""Which decorator is being called, and above which function it stands.

Read from the frames of the call and from the positions that Python keeps for them, so a decorator is
known whatever it is called, and one that gives another function than the one below it is noticed.
"""

from __future__ import annotations

import ast
import linecache
import sys
import types
from collections.abc import Iterable
from itertools import islice
from types import FrameType
from typing import Any

from tracegraph.parsing import tree_of
from tracegraph.warning import outside

__all__ = ["decorating", "locals_named", "refusal"]

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def decorating(definition: Definition, filename: str, shift: int = 0) -> FrameType | None:
    """The frame that calls a decorator of a definition at this moment, or None.

    `shift` lines of the file stand before those that `definition` was read from.
    """
    above = definition.decorator_list
    lines = range(above[0].lineno + shift, definition.lineno + shift) if above else ()
    frame: FrameType | None = sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename == filename and frame.f_lineno in lines:
            return frame
        frame = frame.f_back
    return None


def locals_named(frame: FrameType | None, parts: Iterable[ast.AST]) -> dict[str, Any]:
    """The variables of a function or a class body, which runs in `frame`, that parts of its text name."""
    if frame is None or frame.f_locals is frame.f_globals:
        return {}
    held = frame.f_locals
    names = [n.id for part in parts for n in ast.walk(part) if isinstance(n, ast.Name)]
    return {name: held[name] for name in names if name in held}


def refusal(target: Any) -> str:
    """Why `target` does not tell the function above which the decorator stands that is called; or nothing."""
    frame, _ = outside()
    code = getattr(target, "__code__", None)
    if frame is None or not _starts_with_decorator(frame) or _stands_at(code, frame):
        return ""
    found = _below(frame)
    if found is None:
        return ""
    definition, place = found
    below = [ast.unparse(decorator) for decorator in definition.decorator_list[place + 1 :]]
    named = " and ".join(f"@{text}" for text in below)
    gives = (
        f"the function {target.__qualname__!r}"
        if isinstance(target, types.FunctionType)
        else f"an object of {type(target).__name__!r}"
    )
    return (
        f"below @{ast.unparse(definition.decorator_list[place])}, {named} {'give' if below[1:] else 'gives'} "
        f"{gives}, which does not tell that it stands for {definition.name!r}: let the decorator use "
        "functools.wraps (a class functools.update_wrapper), or put it above, where it is a part of the "
        "program"
    )


def _starts_with_decorator(frame: FrameType) -> bool:
    line = linecache.getline(frame.f_code.co_filename, frame.f_lineno, frame.f_globals)
    return line.lstrip().startswith("@")


def _stands_at(code: types.CodeType | None, frame: FrameType) -> bool:
    """Whether the line that runs in `frame` is one of a function's own, as its decorators are."""
    if code is None or code.co_filename != frame.f_code.co_filename:
        return False
    last = max(line or 0 for *_, line in code.co_lines())
    return code.co_firstlineno <= frame.f_lineno <= last


def _below(frame: FrameType) -> tuple[Definition, int] | None:
    """The definition whose decorator `frame` calls at this moment, and the number of that decorator."""
    positions = islice(frame.f_code.co_positions(), frame.f_lasti // 2, None)
    line, end, column, end_column = next(positions, (None,) * 4)
    lines = linecache.getlines(frame.f_code.co_filename, frame.f_globals)
    try:
        tree = tree_of("".join(lines))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None  # the file was changed since
    for item in ast.walk(tree):
        if isinstance(item, Definition):
            for place, one in enumerate(item.decorator_list):
                found = (one.lineno, one.end_lineno, one.col_offset, one.end_col_offset)
                if found == (line, end, column, end_column) and item.decorator_list[place + 1 :]:
                    return item, place
    return None
