"""Read a problem as a model would have to: which call got what, and what was said of its outcome.

The reader knows the form of a problem (`tracegraph.problem`) and of remembered facts, and nothing of
what a program means. What does not stand in the request, it does not know.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Call", "Reading", "read"]

_SECTION = re.compile(r"^#([A-Z]\w*)\n", re.M)
_STEP = re.compile(r"^(\w+) = (\w+)\((.*)\)$", re.M)
_ARGUMENT = re.compile(r"(\w+)=('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^,]+)")
_VALUE = re.compile(r"^(\w+) = (.+?)(?:  # .*)?$", re.M)
_VARIABLE = re.compile(r"^\((\w+)\) (\w+) =[ \n](.*?)(?=\n\(\w+\) \w+ =|\n# |\Z)", re.M | re.S)
_REMARK = re.compile(r"^(\w+)(?: \(weight [^)]*\))?: (.*)$", re.M)


@dataclass(frozen=True, slots=True)
class Call:
    """One call: the operation and its arguments, each a name of the problem or a value in place."""

    operation: str
    arguments: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Reading:
    """What a request states.

    Attributes:
        variables: name -> (kind, present value) of what may change.
        calls: the name of a result -> the call that gave it.
        values: the values that are written down, by name.
        remarks: (name of an output, what was said of it), in order.
        past: (arguments by name, what was said), for runs of before.
    """

    variables: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    calls: Mapping[str, Call] = field(default_factory=dict)
    values: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[tuple[str, str], ...] = ()
    past: tuple[tuple[Mapping[str, Any], str], ...] = ()

    def value(self, source: str) -> Any:
        """What an argument stands for; ``None`` where the request does not say it."""
        if source in self.values:
            return self.values[source]
        return None if source in self.calls or source in self.variables else _literal(source)


def read(request: str) -> Reading:
    """What a request states.

    >>> reading = read('''#Code
    ... grade0 = grade(prompt=rule, text='a b c')
    ... #Variables
    ... (text) rule = Be fair.
    ... #Feedback
    ... grade0: Wrong.''')
    >>> reading.calls["grade0"].arguments["text"], reading.remarks
    ("'a b c'", (('grade0', 'Wrong.'),))
    """
    parts = _SECTION.split(request)
    sections = dict(zip(parts[1::2], parts[2::2], strict=True))
    values: dict[str, Any] = {}
    for name in ("Inputs", "Others", "Outputs"):
        values |= {n: _literal(v) for n, v in _VALUE.findall(sections.get(name, ""))}
    return Reading(
        {
            name: (kind, value.rstrip())
            for kind, name, value in _VARIABLE.findall(sections.get("Variables", ""))
        },
        {
            name: Call(operation, dict(_ARGUMENT.findall(inside)))
            for name, operation, inside in _STEP.findall(sections.get("Code", ""))
        },
        values,
        tuple(
            (name, said)
            for name, said in _REMARK.findall(sections.get("Feedback", ""))
            if not said.startswith("score ")
        ),
        tuple(_remembered(sections.get("Past", ""))),
    )


def _remembered(section: str) -> Iterator[tuple[Mapping[str, Any], str]]:
    for line in section.splitlines():
        given, arrow, said = line.partition(" -> ")
        if arrow:
            yield {n: _literal(v) for n, v in _ARGUMENT.findall(given)}, said


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        return text
