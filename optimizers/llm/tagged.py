"""Read answers in tags: ``<variable><name>...</name><value>...</value></variable>``.

A value is taken verbatim, without looking at entities, so that ``&``, ``<`` and whole pieces of
XML survive in it. It ends at the ``</value></variable>`` behind which the answer goes on as an
answer (another variable, a closing tag, the end); a look-alike inside it does not end it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

__all__ = ["Tagged", "read_tagged"]

_TAG = re.compile(
    r"""<(?P<close>/?)(?P<tag>variable|name|value|reasoning|answer|suggestions?)
        (?:\s[^<>]{0,200})?>""",
    re.IGNORECASE | re.VERBOSE,
)
_NAME_ATTRIBUTE = re.compile(r"""\bname\s*=\s*(?:"([^"]*)"|'([^']*)')""", re.IGNORECASE)
_GOES_ON = re.compile(r"\s*+(?:\Z|```|<variable\b|</?(?:suggestions?|reasoning|answer)\b)", re.I)


@dataclass(slots=True)
class Tagged:
    """The variables found from `start` to `end`, in order, and what stands beside them."""

    start: int
    end: int
    variables: list[tuple[str, str]] = field(default_factory=list)
    reasoning: str | None = None
    answer: str | None = None
    notes: list[str] = field(default_factory=list)


def read_tagged(text: str) -> Tagged | None:
    """What a reply in tags holds; None where it has no variable in tags.

    >>> read_tagged("<variable><name>x</name><value> a < b </value></variable>").variables
    [('x', ' a < b ')]
    """
    reader = _Reader(text)
    return reader.read() if reader.tags else None


class _Reader:
    def __init__(self, text: str) -> None:
        self.text = text
        self.tags = list(_TAG.finditer(text))
        self.ends = self._ends()

    def _is(self, index: int, kind: str) -> bool:
        """Whether a tag is of a kind such as "value" or "/value"."""
        if index >= len(self.tags):
            return False
        return self.tags[index]["close"] + self.tags[index]["tag"].lower() == kind

    def _ends(self) -> list[int]:
        """For each tag, the next one (itself included) that surely ends a value; -1 for none."""
        ends, following = [-1] * (len(self.tags) + 1), -1
        for index in range(len(self.tags) - 1, -1, -1):
            if self._ends_value(index) and self._goes_on(index + 1):
                following = index
            ends[index] = following
        return ends

    def _ends_value(self, index: int) -> bool:
        return (
            self._is(index, "/value")
            and self._is(index + 1, "/variable")
            and not self.text[self.tags[index].end() : self.tags[index + 1].start()].strip()
        )

    def _goes_on(self, index: int) -> bool:
        return _GOES_ON.match(self.text, self.tags[index].end()) is not None

    def read(self) -> Tagged | None:
        found = Tagged(start=self.tags[0].start(), end=self.tags[-1].end())
        seen = False
        index = 0
        while index < len(self.tags):
            if self._is(index, "variable"):
                seen = True
                index = self._variable(index, found)
            elif self._is(index, "reasoning") and found.reasoning is None:
                found.reasoning, index = self._beside(index, "reasoning")
            elif self._is(index, "answer") and found.answer is None:
                found.answer, index = self._beside(index, "answer")
            else:
                index += 1
        return found if seen else None

    def _beside(self, index: int, tag: str) -> tuple[str, int]:
        """The text of a tag that stands beside the variables; it may lack its end."""
        for end in range(index + 1, len(self.tags)):
            if self._is(end, "/" + tag):
                return self.text[self.tags[index].end() : self.tags[end].start()].strip(), end + 1
            if self._is(end, "variable") and self._header(end) is not None:
                return self.text[self.tags[index].end() : self.tags[end].start()].strip(), end
        return self.text[self.tags[index].end() :].strip(), len(self.tags)

    def _header(self, index: int) -> tuple[str, int] | None:
        """The name of a variable that begins here and the index of its value tag."""
        written = _NAME_ATTRIBUTE.search(self.tags[index][0])
        if written is not None:
            name = written[1] if written[1] is not None else written[2]
            if self._is(index + 1, "value"):
                return name.strip(), index + 1
        elif (
            self._is(index + 1, "name")
            and self._is(index + 2, "/name")
            and self._is(index + 3, "value")
        ):
            name = self.text[self.tags[index + 1].end() : self.tags[index + 2].start()]
            return name.strip(), index + 3
        return None

    def _variable(self, index: int, found: Tagged) -> int:
        header = self._header(index)
        if header is None:
            found.notes.append("a <variable> has no <name> and <value>; it is ignored")
            return index + 1
        name, opening = header
        end = self._end(opening)
        if end is None:
            found.notes.append(f"the value of {name!r:.80} has no end; it is lost")
            return opening + 1
        found.variables.append((name, self.text[self.tags[opening].end() : self.tags[end].start()]))
        return end + 1

    def _end(self, opening: int) -> int | None:
        """The tag that ends the value that begins at `opening`."""
        sure = self.ends[opening + 1]
        stop = len(self.tags) if sure < 0 else sure
        last: int | None = None
        for index in range(opening + 1, stop):
            if self._is(index, "variable") and self._header(index) is not None:
                return last  # the next one begins, so this one had no sure end
            if self._is(index, "/value"):
                last = index
            elif self._is(index, "/variable") and last is None:
                return index  # `</value>` was forgotten
        return last if sure < 0 else sure
