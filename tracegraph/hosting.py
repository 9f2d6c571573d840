"""Functions of this process that code which runs apart may call.

They run here while that code waits; what they record becomes an input of the call that asked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from tracegraph.failure import failed_node
from tracegraph.lowering import lower
from tracegraph.node import Node
from tracegraph.recorder import beside, current

__all__ = ["hosted"]


def hosted(host: Mapping[str, Callable[..., Any]] | None) -> dict[str, Callable[..., Any]]:
    """The functions of `host`, each with its nodes read by the call that asks."""
    return {name: _bridged(function) for name, function in (host or {}).items()}


def _bridged(function: Callable[..., Any]) -> Callable[..., Any]:
    def ask(*args: Any, **kwargs: Any) -> Any:
        policy = current()
        frame = None if policy is None else policy.frame
        found: list[Node[Any]] = []
        try:
            with beside():
                return lower(function(*args, **kwargs), "", found, [])
        except Exception as error:
            refused = failed_node(error)
            found += [] if refused is None else [refused]
            raise
        finally:
            if frame is not None:
                for node in found:
                    frame.read(node)

    return ask
