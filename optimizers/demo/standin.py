"""A stand-in for a language model: it does what its prompt says, and learns from what a request says.

As the model of a workflow it follows the rules that stand in its prompt. As the model of an optimizer it
follows a remark such as ``team should be "mira"`` back along the calls that the request shows: a prompt
gets a rule that explains what its call was given and what was wanted, a function an expression. A
share of its replies is spoiled on purpose, as those of a real model are: cut off, or harmful.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from random import Random
from typing import Any, final

from optimizers.demo.learning import (
    followed,
    induced,
    refuted,
    rules_of,
    synthesised,
    written,
)
from optimizers.demo.reading import Call, Reading, read
from optimizers.demo.server import Response, completion
from tracegraph.forking import new_lock

__all__ = ["StandIn"]

_WANTED = re.compile(r'(\w+) should be "([^"]*)"')
_TASKS = ("Message: ", "Topic: ")
_RETURN = re.compile(r"\breturn .*")


@final
class StandIn:
    """Answers tasks and requests for proposals; the same questions in the same order, the same answers.

    Args:
        seed: of what is spoiled.
        spoiled: the share of proposals that are cut off, or drop what was learned.
        bound: how many rules are added to a prompt at a time.

    >>> StandIn().says([{"role": "system", "content": '"sun" means "day"'},
    ...                 {"role": "user", "content": "Message: a red sun"}])
    'day'
    """

    def __init__(self, seed: int = 0, *, spoiled: float = 0.25, bound: int = 1) -> None:
        self._seed, self._spoiled, self._bound = seed, spoiled, bound
        self._asked: Counter[str] = Counter()
        self._lock = new_lock()

    def respond(self, request: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
        """The answer over the wire, for a `Server`."""
        messages = request["messages"]
        answer = self.says(messages)
        size = sum(len(message["content"]) for message in messages)
        return Response(completion(answer, usage=(size // 4, len(answer) // 4 + 1)))

    def says(self, messages: Sequence[Mapping[str, str]]) -> str:
        """What is answered."""
        last = messages[-1]["content"]
        if last.startswith(_TASKS):
            return followed(messages[0]["content"], last)
        with self._lock:
            self._asked[last] += 1
            random = Random(f"{self._seed} {self._asked[last]} {last}")
        suggestion = self._improved(read(last))
        reply = json.dumps({"reasoning": "It follows from the remarks.", "suggestion": suggestion})
        if random.random() >= self._spoiled:
            return reply
        opening = {name: str(value).splitlines()[0] for name, value in suggestion.items()}
        return random.choice([reply[: len(reply) // 2], "", json.dumps({"suggestion": opening})])

    def _improved(self, reading: Reading) -> dict[str, str]:
        """New values for the variables behind what was said to be wrong."""
        lessons: dict[str, list[tuple[dict[str, Any], str]]] = {}
        for name, given, wanted in _lessons(reading):
            lessons.setdefault(name, []).append((given, wanted))
        found = {}
        for name, own in lessons.items():
            kind, value = reading.variables[name]
            made = self._prompt(value, own) if kind == "text" else _function(value, own)
            if made is not None and made != value:
                found[name] = made
        return found

    def _prompt(self, prompt: str, lessons: Sequence[tuple[dict[str, Any], str]]) -> str:
        facts = [(" ".join(map(str, given.values())), wanted) for given, wanted in lessons]
        rules = {
            word: label
            for word, label in rules_of(prompt).items()
            if not refuted(word, label, facts)
        }
        added = 0
        for word, label in induced(facts):
            if added < self._bound and rules.get(word) != label:
                rules[word] = label
                added += 1
        return written(prompt.partition("\n")[0], rules)


def _lessons(reading: Reading) -> Iterator[tuple[str, dict[str, Any], str]]:
    """(variable, what its call was given, what it should have given), from remarks of now and before."""
    makers = {}
    for output, said in reading.remarks:
        call = reading.calls.get(output)
        wanted = dict(_WANTED.findall(said))
        for part, source in (call.arguments if call else {}).items():
            maker = reading.calls.get(source)
            variable = _variable_of(maker, reading)
            if maker is None or variable is None:
                continue
            makers[part] = (maker, variable)
            if part in wanted:
                yield variable, _given(maker, reading, call, wanted), wanted[part]
    for known, said in reading.past:
        wanted = dict(_WANTED.findall(said))
        for part in sorted(wanted.keys() & makers.keys()):
            maker, variable = makers[part]
            names = [a for a, s in maker.arguments.items() if s != variable]
            given = {a: wanted.get(a, known.get(a)) for a in names}
            if None not in given.values():
                yield variable, given, wanted[part]


def _given(
    maker: Call, reading: Reading, call: Call | None, wanted: Mapping[str, str]
) -> dict[str, Any]:
    """What a call was given, or should have been given where that was wrong as well."""
    corrected = {
        source: wanted[part]
        for part, source in (call.arguments if call else {}).items()
        if part in wanted
    }
    return {
        name: corrected.get(source, reading.value(source))
        for name, source in maker.arguments.items()
        if source not in reading.variables
    }


def _variable_of(maker: Call | None, reading: Reading) -> str | None:
    """The variable that a call used."""
    sources = () if maker is None else maker.arguments.values()
    return next((source for source in sources if source in reading.variables), None)


def _function(code: str, lessons: Sequence[tuple[dict[str, Any], str]]) -> str | None:
    """The function with an expression that gives what was wanted, or ``None`` where there is none."""
    names = sorted(lessons[0][0])
    examples = [
        (tuple(given[name] for name in names), int(wanted))
        for given, wanted in lessons
        if all(isinstance(given.get(name), int) for name in names) and wanted.isdigit()
    ]
    expression = synthesised(names, examples)
    return None if expression is None else _RETURN.sub(f"return {expression}", code)
