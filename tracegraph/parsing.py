"""Reading a text as syntax, in any thread.

Python 3.11 counts the depth of a syntax tree for all threads together (CPython issue 106905): one that
is read while another is, in another thread or by what the collector runs, may fail with a SystemError.
Once more, it succeeds.
"""

from __future__ import annotations

import ast
from typing import Any

__all__ = ["expression_of", "tree_of"]

_TRIES = 20


def tree_of(text: str) -> ast.Module:
    """The tree of a text.

    >>> type(tree_of("x = 1").body[0]).__name__
    'Assign'

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: as `ast.parse` does.
    """
    found: ast.Module = _read(text, "exec")
    return found


def expression_of(text: str) -> ast.expr:
    """The tree of a text that is one expression.

    >>> ast.unparse(expression_of("x+1"))
    'x + 1'

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: as `ast.parse` does.
    """
    found: ast.Expression = _read(text, "eval")
    return found.body


def _read(text: str, mode: str) -> Any:
    for _ in range(_TRIES - 1):
        try:
            return ast.parse(text, mode=mode)
        except SystemError:
            continue
    return ast.parse(text, mode=mode)
