"""Targets for atheris: ``python -m tests.sandbox.fuzzing reader corpus -max_total_time=60``.

Each is a law about what strangers write: the reader of frames, what is made of a failure that a child
tells, and the checks of new code. A target raises where its law is broken.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import atheris

with atheris.instrument_imports(
    include=["tracegraph.sandbox", "tracegraph.source", "tracegraph.codechecks"]
):
    from tracegraph.codechecks import AllowedImports, MaxComplexity, MaxSize
    from tracegraph.errors import SandboxError
    from tracegraph.marking import BadSource
    from tracegraph.sandbox.frames import RESULT, write
    from tracegraph.sandbox.result import failure_from, rebuilt
    from tracegraph.source import Source

from tests.sandbox.test_values import FORGED, LIMIT, frame, read_all, same

__all__ = ["SEEDS", "TARGETS"]

SOURCE = "def f(x):\n    return x + 1\n"


def original(x: int) -> int:
    return x + 1


MINE = Source.of(original, lambda found: False)


def reader(data: bytes) -> None:
    """Bytes are refused, or are a value that travels again as it is."""
    try:
        value = read_all(data)[0].value
    except (SandboxError, EOFError):
        return
    sent = b"".join(bytes(part) for part in write(RESULT, value, limit=4 * LIMIT))
    if not same(read_all(sent, limit=4 * LIMIT)[0].value, value):
        raise AssertionError(f"{value!r} changed on its way")


def failure(data: bytes) -> None:
    """Whatever a child tells of its failure becomes a bounded text and an exception."""
    try:
        told = read_all(data)[0].value
    except (SandboxError, EOFError):
        return
    found = failure_from(told, SOURCE, "f")
    error = rebuilt(told, found)
    if not isinstance(error, Exception) or len(str(found)) > 20_000:
        raise AssertionError(f"{told!r} became {error!r} and {found!r}")


def checks(data: bytes) -> None:
    """A text is taken or refused with a reason, and a line that it has."""
    text = atheris.FuzzedDataProvider(data).ConsumeUnicode(len(data))
    for check in (MINE.replaced, AllowedImports("math"), MaxSize(lines=5), MaxComplexity(3)):
        try:
            check(text)
        except BadSource as error:
            if not error.reason or (error.line is not None and error.line < 0):
                raise AssertionError(f"{text!r} was refused without a reason") from error


TARGETS = {"reader": reader, "failure": failure, "checks": checks}
_FAILURE = (
    '{"dict":["failure",{"dict":["type","E","builtin",["ValueError"],"message","m","args",["a",1],"host",0,'
    '"line",1,"locals",{"dict":["x","1"]},"traceback",[[1,"f"]]]}]}'
)
SEEDS: dict[str, list[bytes]] = {
    "reader": [
        *FORGED.values(),
        *(b"".join(map(bytes, write(RESULT, v, limit=LIMIT))) for v in ([1, "a"], {"x": b"y"}, 2j)),
    ],
    "failure": [frame(_FAILURE), frame('{"dict":["line",7,"locals",[1]]}')],
    "checks": [
        b"\x01" + text.encode()
        for text in (
            SOURCE,
            "import os\nfrom . import x",
            "def f(x: int) -> int:\n    if x: pass",
            "(" * 99,
        )
    ],
}


def main(argv: list[str]) -> Any:
    """Fuzz one target, from its seeds in the folder that is named second."""
    _, name, folder, *options = argv
    for number, seed in enumerate(SEEDS[name]):
        (Path(folder) / f"seed{number}").write_bytes(seed[:4096])
    atheris.Setup([argv[0], folder, *options], TARGETS[name])
    atheris.Fuzz()


if __name__ == "__main__":
    main(sys.argv)
