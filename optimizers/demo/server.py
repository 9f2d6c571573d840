"""A server on the loopback interface that speaks OpenAI's chat protocol.

What it answers is a function of the request. It is for demonstrations and tests: it listens on this
machine alone, checks no key, and serves nothing but POST.
"""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

__all__ = ["Response", "Server", "asked", "completion"]

_TIMEOUT = 30.0


@dataclass(frozen=True, slots=True)
class Response:
    """What goes back over the wire; `body` is JSON."""

    body: str
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)


def completion(
    content: str | None, *, finish: str = "stop", usage: tuple[int, int] = (0, 0)
) -> str:
    """The body of a chat completion; `usage` is the tokens of the request and of the answer."""
    prompt, said = usage
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": content},
        "finish_reason": finish,
    }
    tokens = {"prompt_tokens": prompt, "completion_tokens": said, "total_tokens": prompt + said}
    return json.dumps(
        {
            "id": "1",
            "object": "chat.completion",
            "created": 1,
            "model": "stand-in",
            "choices": [choice],
            "usage": tokens,
        }
    )


class _Listener(ThreadingHTTPServer):
    # With the 5 of the standard library, a caller among many waits a second before it tries again.
    request_queue_size = 128


class Server:
    """Answers each request with what `respond(request, headers)` gives, until it is closed.

    Requests come side by side, each in a thread of its own. ``None`` from `respond` closes the
    connection without an answer. Close it, or use it as a context manager.

    >>> with Server(lambda request, headers: Response(completion("hello"))) as server:
    ...     asked(server.base, [{"role": "user", "content": "Hi"}])["choices"][0]["message"]["content"]
    'hello'
    """

    def __init__(
        self, respond: Callable[[dict[str, Any], Mapping[str, str]], Response | None]
    ) -> None:
        class Handler(BaseHTTPRequestHandler):
            disable_nagle_algorithm = True  # else header and body wait for each other's receipt,
            wbufsize = 65536  # 40 ms a call
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                response = respond(json.loads(self.rfile.read(length)), dict(self.headers))
                if response is None:
                    self.close_connection = True
                    return
                body = response.body.encode()
                self.send_response(response.status)
                for name, value in response.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        self._http = _Listener(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def base(self) -> str:
        """The address to give as ``api_base``."""
        return f"http://127.0.0.1:{self._http.server_address[1]}/v1"

    def close(self) -> None:
        """Stop."""
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


def asked(base: str, messages: Sequence[Mapping[str, str]], **options: Any) -> dict[str, Any]:
    """One request to the server at `base`, without any client library; the answer as it came."""
    host = base.removeprefix("http://").split("/")[0]
    line = http.client.HTTPConnection(host, timeout=_TIMEOUT)
    try:
        body = json.dumps({"model": "stand-in", "messages": list(messages), **options})
        line.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        answer: dict[str, Any] = json.loads(line.getresponse().read())
        return answer
    finally:
        line.close()
