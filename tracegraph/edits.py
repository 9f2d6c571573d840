"""Change a text by search/replace blocks, and tell two versions apart.

A block is a line ``<<<<<<< SEARCH``, the lines to replace, a line ``=======``, the lines that take
their place, and a line ``>>>>>>> REPLACE``. What it searches must stand in the text exactly once, so
that a small change of a long function costs a few lines and nothing else can move. Where it does not
stand there to the letter, spaces at the ends of lines and an indent that is another for all lines do not
count.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass

from tracegraph.marking import BadSource
from tracegraph.spans import lines_of

__all__ = ["Edit", "diff", "edited", "read_edits"]

_OPEN, _MIDDLE, _CLOSE = (re.compile(rf"{mark}{{5,9}}(?: .*)?") for mark in "<=>")
_MOST = 200
_MOST_TOLD = 10
_NEAR = 0.6


@dataclass(frozen=True, slots=True)
class Edit:
    """Lines to find, and the lines that take their place; no lines delete them."""

    search: str
    replace: str


def read_edits(reply: str) -> tuple[Edit, ...]:
    """The search/replace blocks of a text; none where it has no line ``<<<<<<< SEARCH``.

    Raises:
        BadSource: a block has no end, or the text has very many.

    >>> read_edits("<<<<<<< SEARCH\\na\\n=======\\nb\\n>>>>>>> REPLACE")
    (Edit(search='a\\n', replace='b\\n'),)
    """
    edits: list[Edit] = []
    halves: list[list[str]] = []
    for line in lines_of(reply, ends=False):
        if not halves:
            if _OPEN.fullmatch(line) and "SEARCH" in line:
                halves = [[]]
        elif len(halves) == 1 and _MIDDLE.fullmatch(line):
            halves.append([])
        elif len(halves) == 2 and _CLOSE.fullmatch(line):
            edits.append(Edit(*("".join(f"{part}\n" for part in half) for half in halves)))
            halves = []
        else:
            halves[-1].append(line)
    if halves:
        missing = "=======" if len(halves) == 1 else ">>>>>>> REPLACE"
        raise BadSource(f"block {len(edits) + 1} has no line {missing!r}")
    if len(edits) > _MOST:
        raise BadSource(f"{len(edits):,} blocks are more than {_MOST}; give the whole text")
    return tuple(edits)


def edited(text: str, edits: Iterable[Edit]) -> str:
    """`text` with every edit made, one after the other.

    Raises:
        BadSource: what an edit searches is not there, or more than once; nothing is changed.

    >>> edited("a = 1\\nb = 2\\n", [Edit("b = 2\\n", "b = 3\\n")])
    'a = 1\\nb = 3\\n'
    >>> edited("a = 1\\na = 1\\n", [Edit("a = 1\\n", "")])
    Traceback (most recent call last):
    tracegraph.marking.BadSource: block 1 matches at lines 1, 2; add lines around it until it matches once
    """
    lines = _lines(text)
    for number, edit in enumerate(edits, 1):
        wanted = _lines(edit.search)
        if not any(line.strip() for line in wanted):
            raise BadSource(f"block {number} searches nothing; name the lines to replace")
        new = _lines(edit.replace)
        found = _places(lines, wanted)
        if not found:
            found, new = _loose_places(lines, wanted, new)
        if not found:
            raise _missing(number, lines, wanted)
        if len(found) > 1:
            at = ", ".join(str(place + 1) for place in found[:_MOST_TOLD])
            raise BadSource(
                f"block {number} matches at lines {at}; add lines around it until it matches once"
            )
        lines[found[0] : found[0] + len(wanted)] = new
    return "".join(f"{line}\n" for line in lines)


def diff(before: str, after: str, *, name: str = "code", context: int = 3) -> str:
    """What changed from `before` to `after`, as a unified diff; empty where nothing did.

    >>> print(diff("a\\nb\\n", "a\\nc\\n", context=0), end="")
    --- code (before)
    +++ code (after)
    @@ -2 +2 @@
    -b
    +c
    """
    changes = difflib.unified_diff(
        _lines(before), _lines(after), f"{name} (before)", f"{name} (after)", n=context, lineterm=""
    )
    return "".join(f"{line}\n" for line in changes)


def _lines(text: str) -> list[str]:
    """The lines as Python counts them."""
    return text.removesuffix("\n").split("\n") if text else []


def _places(lines: list[str], wanted: list[str]) -> list[int]:
    last = len(lines) - len(wanted)
    return [at for at in range(last + 1) if lines[at : at + len(wanted)] == wanted]


def _loose_places(
    lines: list[str], wanted: list[str], new: list[str]
) -> tuple[list[int], list[str]]:
    """Where lines stand but for spaces, and what takes their place there."""
    trimmed = [line.rstrip() for line in lines]
    theirs, block = _unindented([line.rstrip() for line in wanted])
    first = next(n for n, line in enumerate(block) if line)
    found: list[tuple[int, str]] = []
    for at in range(len(lines) - len(wanted) + 1):
        if trimmed[at + first].lstrip() != block[first].lstrip() or len(found) > _MOST_TOLD:
            continue
        own, same = _unindented(trimmed[at : at + len(wanted)])
        if same == block:
            found.append((at, own))
    if len(found) != 1:
        return [at for at, _ in found], new
    ((at, own),) = found
    if own == theirs:
        return [at], new
    if not all(line.startswith(theirs) for line in new if line.strip()):
        return [], new
    return [at], [own + line.removeprefix(theirs) if line.strip() else line for line in new]


def _unindented(lines: list[str]) -> tuple[str, list[str]]:
    """The indent that all lines have, and the lines without it; empty lines have any."""
    indents = [line[: len(line) - len(line.lstrip())] for line in lines if line]
    indent = min(indents, key=len, default="")
    while not all(other.startswith(indent) for other in indents):
        indent = indent[:-1]
    return indent, [line.removeprefix(indent) for line in lines]


def _missing(number: int, lines: list[str], wanted: list[str]) -> BadSource:
    """Why an edit finds nothing, with the line that its first line may have meant."""
    reason = f"block {number} matches nothing: its lines must stand in the text, with their indents"
    first = next(line for line in wanted if line.strip())
    near = difflib.get_close_matches(first, lines, 1, _NEAR)
    if not near:
        return BadSource(f"{reason}; its first line is {first[:120]!r}")
    line = lines.index(near[0]) + 1
    return BadSource(reason, text="\n".join(lines), line=line, mark=f"block {number} has {first!r}")
