"""Read code as models write it: with the line ends of another system, in a fence, or indented.

What is read means the same; what is no code stays as it is, and is refused where code is checked.
"""

from __future__ import annotations

import re

from tracegraph.parsing import tree_of
from tracegraph.source import dedented

__all__ = ["code_in"]

_FENCE = re.compile(r"^( *)```\w*\n(.*?)\n\1```[ \t]*$", re.DOTALL | re.MULTILINE)
_BEGUN = re.compile(r"\s*(@|#|def |async |class |import |from )")
"""How a text begins that is code itself: a fence in it is documentation."""


def code_in(reply: str) -> str:
    """The code that a reply consists of, or has in its only fence.

    >>> code_in("Here it is:\\n```python\\nx = 1\\r\\ny = 2\\n```")
    'x = 1\\ny = 2\\n'
    >>> code_in("no code"), code_in("    x = 1\\n")
    ('no code', 'x = 1\\n')
    """
    text = reply.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    fenced = [] if _BEGUN.match(text) else [block for _, block in _FENCE.findall(text)]
    tried = [text, *(f"{block}\n" for block in fenced if len(fenced) == 1)]
    for code in (*tried, *map(dedented, filter(str.strip, tried))):
        try:
            tree_of(code)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            continue
        return code
    return tried[-1]
