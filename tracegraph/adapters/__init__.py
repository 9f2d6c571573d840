"""Programs of other libraries as traced workflows: a DSPy module, a LangChain runnable.

Each adapter is imported when its name is first used, and the library that it serves when it is
called.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracegraph.adapters.dspy import from_dspy
    from tracegraph.adapters.langchain import from_langchain

__all__ = ["from_dspy", "from_langchain"]

_HOME = {"from_dspy": "tracegraph.adapters.dspy", "from_langchain": "tracegraph.adapters.langchain"}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}; it has {__all__}")
    return getattr(importlib.import_module(_HOME[name]), name)
