"""Which sandbox to use: by name, or anything of the same shape."""

from __future__ import annotations

import shutil
import sys
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from tracegraph.errors import MissingExtra, SandboxError, nearest
from tracegraph.sandbox.box import Host, Sandbox
from tracegraph.sandbox.inplace import InPlace
from tracegraph.sandbox.launch import visible
from tracegraph.sandbox.policy import Policy
from tracegraph.sandbox.result import Result

__all__ = ["Runner", "check", "open_sandbox"]


class Runner(Protocol):
    """What runs source text; `Sandbox` says what each part means."""

    @property
    def layers(self) -> Mapping[str, str]:
        """The layers that are active."""
        ...

    def call(
        self,
        source: str,
        entry: str,
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
        *,
        host: Host | None = None,
        fresh: bool = True,
    ) -> Result:
        """Run one call."""
        ...

    def map(
        self,
        source: str,
        entry: str,
        many: Iterable[Sequence[Any]],
        *,
        host: Host | None = None,
        fresh: bool = False,
    ) -> list[Result]:
        """Run one call for each tuple of arguments."""
        ...

    def close(self) -> None:
        """End every process."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


def open_sandbox(which: str | Runner = "isolated", policy: Policy | None = None) -> Runner:
    """The sandbox of a name, or your own.

    "isolated" is the one to use; "bwrap" has bubblewrap around it; "wasm" is an interpreter in
    WebAssembly, for any system; "none" runs code in this process.

    Where the system has no walls, "isolated" is a plain process, with a RuntimeWarning.

    Raises:
        MissingExtra: where "bwrap" or "wasm" needs what is not installed.
        SandboxError: for another name.

    >>> open_sandbox("none").call("def f():\\n    return 7\\n", "f").value
    7
    """
    check(which)
    return _BY_NAME[which](policy) if isinstance(which, str) else which


def check(which: object) -> None:
    """Refuse what `open_sandbox` refuses, and open nothing.

    Raises:
        SandboxError: for a name of no sandbox, or an object that is none.

    >>> check("isolatd")
    Traceback (most recent call last):
    tracegraph.errors.SandboxError: no sandbox 'isolatd' (did you mean 'isolated'?); choose one of ...
    """
    if isinstance(which, str):
        if which not in _BY_NAME:
            near = nearest(which, _BY_NAME)
            meant = f" (did you mean {near!r}?)" if near else ""
            raise SandboxError(f"no sandbox {which!r}{meant}; choose one of {', '.join(_BY_NAME)}")
        return
    kind: type = type(which)
    lacking = [name for name in ("call", "map", "close") if not hasattr(kind, name)]
    if lacking:
        raise SandboxError(
            f"a sandbox of your own needs {', '.join(lacking)}; got {repr(which)[:100]}"
        )


def _has_walls() -> bool:
    return sys.platform == "linux"


def _isolated(policy: Policy | None) -> Sandbox:
    if _has_walls():
        return Sandbox(policy)
    warnings.warn(
        f"{sys.platform} has none of the sandbox's walls: code runs in a plain process, which can "
        "read and write your files and use the network; Policy(require=('landlock',)) refuses to",
        RuntimeWarning,
        stacklevel=3,
    )
    return Sandbox(policy, walls="plain")


def _bubblewrapped(policy: Policy | None) -> Sandbox:
    found = shutil.which("bwrap")
    if found is None:
        raise MissingExtra("'bwrap' needs bubblewrap: install the package of that name")
    # Not --die-with-parent: that is tied to the thread which starts it. The control socket is not.
    outer = [found, "--unshare-all", "--new-session", "--dev", "/dev"]
    for path in visible(policy or Policy()):
        outer += ["--ro-bind-try", path, path]
    return Sandbox(policy, prefix=outer)


_BY_NAME: dict[str, Callable[[Policy | None], Runner]] = {
    "isolated": _isolated,
    "bwrap": _bubblewrapped,
    "wasm": lambda policy: Sandbox(policy, walls="wasm"),
    "none": InPlace,
}
