"""What the variables of a failed call held, in a few words for a person and a model.

Values are bounded. What goes by the name of a secret, such as ``api_key`` or ``password``, is not shown,
nor is such an entry inside another value.
"""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Any

from tracegraph.failure import frame_of, masked
from tracegraph.held import held
from tracegraph.kinds import show

__all__ = ["attributes", "listed", "variables"]

_MOST, _LONGEST, _TOTAL = 20, 120, 1_500
_HIDDEN = (types.ModuleType, types.FunctionType, types.BuiltinFunctionType, type)


def variables(error: BaseException, code: types.CodeType | None) -> str:
    """The local variables where `code` failed, as ``where x = 0, y = [1, 2]``; or nothing."""
    frame = frame_of(error, code)
    if frame is None:
        return ""
    return listed({**dict(frame.f_locals), **attributes(frame.f_locals.get("self"))})


def attributes(instance: Any) -> dict[str, Any]:
    """The values that an object holds, by the names ``self.x`` that its methods have for them."""
    if isinstance(instance, type):
        return {}
    values = held(instance)
    return {f"self.{name}": value for name, value in values.items() if not name.startswith("_")}


def listed(values: Mapping[str, Any]) -> str:
    """Variables and what they hold, as ``where x = 0, y = [1, 2]``, bounded; or nothing."""
    told: list[str] = []
    room = _TOTAL
    for name, value in values.items():
        if name.startswith(("__", ".")) or name == "self" or isinstance(value, _HIDDEN):
            continue
        text = f"{name} = {_shown(name, value)}"
        room -= len(text)
        if len(told) == _MOST or room < 0:
            told.append("...")
            break
        told.append(text)
    return f"where {', '.join(told)}" if told else ""


def _shown(name: str, value: Any) -> str:
    if isinstance(value, int | float | complex | None):
        return show(value, _LONGEST)
    return masked(name, show(value, _LONGEST))
