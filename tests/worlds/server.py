"""The loopback server with a list of answers, and with faults: it misbehaves when it is told to."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from optimizers.demo import server as plain

__all__ = ["FAULTS", "Answer", "Server"]


@dataclass
class Answer:
    """What the server does with one request."""

    content: str | None = "hello"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None  # in place of a well-formed one
    finish: str = "stop"
    hang: float = 0.0


FAULTS: dict[str, Answer] = {
    "429 with Retry-After": Answer(status=429, headers={"Retry-After": "0.01"}),
    "500": Answer(status=500),
    "a hang": Answer(hang=30.0),
    "truncated JSON": Answer(body='{"id": "1", "choices": [{"mess'),
    "empty content": Answer(content=""),
    "no content": Answer(content=None),
    "finish_reason=length": Answer(content='{"reasoning": "by the facts", "sugg', finish="length"),
}
"""What can go wrong between a program and a model's provider."""


class Server(plain.Server):
    """Gives `answers` in order, the last one for ever, or what `respond` says; keeps the requests.

    Close it, or use it as a context manager.
    """

    def __init__(self, respond: Callable[[dict[str, Any]], Answer] | None = None) -> None:
        self.answers: list[Answer] = [Answer()]
        self.respond = respond
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self._released = threading.Event()
        self._lock = threading.Lock()
        super().__init__(self._handled)

    def _handled(
        self, request: dict[str, Any], headers: Mapping[str, str]
    ) -> plain.Response | None:
        with self._lock:
            self.requests.append(request)
            self.keys.append(headers.get("Authorization", ""))
            turn = min(len(self.requests), len(self.answers)) - 1
        answer = self.answers[turn] if self.respond is None else self.respond(request)
        if answer.hang:
            self._released.wait(answer.hang)
            return None
        body = answer.body
        if body is None and answer.status != 200:
            body = json.dumps({"error": {"message": f"fault {answer.status}", "type": "fault"}})
        if body is None:
            body = plain.completion(answer.content, finish=answer.finish, usage=(7, 3))
        return plain.Response(body, answer.status, answer.headers)

    def close(self) -> None:
        """Stop, and let go of whoever waits."""
        self._released.set()
        super().close()
