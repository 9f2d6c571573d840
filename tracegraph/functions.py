"""Functions that record where Python's own syntax cannot: ``==``, ``in``, ``not``, ``len``, ``if``.

On a node, ``x == y`` and ``x in y`` answer plainly. Where the answer itself shall be a node of the
graph, use these.
"""

from __future__ import annotations

from typing import Any

from tracegraph.node import Node
from tracegraph.node import apply as _apply
from tracegraph.operators import FUNCTIONS

__all__ = [
    "chr_",
    "concat",
    "cond",
    "eq",
    "identity",
    "in_",
    "is_",
    "is_not",
    "len_",
    "ne",
    "not_",
    "not_in",
    "ord_",
    "setitem",
    "to_dict",
    "to_list",
    "to_set",
    "to_tuple",
]


def _recorded(name: str) -> Any:
    operation = FUNCTIONS[name]

    def function(*args: Any) -> Node[Any]:
        return _apply(operation, args)  # type: ignore[no-any-return]

    function.__name__ = function.__qualname__ = name
    function.__doc__ = f"Record ``{operation.doc}`` as a node: ``{operation.signature or name}``."
    return function


identity = _recorded("identity")
eq = _recorded("eq")
ne = _recorded("ne")
not_ = _recorded("not_")
is_ = _recorded("is_")
is_not = _recorded("is_not")
in_ = _recorded("in_")
not_in = _recorded("not_in")
concat = _recorded("concat")
len_ = _recorded("len_")
ord_ = _recorded("ord_")
chr_ = _recorded("chr_")
to_list = _recorded("to_list")
to_tuple = _recorded("to_tuple")
to_set = _recorded("to_set")
to_dict = _recorded("to_dict")
cond = _recorded("cond")
setitem = _recorded("setitem")
