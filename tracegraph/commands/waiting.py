"""Say that something takes a while: a moving line on a terminal, plain lines elsewhere.

Nothing is said, and nothing loaded, for what is done within a second. All of it goes to stderr.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

__all__ = ["waiting"]

_SILENT = 1.0
_EVERY = 5.0


@contextmanager
def waiting(what: str, stream: TextIO | None = None) -> Iterator[None]:
    """Tell a person that `what` goes on, for as long as the block does."""
    done = threading.Event()
    out = sys.stderr if stream is None else stream
    teller = threading.Thread(target=_tell, args=(what, out, done), daemon=True)
    teller.start()
    try:
        yield
    finally:
        done.set()
        teller.join()


def _tell(what: str, out: TextIO, done: threading.Event) -> None:
    began = time.monotonic()
    if done.wait(_SILENT):
        return
    if out.isatty():
        from rich.console import Console
        from rich.status import Status
        from rich.text import Text

        with Status(Text(what), console=Console(file=out)):
            done.wait()
        return
    while not done.is_set():
        out.write(f"{what}, {time.monotonic() - began:.0f} s so far\n")
        out.flush()
        done.wait(_EVERY)
