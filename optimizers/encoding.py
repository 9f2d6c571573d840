"""Values of parameters as JSON, and back, without loss.

Used for a candidate's identity and for saving a search. Lists, texts, numbers and dicts with text
keys are themselves; everything else is an object with one key that starts with ``$``. Types of
dataclasses, models, enumerations and tensors are not stored: they are taken from a value of the
same parameter, so reading a file never imports or runs anything.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from enum import Enum
from typing import Any

from tracegraph.errors import OptimizerError
from tracegraph.kinds import is_array, is_tensor, show

__all__ = ["decoded", "encoded"]


def encoded(value: Any) -> Any:
    """`value` as JSON-able data.

    Raises:
        OptimizerError: it holds something that cannot be written and read back.

    >>> encoded((1, {"a": 2.5}))
    {'$tuple': [1, {'a': 2.5}]}
    """
    if isinstance(value, Enum):
        return {"$member": value.name}
    if value is None or isinstance(value, (bool, str)):
        return value
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else {"$float": repr(float(value))}
    if isinstance(value, list):
        return [encoded(item) for item in value]
    if isinstance(value, tuple):
        return {"$tuple": [encoded(item) for item in value]}
    if isinstance(value, (set, frozenset)):
        return {"$set": sorted((encoded(item) for item in value), key=repr)}
    if isinstance(value, Mapping):
        if all(isinstance(key, str) and not key.startswith("$") for key in value):
            return {key: encoded(item) for key, item in value.items()}
        return {"$items": [[encoded(key), encoded(item)] for key, item in value.items()]}
    if is_tensor(value) or is_array(value):
        return {"$tensor": value.tolist(), "shape": [int(n) for n in value.shape]}
    if is_dataclass(value) or hasattr(type(value), "model_fields"):
        return {"$fields": {name: encoded(getattr(value, name)) for name in _names(value)}}
    raise OptimizerError(
        f"a search cannot store {show(value, 80)} ({type(value).__name__}): it knows texts, "
        "numbers, choices, lists, dicts, sets, dataclasses, pydantic models, arrays and tensors"
    )


def decoded(data: Any, like: Any) -> Any:
    """The value that `encoded` wrote, with the types of `like`, a value of the same parameter.

    Raises:
        OptimizerError: the data are none that `encoded` writes for such a value.

    >>> decoded({'$tuple': [1, {'a': 2.5}]}, like=(0, {}))
    (1, {'a': 2.5})
    """
    if isinstance(data, list):
        return [decoded(item, _example(like, index)) for index, item in enumerate(data)]
    if not isinstance(data, dict):
        return data
    tag = next((key for key in data if key.startswith("$")), None)
    if tag is None:
        return {key: decoded(item, _field(like, key)) for key, item in data.items()}
    try:
        return _READERS[tag](data[tag], like, data)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise OptimizerError(
            f"{show(data, 80)} cannot be read as a value like {show(like, 80)}: {error}"
        ) from error


def _tuple(content: Any, like: Any, _: Any) -> Any:
    items = [decoded(item, _example(like, index)) for index, item in enumerate(content)]
    return type(like)(*items) if hasattr(like, "_fields") else tuple(items)


def _set(content: Any, like: Any, _: Any) -> Any:
    items = {decoded(item, None) for item in content}
    return frozenset(items) if isinstance(like, frozenset) else items


def _items(content: Any, like: Any, _: Any) -> Any:
    return {decoded(key, None): decoded(item, None) for key, item in content}


def _tensor(content: Any, like: Any, data: Any) -> Any:
    if is_tensor(like):
        made = like.detach().new_tensor(content).reshape(data["shape"])
        return made.requires_grad_(like.requires_grad)
    import numpy

    return numpy.asarray(content, dtype=like.dtype).reshape(data["shape"])


def _member(content: Any, like: Any, _: Any) -> Any:
    return type(like)[content]


def _object(content: Any, like: Any, _: Any) -> Any:
    values = {name: decoded(item, getattr(like, name)) for name, item in content.items()}
    if hasattr(type(like), "model_fields"):
        return type(like).model_validate(values)
    return replace(like, **values)


_READERS: dict[str, Any] = {
    "$float": lambda content, like, data: float(content),
    "$tuple": _tuple,
    "$set": _set,
    "$items": _items,
    "$tensor": _tensor,
    "$member": _member,
    "$fields": _object,
}


def _names(value: Any) -> list[str]:
    if hasattr(type(value), "model_fields"):
        return list(type(value).model_fields)
    return [field.name for field in fields(value) if field.init]


def _example(like: Any, index: int) -> Any:
    if not isinstance(like, (list, tuple)) or not like:
        return None
    return like[min(index, len(like) - 1)]


def _field(like: Any, key: str) -> Any:
    return like.get(key) if isinstance(like, Mapping) else None
