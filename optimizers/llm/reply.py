"""Read what a language model proposes, in whatever shape it wrote it.

The form asked for is ``{"reasoning": ..., "answer": ..., "suggestion": {name: value}}``. Fences and
prose around it, broken JSON and answers in tags are read as far as they are plain; every repair
and loss is told in `problems`, for a person and for the model's next request. Nothing is
converted: whether a value fits its parameter is checked where the parameter is known.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from optimizers.llm.tagged import Tagged, read_tagged
from tracegraph.errors import UnreadableReply
from tracegraph.llm.lenient import Found, Lenient, is_partial, read_value

__all__ = ["Form", "ReadReply", "read_reply"]

Form: TypeAlias = Literal["text", "json"]

_WRAPPERS = frozenset({"suggestion", "suggestions"})
_RESERVED = _WRAPPERS | {"reasoning", "answer"}
_MOST_PROBLEMS = 50


@dataclass(frozen=True, slots=True)
class ReadReply:
    """What was read from a reply; `suggestions` has known names only, with values as written."""

    reasoning: str | None
    answer: str | None
    suggestions: dict[str, Any]
    problems: tuple[str, ...] = ()


def read_reply(text: str, known: Mapping[str, Form]) -> ReadReply:
    """Read a model's reply about the parameters in `known`.

    `known` says for each name whether its value is "text" (taken verbatim from tags) or "json"
    (read as JSON from tags). A null means no change. Names are matched exactly; else without
    regard to case, colons and backticks, where that leaves one parameter only. Without
    "suggestion" around them the names "reasoning" and "answer" are no parameters. Raises
    UnreadableReply when nothing can be used. Takes time linear in the text.

    >>> read_reply('Sure! {"suggestion": {"x": 2, "y": null,}}', {"x": "json", "y": "json"})
    ... # doctest: +NORMALIZE_WHITESPACE
    ReadReply(reasoning=None, answer=None, suggestions={'x': 2},
              problems=("'y' is null, which means no change",))
    """
    if not text.strip():
        raise UnreadableReply(reply=text, reason="the reply is empty")
    names = _Names(known)
    tagged = read_tagged(text)
    proposal = _from_objects(text, names)
    if tagged is not None and not _prefers_object(proposal, tagged):
        proposal = _from_tags(tagged, known, names)
    if proposal is None:
        raise UnreadableReply(reply=text, reason=_nothing_found(text, known))
    problems = proposal.problems
    if proposal.cut and not proposal.suggestions:
        raise UnreadableReply(reply=text, reason="; ".join(problems[:_MOST_PROBLEMS]))
    if len(problems) > _MOST_PROBLEMS:
        more = len(problems) - _MOST_PROBLEMS
        problems = [*problems[:_MOST_PROBLEMS], f"and {more} more problems"]
    return ReadReply(
        proposal.reasoning, proposal.answer, proposal.suggestions, tuple(dict.fromkeys(problems))
    )


class _Names:
    """Which parameter a written name means."""

    def __init__(self, known: Iterable[str]) -> None:
        self._exact = frozenset(known)
        self._alike: dict[str, list[str]] = defaultdict(list)
        for name in self._exact:
            self._alike[_plain(name)].append(name)

    def find(self, written: str) -> str | None:
        """The one parameter that a written name can mean, or None."""
        if written in self._exact:
            return written
        alike = self._alike.get(_plain(written), [])
        return alike[0] if len(alike) == 1 else None

    def why_not(self, written: str) -> str:
        """What is wrong with a name that was not found."""
        alike = sorted(self._alike.get(_plain(written), []))
        if alike:
            return f"{written!r:.80} can mean any of {_listed(alike)}; it is ignored"
        return f"{written!r:.80} is no parameter here ({_listed(sorted(self._exact))}); ignored"


def _plain(name: str) -> str:
    return name.strip(" \t\n`\"'").replace(":", "").casefold()


def _listed(names: list[str]) -> str:
    shown = ", ".join(f"{name!r:.80}" for name in names[:8])
    return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")


@dataclass(slots=True)
class _Proposal:
    """What one object or one run of tags proposes."""

    start: int
    end: int
    cut: bool = False
    wrapped: bool = False
    reasoning: str | None = None
    answer: str | None = None
    suggestions: dict[str, Any] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    @property
    def rank(self) -> tuple[bool, bool, bool, int]:
        return bool(self.suggestions), self.wrapped, not self.cut, self.start


def _prefers_object(proposal: _Proposal | None, tagged: Tagged) -> bool:
    """Whether the JSON, not the tags, is the answer: it holds the tags, or comes after them."""
    if proposal is None:
        return False
    if not tagged.variables:
        return True
    encloses = proposal.start < tagged.start < proposal.end
    return bool(proposal.suggestions) and (encloses or proposal.start >= tagged.end)


def _from_objects(text: str, names: _Names) -> _Proposal | None:
    """The best proposal among the JSON objects of a text: complete, in the form, the last."""
    best: _Proposal | None = None
    used = unfinished = 0
    lenient = Lenient(_unquoted(text))
    for found in lenient.objects():
        proposal = _of_object(found, names)
        if (proposal is None or not proposal.suggestions) and found.notes:
            lenient.look_inside(found)  # what was guessed at may have swallowed the answer
        if proposal is None or (found.start < unfinished and not proposal.wrapped):
            continue  # an object within the value of another is no proposal of its own
        if not proposal.suggestions:
            unfinished = max(unfinished, found.end)
        used += bool(proposal.suggestions)
        if best is None or proposal.rank >= best.rank:
            best = proposal
    if best is not None and used > 1:
        best.problems.append(f"the reply holds {used} proposals; one of them was taken")
    return best


def _unquoted(text: str) -> str:
    """The text, or what it says where all of it is one JSON string."""
    if text.lstrip().startswith('"'):
        try:
            said = json.loads(text)
        except (ValueError, RecursionError):
            return text
        if isinstance(said, str):
            return said
    return text


def _of_object(found: Found, names: _Names) -> _Proposal | None:
    entries = _relevant(found.value, names)
    if entries is None:
        return None
    proposal = _Proposal(found.start, found.end, cut=not found.complete)
    proposal.problems.extend(found.notes)
    for key, value in entries.items():
        word = _plain(key)
        if word in _WRAPPERS:
            proposal.wrapped = True
            _unwrap(value, proposal, names)
        elif word == "reasoning":
            proposal.reasoning = _as_text(value)
        elif word == "answer":
            proposal.answer = _as_text(value)
    for key, value in entries.items():
        if _plain(key) not in _RESERVED and names.find(key) is not None:
            _suggest(key, value, proposal, names)
        elif _plain(key) not in _RESERVED:
            proposal.problems.append(names.why_not(key))
    if not (proposal.wrapped or proposal.suggestions):
        proposal.problems.append("the reply has no 'suggestion'; nothing is changed")
    return proposal


def _relevant(value: dict[str, Any], names: _Names) -> dict[str, Any] | None:
    """The outermost object within `value` that speaks of a proposal or of known names."""
    layer: list[Any] = [value]
    while layer:
        following: list[Any] = []
        for item in layer:
            if isinstance(item, dict):
                if any(_plain(k) in _RESERVED or names.find(k) is not None for k in item):
                    return item
                following.extend(item.values())
            elif isinstance(item, list):
                following.extend(item)
        layer = following
    return None


def _unwrap(value: Any, proposal: _Proposal, names: _Names) -> None:
    """Take suggestions from what stands under "suggestion"."""
    if isinstance(value, str) and value.lstrip().startswith("{") and not is_partial(value):
        try:
            value = read_value(value)
            proposal.problems.append("the suggestion was JSON within a string")
        except ValueError:
            pass
    if isinstance(value, dict):
        for key, suggested in value.items():
            _suggest(key, suggested, proposal, names)
    elif isinstance(value, list) and all(isinstance(item, dict) for item in value):
        for item in value:
            if isinstance(item.get("name"), str) and "value" in item:
                _suggest(item["name"], item["value"], proposal, names)
            else:
                for key, suggested in item.items():
                    _suggest(key, suggested, proposal, names)
    elif value is not None and not is_partial(value):
        kind = type(value).__name__
        proposal.problems.append(f"'suggestion' must be an object of names and values, got {kind}")


def _suggest(written: str, value: Any, proposal: _Proposal, names: _Names) -> None:
    """Take one suggestion, or say why not."""
    if is_partial(value):
        proposal.problems.append(f"the value of {written!r:.80} is incomplete; it is ignored")
        return
    name = names.find(written)
    if name is None:
        proposal.problems.append(names.why_not(written))
    elif value is None:
        proposal.problems.append(f"{name!r:.80} is null, which means no change")
    elif name in proposal.suggestions and written != name:
        proposal.problems.append(
            f"{name!r:.80} is suggested twice, also as {written!r:.80}; that one is ignored"
        )
    else:
        if name in proposal.suggestions:
            proposal.problems.append(f"{name!r:.80} is suggested twice; the exact name counts")
        proposal.suggestions[name] = value


def _as_text(value: Any) -> str | None:
    """Reasoning and answer are for reading; what is no text is shown as JSON."""
    if value is None or isinstance(value, str):
        return None if value is None else str(value)
    return json.dumps(value, ensure_ascii=False)


def _from_tags(tagged: Tagged, known: Mapping[str, Form], names: _Names) -> _Proposal:
    proposal = _Proposal(tagged.start, tagged.end, wrapped=True)
    proposal.reasoning, proposal.answer = tagged.reasoning, tagged.answer
    proposal.problems.extend(tagged.notes)
    proposal.cut = bool(tagged.notes)
    for written, value in tagged.variables:
        name = names.find(written)
        form = "text" if name is None else known[name]
        _suggest(written, value if form == "text" else _read_json(value), proposal, names)
    return proposal


def _read_json(written: str) -> Any:
    """The value that a text says; the text itself, trimmed, where it is no JSON."""
    try:
        return read_value(written)
    except ValueError:
        return written.strip()


def _nothing_found(text: str, known: Mapping[str, Form]) -> str:
    form = '{"reasoning": "...", "suggestion": {"name": value}}'
    what = "no readable JSON object" if "{" in text else "no JSON object"
    return (
        f"the reply ({len(text):,} characters) holds {what} with a suggestion for "
        f"{_listed(sorted(known)) if known else 'any parameter'}; the form asked for is {form}"
    )
