"""A server on the loopback interface that speaks OpenAI's protocol, and misbehaves when told to.

What it answers is a list of `Answer`, or a function of the request: so a world's model is reached by
the very way that a real one is.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

__all__ = ["Answer", "Server"]


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
    """Gives `answers` in order, the last one for ever, or what `respond` says; keeps the requests.

    Close it, or use it as a context manager.
    """

    def __init__(self, respond: Callable[[dict[str, Any]], Answer] | None = None) -> None:
        self.answers: list[Answer] = [Answer()]
        self.respond = respond
        self.requests: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.released = threading.Event()
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            disable_nagle_algorithm = True
            wbufsize = 65536
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                answer = outer.answer(json.loads(self.rfile.read(length)))
                outer.keys.append(self.headers.get("Authorization", ""))
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

    def answer(self, request: dict[str, Any]) -> Answer:
        """What is done with the next request."""
        with self._lock:
            self.requests.append(request)
            turn = min(len(self.requests), len(self.answers)) - 1
        return self.answers[turn] if self.respond is None else self.respond(request)

    @property
    def base(self) -> str:
        """The address to give as ``api_base``."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def body(self, answer: Answer) -> str:
        """A well-formed response."""
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
        """Stop, and let go of whoever waits."""
        self.released.set()
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
