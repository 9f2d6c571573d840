"""Keep replies by request and attempt: record them, replay them, or use them as a cache.

A tape lies in the file of the run history (``tracegraph.history.Facts("replies")``), or is a text file
of JSON lines that a person can read and a version control system can keep. It holds requests and
replies, never keys. A line that was cut off by a crash is passed over.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any, TypeAlias, final

from tracegraph.errors import NotRecorded, WrongModel
from tracegraph.forking import new_lock
from tracegraph.llm.messages import Price, Reply, Request, Usage
from tracegraph.llm.model import Ask, LanguageModel, ModelBase, Steps, Wrapper

__all__ = ["Cached", "Recorded", "Replay", "Tape", "plain_reply", "reply_of"]

_FORMAT = 1


@final
class Tape:
    """Replies by canonical request and attempt, in memory and, with a path, in a file.

    A text file is read whole when the tape is made, and one line is appended for each new reply. Of two
    lines for one request the later counts.

    Args:
        kept: the path of a text file, or a dict of lines by key, which may lie on disk: with
            `tracegraph.history.Facts` replies are kept in a run history, and several processes share them.

    >>> import tempfile
    >>> from tracegraph.history import Facts
    >>> from tracegraph.llm import Scripted
    >>> with Facts("replies", tempfile.mkdtemp()) as replies:
    ...     model = Cached(Scripted(["four"]), replies)
    ...     model("2 + 2?").text, model("2 + 2?").text, len(replies)
    ('four', 'four', 1)
    """

    def __init__(self, kept: str | Path | MutableMapping[str, Any] | None = None) -> None:
        self.path = Path(kept) if isinstance(kept, str | Path) else None
        self._lines = kept if isinstance(kept, MutableMapping) else {}
        self._lock = new_lock()
        self._torn = False
        if self.path is not None and self.path.exists():
            self._lines = dict(self._read(self.path))

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def models(self) -> frozenset[str]:
        """The names of the models whose replies are here."""
        return frozenset(self._lines[key]["request"]["model"] for key in list(self._lines))

    def find(self, request: Request, model: str) -> Reply | None:
        """The reply kept for this request to `model`, or None."""
        line = self._lines.get(request.key(model))
        return None if line is None else reply_of(line["reply"], request)

    def keep(self, request: Request, model: str, reply: Reply) -> None:
        """Keep a reply; in the file too, before this returns."""
        line = {
            "format": _FORMAT,
            "key": request.key(model),
            "request": json.loads(request.canonical(model)),
            "reply": plain_reply(reply),
        }
        with self._lock:
            self._lines[line["key"]] = line
            if self.path is not None:
                text = json.dumps(line, separators=(",", ":")) + "\n"
                with self.path.open("a", encoding="utf-8") as file:
                    file.write("\n" + text if self._torn else text)
                self._torn = False

    def _read(self, path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
        text = path.read_text(encoding="utf-8", errors="replace")
        self._torn = bool(text) and not text.endswith("\n")
        lines = text.split("\n")
        for number, written in enumerate(lines, start=1):
            if not written.strip():
                continue
            try:
                line = json.loads(written)
                if line["format"] != _FORMAT:
                    raise WrongModel(
                        f"line {number} of {path} has format {line['format']!r} and this version "
                        f"reads {_FORMAT}; record the file again"
                    )
                yield line["key"], line
            except (json.JSONDecodeError, KeyError, TypeError) as error:
                if isinstance(error, json.JSONDecodeError) and written.startswith('{"format":'):
                    continue  # cut off by a crash while it was written
                raise WrongModel(
                    f"line {number} of {path} is not a recorded reply ({error!r:.100}); give the "
                    "path of a file that Recorded or Cached wrote"
                ) from error


def plain_reply(reply: Reply) -> dict[str, Any]:
    """A reply as JSON-able data; what its schema made of it is read again when it is needed."""
    usage = reply.usage
    return {
        "text": reply.text,
        "usage": None if usage is None else [usage.prompt, usage.completion],
        "cost": reply.cost,
        "model": reply.model,
        "finish": reply.finish,
    }


def reply_of(plain: dict[str, Any], request: Request) -> Reply:
    """The reply to `request` that `plain_reply` wrote."""
    usage = plain["usage"]
    return Reply.to(
        request,
        plain["text"],
        usage=None if usage is None else Usage(*usage),
        cost=plain["cost"],
        model=plain["model"],
        finish=plain["finish"],
    )


TapeLike: TypeAlias = Tape | MutableMapping[str, Any] | str | Path


def _tape(given: TapeLike | None) -> Tape:
    return given if isinstance(given, Tape) else Tape(given)


@final
class Recorded(Wrapper):
    """A language model that asks every time and keeps each reply on a tape.

    >>> from tracegraph.llm import Scripted
    >>> tape = Tape()
    >>> Recorded(Scripted(["four"]), tape)("2 + 2?").text, Replay(tape)("2 + 2?").text
    ('four', 'four')
    """

    def __init__(self, inner: LanguageModel, tape: TapeLike) -> None:
        super().__init__(inner)
        self._tape = _tape(tape)

    def steps(self, request: Request) -> Steps:
        """Ask and keep."""
        request.key(self.name)  # what cannot be kept is an error before it is paid for
        reply: Reply = yield Ask(self._inner, request)
        self._tape.keep(request, self.name, reply)
        return reply


@final
class Cached(Wrapper):
    """A language model that asks once per request and attempt, and then remembers.

    A reply from the cache has a usage and a cost of 0, because nothing was spent. Attempts are
    apart: asking again with ``attempt=1`` gets a new answer, so a bad one does not repeat for
    ever. What another thread or task asks before the first reply is there, is asked twice. Without
    `tape` the memory ends with the object.

    >>> from tracegraph.llm import Scripted
    >>> model = Cached(Scripted(["first", "second"]))
    >>> model("Go").text, model("Go").text, model("Go", attempt=1).text
    ('first', 'first', 'second')
    """

    def __init__(self, inner: LanguageModel, tape: TapeLike | None = None) -> None:
        super().__init__(inner)
        self._tape = _tape(tape)

    def steps(self, request: Request) -> Steps:
        """Look up, else ask and keep."""
        kept = self._tape.find(request, self.name)
        if kept is not None:
            free = Usage(0, 0)
            return Reply(kept.text, kept.parsed, free, 0.0, kept.model, kept.finish)
        reply: Reply = yield Ask(self._inner, request)
        self._tape.keep(request, self.name, reply)
        return reply


@final
class Replay(ModelBase):
    """A language model that answers from a tape and never asks anybody.

    `model` is the name under which the replies were recorded; it need not be given where the tape
    holds those of one model only. Replies have the usage and the cost that were recorded.
    """

    def __init__(self, tape: TapeLike, *, model: str | None = None) -> None:
        self._tape = _tape(tape)
        path = self._tape.path
        if path is not None and not path.exists():
            raise NotRecorded(
                f"there is no recording at {path}; write one with Recorded(llm, path)"
            )
        if model is None:
            if len(self._tape.models) != 1:
                raise WrongModel(
                    f"the recording holds replies of {sorted(self._tape.models)}; say which by "
                    "model=..."
                )
            (model,) = self._tape.models
        self._name = model

    @property
    def name(self) -> str:
        """The name of the recorded model."""
        return self._name

    def price(self) -> Price | None:
        """Nothing is paid."""
        return Price(0.0, 0.0)

    def ask(self, request: Request) -> Reply:
        """The recorded reply."""
        reply = self._tape.find(request, self._name)
        if reply is None:
            raise NotRecorded(
                f"the recording of {self._name!r} ({self._tape.path or 'in memory'}, "
                f"{len(self._tape)} replies) has none for attempt {request.attempt} of this "
                f"request; record it anew with Recorded. The last message was: "
                f"{request.messages[-1].text!r:.200}"
            )
        return reply

    async def aask(self, request: Request) -> Reply:
        """The recorded reply."""
        return self.ask(request)
