"""Look at what is installed and set: packages, the sandbox's walls, devices, keys, the history.

Keys are only said to be set, never shown.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import Any

from tracegraph.errors import TracegraphError
from tracegraph.history.reading import History
from tracegraph.history.store import store_path

__all__ = ["examined"]

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
}  # fmt: skip
_KEYS = (
    "OPENAI_API_KEY", "ANTHROPIC_API_KEY", "GEMINI_API_KEY", "GOOGLE_API_KEY", "AZURE_API_KEY",
    "MISTRAL_API_KEY", "GROQ_API_KEY", "OPENROUTER_API_KEY", "DEEPSEEK_API_KEY", "COHERE_API_KEY",
    "TOGETHERAI_API_KEY", "XAI_API_KEY", "HF_TOKEN", "AWS_ACCESS_KEY_ID",
)  # fmt: skip


def examined(store: str | None = None, live: str | None = None) -> dict[str, dict[str, Any]]:
    """What was found, by heading; with `live`, that model is asked one short question."""
    found = {
        "python": {"version": platform.python_version(), "program": sys.executable,
                   "system": platform.platform()},
        "packages": _packages(),
        "sandbox": _sandbox(),
        "devices": _devices(),
        "models": _models(),
        "history": _history(store),
    }  # fmt: skip
    if live is not None:
        found["live check"] = _asked(live)
    return found


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
    import time

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
