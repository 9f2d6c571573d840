"""Read what a request really says: facts and variables, wherever an optimizer has put them.

A fact is a quoted text of several words together with `the answer is "..."`. Both may stand in one
line, in one block between blank lines that holds one text, or be tied by names: a value
``text0 = '...'``, a step ``respond0 = respond(text=text0)`` or ``respond0 = respond(text='...')``,
and a remark ``respond0: ...``.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ["Fact", "between_in", "facts_in", "variables_in"]

_TEXT = re.compile(r"'([a-z]+(?: [a-z]+){2,})'")
_ANSWER = re.compile(r'answer is "([a-z]+)"')
_VALUE = re.compile(r"^(\w+) = '([a-z]+(?: [a-z]+){2,})'", re.M)
_STEP = re.compile(r"^(\w+) = \w+\((.*)\)$", re.M)
_WORD = re.compile(r"^(\w+) = '([a-z]+)'$", re.M)
_REMARK = re.compile(r"^(\w+)(?: \(weight [^)]*\))?: (.*)$", re.M)
_VARIABLE = re.compile(r"^\(text\) (\w+) =[ \n](.*?)(?=\n\n|\n\(\w+\) \w+ =|\n#|\Z)", re.M | re.S)


class Fact(NamedTuple):
    """A text and the answer that was wanted for it."""

    text: str
    label: str


def facts_in(request: str) -> list[Fact]:
    """Every fact that a request states, once, in the order of its first mention."""
    found = dict.fromkeys([*_named(request), *_beside(request)])
    return list(found)


def between_in(request: str) -> dict[str, str]:
    """For the text of each fact that names tie together, the one word that was computed on the way."""
    words = dict(_WORD.findall(request))
    texts, behind = dict(_VALUE.findall(request)), {}
    for name, inside in _STEP.findall(request):
        behind[name] = re.findall(r"=(\w+)", inside)
        for text in _TEXT.findall(inside):
            texts.setdefault(name, text)
    found = {}
    for name, _ in _REMARK.findall(request):
        for source in behind.get(name, []):
            text = _text_behind(source, behind, texts, 5)
            if source in words and text:
                found[text] = words[source]
    return found


def variables_in(request: str) -> list[tuple[str, str]]:
    """The names and present values of the variables that a request lists."""
    return [(name, value) for name, value in _VARIABLE.findall(request)]


def _named(request: str) -> Iterator[Fact]:
    values = dict(_VALUE.findall(request))
    behind: dict[str, list[str]] = {}
    for name, inside in _STEP.findall(request):
        behind[name] = re.findall(r"=(\w+)", inside)
        for text in _TEXT.findall(inside):
            values.setdefault(name, text)
    for name, said in _REMARK.findall(request):
        label = _ANSWER.search(said)
        text = _text_behind(name, behind, values, 5)
        if label and text:
            yield Fact(text, label[1])


def _text_behind(
    name: str, behind: dict[str, list[str]], values: dict[str, str], depth: int
) -> str | None:
    if name in values or not depth:
        return values.get(name)
    texts = [_text_behind(source, behind, values, depth - 1) for source in behind.get(name, [])]
    return next((text for text in texts if text), None)


def _beside(request: str) -> Iterator[Fact]:
    for block in [*request.splitlines(), *re.split(r"\n\s*\n", request)]:
        texts, labels = set(_TEXT.findall(block)), set(_ANSWER.findall(block))
        if len(texts) == 1 and len(labels) == 1:
            yield Fact(texts.pop(), labels.pop())
