"""How this program was started, so that it can be started again; and whether it was started so.

What cannot be known is said: a program that was typed at a prompt, run in a notebook, or given a
secret on its command line.
"""

from __future__ import annotations

import hashlib
import multiprocessing
import os
import re
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tracegraph.again import RESUME
from tracegraph.history.redact import says_secret

__all__ = ["again_of", "hash_of", "started"]

_LONGEST = 20_000


def started() -> dict[str, Any]:
    """``argv`` and ``directory`` with which this program was started, and the hash of its script.

    Where that is not known, or not enough, the one key is ``unknown``: why.
    """
    why = _unknown()
    argv = list(_without_secrets(sys.orig_argv))
    if why is None and "[secret]" in argv:
        why = "there was a secret on its command line, which is not kept"
    if why is not None:
        return {"unknown": why}
    script = _script()
    return {
        "argv": [sys.executable or argv[0], *argv[1:]],
        "directory": os.getcwd(),
        **({} if script is None else {"script": str(script), "sha256": hash_of(script)}),
    }


def hash_of(script: Path) -> str:
    """What a script says, as a hash; empty where it cannot be read."""
    try:
        return hashlib.sha256(script.read_bytes()).hexdigest()
    except OSError:
        return ""


def again_of(name: str) -> dict[str, int]:
    """``resumes``: the number of the run of this name that the command line goes on with."""
    number, _, wanted = os.environ.get(RESUME, "").partition(":")
    return {"resumes": int(number)} if wanted == name and number.isdecimal() else {}


def _unknown() -> str | None:
    if "ipykernel" in sys.modules:
        return "it ran in a notebook"
    if multiprocessing.parent_process() is not None:
        return "it ran in a process that another one started"
    words = sys.orig_argv[1:]
    if hasattr(sys, "ps1") or not words or words[-1] == "-":
        return "it was typed in, not started from a file"
    if sum(map(len, words)) > _LONGEST:
        return "its command line is too long to keep"
    return None


def _script() -> Path | None:
    main = sys.modules.get("__main__")
    file = getattr(main, "__file__", None)
    return None if file is None else Path(file).absolute()


def _without_secrets(words: Sequence[str]) -> Iterator[str]:
    """The words, each value of an option whose name says that it is a secret replaced."""
    hidden = False
    for word in words:
        name, equals, _ = word.partition("=")
        option = re.match(r"--?[A-Za-z]", word) is not None
        if (hidden and not option) or (option and equals and says_secret(name)):
            yield "[secret]"
        else:
            yield word
        hidden = option and not equals and says_secret(word)
