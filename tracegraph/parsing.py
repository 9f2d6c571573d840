"""Reading a text as syntax, in any thread.

Python 3.11 counts the depth of a syntax tree for all threads together (CPython issue 106905): one that
is read while another thread reads or the collector runs may fail with a SystemError. Once more, it succeeds.
"""

from __future__ import annotations

import ast

__all__ = ["tree_of"]

_TRIES = 20


def tree_of(text: str) -> ast.Module:
    """The tree of a text.

    >>> type(tree_of("x = 1").body[0]).__name__
    'Assign'

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: as `ast.parse` does.
    """
    for _ in range(_TRIES - 1):
        try:
            return ast.parse(text)
        except SystemError:
            continue
    return ast.parse(text)
