"""A server on the loopback interface that speaks OpenAI's protocol and can misbehave."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest


@dataclass
class Answer:
    """What the server does with one request."""

    content: str | None = "hello"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None  # in place of a well-formed one
    finish: str = "stop"
    hang: float = 0.0


class Server:
    """Gives `answers` in order, the last one for ever; keeps the requests."""

    def __init__(self) -> None:
        self.answers: list[Answer] = [Answer()]
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.released = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            disable_nagle_algorithm = True
            wbufsize = 65536
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                outer.requests.append(json.loads(self.rfile.read(length)))
                outer.keys.append(self.headers.get("Authorization", ""))
                turn = min(len(outer.requests), len(outer.answers)) - 1
                answer = outer.answers[turn]
                if answer.hang:
                    outer.released.wait(answer.hang)
                    self.close_connection = True
                    return
                body = (answer.body if answer.body is not None else outer.body(answer)).encode()
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,))
        self._thread.start()

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def body(self, answer: Answer) -> str:
        if answer.status != 200:
            return json.dumps({"error": {"message": f"fault {answer.status}", "type": "fault"}})
        message = {"role": "assistant", "content": answer.content}
        return json.dumps(
            {
                "id": "1",
                "object": "chat.completion",
                "created": 1,
                "model": "served",
                "choices": [{"index": 0, "message": message, "finish_reason": answer.finish}],
                "usage": {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10},
            }
        )

    def close(self) -> None:
        self.released.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@pytest.fixture
def answer() -> Callable[..., Answer]:
    return Answer


@pytest.fixture(autouse=True)
def without_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reaches a provider by a key of the person who runs it."""
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_API_BASE", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("TRACEGRAPH_MODEL", "TRACE_LITELLM_MODEL", "DEFAULT_LITELLM_MODEL"):
        monkeypatch.delenv(name, raising=False)
