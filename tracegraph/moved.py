"""Names that users of another library type, and that are called otherwise here.

An import of one fails with the words that say what to use. Asked of the package, such a name is not
there, as `hasattr` and whoever looks around expect; the error has the same words.
"""

from __future__ import annotations

import opcode
import sys
import types

__all__ = ["not_here"]


def not_here(package: str, name: str, instead: str) -> AttributeError | ImportError:
    """The error of a package's ``__getattr__`` that was asked for a name, and what to use.

    >>> not_here("optimizers", "train", "it is called fit")
    AttributeError("optimizers has no 'train': it is called fit")
    """
    said = f"{package} has no {name!r}: {instead}"
    if _imports(sys._getframe(2)):  # which would hide the words of an AttributeError
        return ImportError(said, name=package)
    return AttributeError(said, name=name)


def _imports(frame: types.FrameType) -> bool:
    """Whether the code of a frame is at a ``from ... import``."""
    return frame.f_lasti >= 0 and frame.f_code.co_code[frame.f_lasti] == opcode.opmap["IMPORT_FROM"]
