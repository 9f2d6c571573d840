"""An extension of Griffe: sessions in docstrings become code blocks of the reference."""

from __future__ import annotations

import re
from typing import Any

import griffe

SESSION = re.compile(r"^>>> .*(?:\n(?!\s*$).*)*", re.MULTILINE)
"""From a first ``>>>`` to the next blank line, as doctest reads it."""


class Sessions(griffe.Extension):
    """Fences what a docstring shows of a session; Markdown would take it for a quotation."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Change the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            obj.docstring.value = SESSION.sub(r"```python\n\g<0>\n```", obj.docstring.value)
