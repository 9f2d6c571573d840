"""Look at what is installed and set: packages, the sandbox's walls, devices, keys, the history.

What can be tried is tried: a call in the sandbox, a question to a model that this process plays on
the loopback interface, and, where asked for, one to a real model. Keys are only said to be set,
never shown.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import shutil
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tracegraph.errors import MissingExtra, TracegraphError
from tracegraph.events import watching
from tracegraph.history.reading import History
from tracegraph.history.store import store_path

__all__ = ["examined", "faults"]

_PACKAGES = {
    "tracegraph": "this package", "numpy": "required", "networkx": "required",
    "pydantic": "required", "graphviz": "required", "rich": "required", "typer": "required",
    "torch": "tensors: pip install 'tracegraph[torch]'",
    "safetensors": "tensors: pip install 'tracegraph[torch]'",
    "litellm": "models by name: pip install 'tracegraph[llm]'",
    "triton": "GPU kernels: pip install 'tracegraph[gpu]'",
    "ruff": "layout of exported code: pip install 'tracegraph[code]'",
    "mypy": "checks of types: pip install 'tracegraph[code]'",
    "pandas": "tables of steps: pip install pandas",
    "opentelemetry-sdk": "spans: pip install 'tracegraph[otel]'",
    "mlflow": "export: pip install 'tracegraph[mlflow]'",
    "tensorboard": "export: pip install 'tracegraph[tensorboard]'",
}  # fmt: skip
_KEYS = (
    "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY", "AZURE_API_KEY",
    "MISTRAL_API_KEY", "GROQ_API_KEY", "OPENROUTER_API_KEY", "DEEPSEEK_API_KEY", "COHERE_API_KEY",
    "TOGETHERAI_API_KEY", "XAI_API_KEY", "HF_TOKEN", "AWS_ACCESS_KEY_ID",
)  # fmt: skip


def examined(store: str | None = None, live: str | None = None) -> dict[str, dict[str, Any]]:
    """What was found, by heading; with `live`, that model is asked one short question."""
    with watching(_nobody):
        found = {
            "python": {"version": platform.python_version(), "program": sys.executable,
                       "system": platform.platform()},
            "packages": _packages(),
            "sandbox": _sandbox(),
            "devices": _devices(),
            "models": _models(),
            "loopback": _loopback(),
            "history": _history(store),
        }  # fmt: skip
        if live is not None:
            found["live check"] = _asked(live)
    return found


def _nobody(kind: str, facts: dict[str, Any]) -> None:
    """Watches in place of a run: looking at what is there leaves nothing behind."""


def faults(found: dict[str, dict[str, Any]]) -> list[str]:
    """What was tried and does not work, of what `examined` found: its headings."""
    return [
        title
        for title, facts in found.items()
        if facts.get("works") is False or facts.get("answered") is False or "fault" in facts
    ]


def _packages() -> dict[str, str]:
    found = {}
    for name, purpose in _PACKAGES.items():
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = f"not installed ({purpose})"
    dot = shutil.which("dot")
    found["dot (program)"] = dot or "not found; pictures are laid out without it"
    return found


def _sandbox() -> dict[str, Any]:
    from tracegraph.sandbox import Policy, open_sandbox

    try:
        with open_sandbox("isolated", Policy(preload=())) as box:
            ran = box.call("def f(x):\n    return x + 1\n", "f", (1,)).value == 2
            walls = getattr(box, "layers", None)
    except (TracegraphError, OSError) as error:
        return {"works": False, "why": f"{error}"}
    return {"works": ran, **({"walls": walls} if walls else {})}


def _devices() -> dict[str, Any]:
    found: dict[str, Any] = {"processors": os.cpu_count()}
    try:
        from tracegraph.tensor import devices

        return {**found, **(devices() or {"GPU": "none"})}
    except ImportError:
        return {**found, "GPU": "unknown without torch"}


def _models() -> dict[str, str]:
    found = {name: "set" for name in _KEYS if os.environ.get(name, "").strip()}
    if not found:
        found["keys"] = f"none of {', '.join(_KEYS[:4])}, ... is set"
    default = os.environ.get("TRACEGRAPH_MODEL", "").strip()
    return {**found, "TRACEGRAPH_MODEL": default or "not set"}


def _history(store: str | None) -> dict[str, Any]:
    path = store_path(store)
    if not path.exists():
        place = Path(path.parent if path.parent.exists() else ".")
        return {"file": f"{path} (none yet)", "writable": os.access(place, os.W_OK)}
    try:
        count = len(History(path).runs())
    except TracegraphError as error:
        return {"file": str(path), "fault": str(error)}
    return {"file": str(path), "runs": count, "bytes": path.stat().st_size}


def _asked(model: str) -> dict[str, Any]:
    from tracegraph.llm import Request, as_language_model

    started = time.perf_counter()
    try:
        reply = as_language_model(model).ask(Request.of("Reply with the one word: ready"))
    except TracegraphError as error:
        return {"model": model, "answered": False, "why": str(error)}
    return {
        "model": model, "answered": True, "reply": reply.text[:100],
        "seconds": round(time.perf_counter() - started, 2), "cost": reply.cost,
    }  # fmt: skip


def _loopback() -> dict[str, Any]:
    """Ask a model that answers at 127.0.0.1 in this process: a proxy may stand in the way."""
    from tracegraph.llm import LiteLLM

    with ThreadingHTTPServer(("127.0.0.1", 0), _Ready) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}/v1"
        try:
            model = LiteLLM("openai/ready", api_base=address, api_key="none", timeout=10)
            return {"answered": model("ready?").text == "ready", "by": "litellm"}
        except MissingExtra:
            with urllib.request.urlopen(address, b"{}", timeout=10) as reply:
                return {"answered": reply.status == 200, "by": "urllib"}
        except (TracegraphError, OSError) as error:
            return {"answered": False, "why": str(error), "address": address}
        finally:
            server.shutdown()
            thread.join()


class _Ready(BaseHTTPRequestHandler):
    """Answers every question with one word, as OpenAI's protocol has it."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        message = {"role": "assistant", "content": "ready"}
        body = json.dumps({
            "id": "ready", "object": "chat.completion", "created": 0, "model": "ready",
            "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
        }).encode()  # fmt: skip
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""
