"""The door through which each question to a model's provider or callable goes, and its reply comes.

Whoever watches is told of it (``"reply"``, see `tracegraph.events`). Where the variable
``TRACEGRAPH_REPLAY`` names a tape, nobody is asked: replies come from it, in the order in which they
were kept, and a question that it does not hold is an error.
"""

from __future__ import annotations

import difflib
import json
import os
from collections import deque
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, final

from tracegraph.again import REPLAY
from tracegraph.errors import NotRecorded
from tracegraph.events import observe
from tracegraph.forking import new_lock
from tracegraph.llm.keeping import akept, kept
from tracegraph.llm.messages import Price, Reply, Request
from tracegraph.llm.model import LanguageModel, ModelBase
from tracegraph.llm.tape import reply_of

__all__ = ["Foreign", "Player", "apassed", "passed", "playing", "report_of"]

_lock = new_lock()
_players: dict[str, Player] = {}
_NEAR = 200  # kept questions that are compared with one that was not found
_COMPARED = 20_000  # characters of each


def passed(model: LanguageModel, request: Request, ask: Callable[[Request], Reply]) -> Reply:
    """The reply of `model`: what a keeper or the tape holds, else what `ask` gives."""

    def asked(request: Request) -> Reply:
        player = playing()
        reply = ask(request) if player is None else player.reply(request, model.name)
        observe("reply", model=model, request=request, reply=reply)
        return reply

    return kept(model, request, asked)


async def apassed(
    model: LanguageModel, request: Request, ask: Callable[[Request], Awaitable[Reply]]
) -> Reply:
    """`passed`, awaited."""

    async def asked(request: Request) -> Reply:
        player = playing()
        reply = await ask(request) if player is None else player.reply(request, model.name)
        observe("reply", model=model, request=request, reply=reply)
        return reply

    return await akept(model, request, asked)


def playing() -> Player | None:
    """What answers in place of the models, if anything does."""
    path = os.environ.get(REPLAY)
    if not path:
        return None
    with _lock:  # two players of one tape would give each reply twice
        if path not in _players:
            _players[path] = Player(Path(path))
        return _players[path]


def report_of(path: Path) -> Path:
    """Where a `Player` of the tape at `path` says what it was asked: a JSON object on each line."""
    return path.with_name(path.name + ".report")


@final
class Player:
    """Answers from a tape; equal questions get their replies in the order of the tape."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise NotRecorded(f"{REPLAY} names {path}, and there is no such tape")
        self._path = path
        self._lock = new_lock()
        self._left: dict[str, deque[tuple[int, dict[str, Any]]]] = {}
        self._asked = 0
        for number, written in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            try:
                line = json.loads(written)
                self._left.setdefault(line["key"], deque()).append((number, line))
            except (ValueError, KeyError, TypeError) as error:
                raise NotRecorded(
                    f"line {number} of {path} is no recorded reply: {error!r}"
                ) from error

    def reply(self, request: Request, name: str) -> Reply:
        """The next reply that was kept for this question.

        Raises:
            NotRecorded: there is none. How the nearest question differs is in the report.
        """
        with self._lock:
            self._asked += 1
            asked = self._asked
            kept = self._left.get(request.key(name))
            found = kept.popleft() if kept else None
            difference = "" if found is not None else self._difference(request.canonical(name))
            said = {"asked": asked, "found": found and found[0], "difference": difference}
            with report_of(self._path).open("a", encoding="utf-8") as file:
                file.write(json.dumps(said) + "\n")
        if found is None:
            raise NotRecorded(
                f"the replay has no reply to question {asked} (to {name!r}, attempt "
                f"{request.attempt}): {difference.partition(chr(10))[0]}"
            )
        return reply_of(found[1]["reply"], request)

    def _difference(self, asked: str) -> str:
        """How a question differs from the nearest one that was not asked for yet."""
        left = sorted((pair for kept in self._left.values() for pair in kept), key=lambda p: p[0])
        if not left:
            return "every reply that was kept has been used"
        wanted = _lines(json.loads(asked))
        matcher = difflib.SequenceMatcher(b="\n".join(wanted)[:_COMPARED], autojunk=False)
        best, nearest, number = -1.0, wanted, 0
        for at, line in left[:_NEAR]:
            lines = _lines(line["request"])
            matcher.set_seq1("\n".join(lines)[:_COMPARED])
            if (likeness := matcher.quick_ratio()) > best:
                best, nearest, number = likeness, lines, at
        changes = difflib.unified_diff(nearest, wanted, "kept", "asked", lineterm="", n=1)
        return f"the nearest that was kept is question {number}\n" + "\n".join(changes)


@final
class Foreign(ModelBase):
    """A model of a person's own class, asked through the door; not at all while a tape answers."""

    def __init__(self, model: LanguageModel) -> None:
        self._model = model

    def __repr__(self) -> str:
        return repr(self._model)

    @property
    def name(self) -> str:
        """The name of the model."""
        return self._model.name

    def price(self) -> Price | None:
        """The price of the model, where it tells one."""
        return self._model.price() if isinstance(self._model, ModelBase) else None

    def ask(self, request: Request) -> Reply:
        """The model's reply."""
        return passed(self, request, self._model.ask)

    async def aask(self, request: Request) -> Reply:
        """The model's reply."""
        return await apassed(self, request, self._model.aask)


def _lines(request: dict[str, Any]) -> list[str]:
    """A canonical request as lines to compare."""
    rest = {name: value for name, value in request.items() if name != "messages"}
    lines = [f"{name}: {json.dumps(value)}" for name, value in sorted(rest.items())]
    for message in request["messages"]:
        content = message["content"]
        text = content if isinstance(content, str) else json.dumps(content)
        lines += [f"{message['role']}:", *text.splitlines()]
    return lines
