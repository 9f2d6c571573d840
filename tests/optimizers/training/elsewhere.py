"""Functions of plain values that other processes can import."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any


def greeted(values: dict[str, Any], name: str) -> str:
    """The word and the name."""
    return f"{values['word']} {name}"


def slow_for_bob(values: dict[str, Any], name: str) -> str:
    """Leaves its process's number where the word says, and hangs for Bob."""
    if name == "Bob":
        Path(values["word"]).write_text(str(os.getpid()))
        while True:
            time.sleep(0.01)
    return f"hello {name}"


def fails_for_bob(values: dict[str, Any], name: str) -> str:
    """Raises for Bob, and dies for Eve."""
    if name == "Eve":
        os._exit(3)
    if name == "Bob":
        raise KeyError("no such name")
    print("what is printed does not harm the answers")  # noqa: T201
    return f"{values['word']} {name}"


def takes_a_moment(values: dict[str, Any], name: str) -> str:
    """Sleeps before it answers."""
    time.sleep(0.5)
    return f"{values['word']} {name}"


def waits_for_bob(values: dict[str, Any], name: str) -> str:
    """Never answers for Bob, until a file says that nobody waits any more."""
    end = Path(values["word"]).with_suffix(".end")
    while name == "Bob" and not end.exists():
        time.sleep(0.01)
    return f"hello {name}"


def beats(path: str) -> None:
    """Writes on and on."""
    while True:
        with Path(path).open("a") as file:
            file.write(".")
        time.sleep(0.01)
