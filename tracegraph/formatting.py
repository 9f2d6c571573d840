"""Lay code out with a well-kept formatter, where one is installed."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.util import find_spec

__all__ = ["formatted"]

_SECONDS = 20.0
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def formatted(text: str) -> str:
    """`text` as ``ruff format`` lays it out; as it is where ruff is not installed or declines."""
    if find_spec("ruff") is None:
        return text
    command = [sys.executable, "-m", "ruff", "format", "--isolated", "--quiet", "--no-cache",
               "--config", "format.quote-style='preserve'", "-"]  # fmt: skip
    try:
        done = subprocess.run(
            command, input=text.encode(), capture_output=True, timeout=_SECONDS, check=True
        )
        laid_out = done.stdout.decode()
        return laid_out if _meaning(laid_out) == _meaning(text) else text
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError, SyntaxError):
        return text


def _meaning(text: str) -> str:
    """The syntax tree, without documentation, whose indent a formatter may change."""
    tree = ast.parse(text)
    for item in ast.walk(tree):
        if isinstance(item, _DOCUMENTED) and ast.get_docstring(item, clean=False) is not None:
            del item.body[0]
    return ast.dump(tree)
