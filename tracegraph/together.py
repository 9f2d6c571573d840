"""Code whose text is one parameter together: a whole class, or a whole module.

How a parameter of such code is found, on the class, on its objects, or on what stands for the module; what
runs for which version is in `whole`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tracegraph.parameter import Parameter

__all__ = ["MARK", "Together", "code_of"]

MARK = "__tracegraph_code__"
"""The attribute of a trainable class that holds its code."""


class Together:
    """The code of a class or of a module.

    Attributes:
        parameter: the text; set before the first call.
    """

    parameter: Parameter[str]


def code_of(value: Any) -> Together | None:
    """The code of a trainable class, or of the class of an object; ``None`` for anything else."""
    found = getattr(value if isinstance(value, type) else type(value), MARK, None)
    return found if isinstance(found, Together) else None
