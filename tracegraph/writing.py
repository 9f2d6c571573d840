"""Write a file whole or not at all."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["write_whole"]


def write_whole(path: str | Path, content: bytes) -> None:
    """Write beside `path`, then rename: nobody ever sees half a file.

    Raises:
        OSError: of the type that fits, naming `path`; what was there before is still there.
    """
    from pathlib import Path  # here: what writes no file need not wait for it

    path = Path(path)
    beside = path.with_name(f".{path.name[:80]}.{os.urandom(8).hex()}")
    try:
        beside.write_bytes(content)
        beside.replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # a disk that refuses this too: the first error says why
            beside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise OSError(error.errno, _why(path, error), str(path)) from error
        raise


def _why(path: Path, error: OSError) -> str:
    if isinstance(error, FileNotFoundError | NotADirectoryError):
        return f"there is no folder {str(path.parent)!r} to write into; make it, or choose another"
    if isinstance(error, IsADirectoryError):
        return "a folder has this name; name a file"
    return error.strerror or str(error)
