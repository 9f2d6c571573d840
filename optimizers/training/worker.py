"""The program that a process of `Processes` runs: it imports functions by name and calls them.

Its standard output carries the answers, so what a function prints goes to the standard error. When the
program that started it closes the other end, or dies, it ends at once, whatever a function is doing.
"""

from __future__ import annotations

import importlib
import os
import sys
import threading
from functools import reduce
from queue import SimpleQueue
from typing import Any

from optimizers.training.processes import LIMIT, reader
from tracegraph.sandbox.frames import RESULT, read, write

__all__ = ["main"]


def main(path: list[str]) -> None:
    """Answer calls until the standard input closes; `path` is where modules are found."""
    sys.path[:] = path
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    calls: SimpleQueue[Any] = SimpleQueue()
    threading.Thread(target=_listen, args=(calls,), daemon=True).start()
    while True:
        for part in answered(*calls.get()):
            answers.write(part)
        answers.flush()


def _listen(calls: SimpleQueue[Any]) -> None:
    take = reader(sys.stdin.buffer)
    while True:
        try:
            calls.put(read(take, limit=LIMIT).value)
        except EOFError:
            os._exit(0)


def answered(home: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> list[Any]:
    """The frame that says what a function returned or raised."""
    module, _, name = home.partition(":")
    try:
        function: Any = reduce(getattr, name.split("."), importlib.import_module(module))
        told = ("returned", function(*args, **kwargs))
        return list(write(RESULT, told, limit=LIMIT, name=f"what {home} returned"))
    except Exception as error:
        told = ("raised", f"{type(error).__name__}: {error}"[:10_000])
        return list(write(RESULT, told, limit=LIMIT))


if __name__ == "__main__":
    main(sys.argv[1:])
