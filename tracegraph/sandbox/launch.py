"""Start the program behind the wall, and children in it; notice when either is gone."""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from tracegraph.errors import SandboxError
from tracegraph.forking import in_forked, new_lock, still_at_fork
from tracegraph.sandbox.frames import Channel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tracegraph.sandbox.frames import Wire
    from tracegraph.sandbox.policy import Policy
    from tracegraph.sandbox.values import Buffer

__all__ = [
    "BOOTSTRAP",
    "Child",
    "Fate",
    "Gone",
    "Launcher",
    "Plain",
    "Process",
    "Zygote",
    "packages_under",
    "visible",
]

_START_SECONDS, _END_SECONDS = 60.0, 5.0
_FATE_BYTES = 4096
_NO_SIGNAL = getattr(socket, "MSG_NOSIGNAL", 0)
_PACKAGE = Path(__file__).parents[1]
_ENVIRONMENT = {
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "LC_ALL": "C.UTF-8",
}
_SYSTEM_LIBRARIES = (
    "/lib",
    "/lib64",
    "/usr/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/etc/ld.so.cache",
    "/usr/share/zoneinfo",
    "/etc/localtime",
    "/dev/null",
    "/dev/zero",
    "/dev/random",
    "/dev/urandom",
)
# Run by `python -I -S`: packages by path and without their __init__, so that nothing else is
# loaded.
# Nothing that they make while they load is garbage, so nobody looks for it until they serve.
BOOTSTRAP = """
import gc
gc.disable()
import json, sys, types
from importlib import import_module
program, settings = sys.argv[1], json.loads(sys.argv[2])
sys.path += settings["search"]
for name, path in settings["packages"].items():
    sys.modules[name] = types.ModuleType(name)
    sys.modules[name].__path__ = [path]
import_module("tracegraph.sandbox." + program).main(settings)
"""


@dataclass(frozen=True, slots=True)
class Fate:
    """How a child ended: exit code, or minus a signal's number; seconds of CPU, bytes of memory.

    The last two are the kernel's own count, None where nobody asked it.
    """

    status: int
    cpu_seconds: float | None
    max_rss: int | None
    timed_out: bool


class Child(Protocol):
    """What runs code, as its owner sees it."""

    @property
    def channel(self) -> Wire:
        """Where its frames come and go."""
        ...

    def end(self) -> Fate | None:
        """Kill it and learn its fate; None where that cannot be known."""
        ...

    def close(self) -> None:
        """Kill it, whatever it is doing."""
        ...


_pairs: weakref.WeakSet[socket.socket] = weakref.WeakSet()
_pairing = threading.RLock()
still_at_fork(_pairing)


def _pair(kind: int = socket.SOCK_STREAM) -> tuple[socket.socket, socket.socket]:
    """Two sockets that are connected. A forked process closes its copies: an end is seen at once."""
    with _pairing:
        pair = socket.socketpair(socket.AF_UNIX, kind)
        _pairs.update(pair)
    return pair


@in_forked
def _close_copies() -> None:
    for one in list(_pairs):
        one.close()


class Process:
    """A process behind the wall: a channel, and a lifeline.

    Closing the lifeline kills it; so does the end of this process, however it comes.
    """

    def __init__(self, channel: socket.socket, lifeline: socket.socket, *, limit: int) -> None:
        channel.setblocking(False)
        self._socket, self._lifeline = channel, lifeline
        put = functools.partial(_put, channel)  # not a method: that would tie a cycle
        self.channel = Channel(channel.fileno(), limit=limit, put=put)

    def end(self) -> Fate | None:
        """Kill the process and learn its fate; None where the zygote died with it."""
        try:
            self._lifeline.settimeout(_END_SECONDS)
            self._lifeline.shutdown(socket.SHUT_WR)
            told = self._lifeline.recv(_FATE_BYTES)
        except OSError:
            told = b""
        finally:
            self.close()
        if not told:
            return None
        fate = json.loads(told)
        if "error" in fate:
            raise SandboxError(f"the sandbox could not start a child: {fate['error']}")
        return Fate(**fate)

    def close(self) -> None:
        """Kill the process and wait for nothing."""
        self._socket.close()
        self._lifeline.close()


def _put(channel: socket.socket, buffers: list[Buffer]) -> int:
    """Send what can be sent; where SIGPIPE is not ignored, a child that hangs up ends nobody with it."""
    if len(buffers) == 1:  # most have one, and this takes less than the other
        return channel.send(buffers[0], _NO_SIGNAL)
    return channel.sendmsg(buffers, (), _NO_SIGNAL)


class Launcher(Protocol):
    """Starts children."""

    layers: dict[str, str]
    missing: dict[str, str]

    def spawn(self, *, lifetime: float | None, cpu: float | None, source: str) -> Child:
        """A new child for `source`, killed after `lifetime` seconds of wall clock or `cpu` of processor."""
        ...

    def close(self) -> None:
        """End every child and the launcher."""
        ...


class Gone(Exception):
    """The zygote has ended; nothing was started."""


class Zygote:
    """The walled-in program from which children are forked.

    Args:
        policy: its limits.
        prefix: what to put before the command, for an outer wall such as bubblewrap.

    Raises:
        SandboxError: where it does not start, or lacks a layer that the policy requires.
    """

    def __init__(self, policy: Policy, *, prefix: Sequence[str] = ()) -> None:
        self._policy = policy
        self._control, inside = _pair(socket.SOCK_SEQPACKET)
        self._forking = new_lock()  # held while a child is asked for, and while the end is told
        try:
            process = _start("zygote", policy, inside.fileno(), prefix=prefix)
        except SandboxError:
            self._control.close()
            raise
        finally:
            inside.close()
        self._numbers = itertools.count()
        self._spare: list[tuple[int, Process]] = []
        self._finalizer = weakref.finalize(self, _shut, self._control, process, self._spare)
        try:
            self.layers, self.missing = self._introduce()
            self._spare.append(self._forked({}))
        except Gone as error:
            self.close()
            raise SandboxError("the sandbox ended as soon as it had started") from error
        except BaseException:
            self.close()
            raise

    def _introduce(self) -> tuple[dict[str, str], dict[str, str]]:
        self._control.settimeout(_START_SECONDS)
        try:
            hello = self._control.recv(1 << 16)
        except OSError as error:
            raise SandboxError(f"the sandbox did not start: {error}") from error
        if not hello:
            raise SandboxError("the sandbox did not start: its interpreter ended at once")
        told = json.loads(hello)
        if told["error"] is not None:
            raise SandboxError(
                f"the sandbox did not start: {told['error']}; change Policy.preload, or install it"
            )
        lacking = {
            name: told["missing"][name] for name in self._policy.require if name in told["missing"]
        }
        if lacking:
            why = "; ".join(f"{name} ({reason})" for name, reason in lacking.items())
            raise SandboxError(f"the policy requires layers that this system does not have: {why}")
        return told["layers"], told["missing"]

    def spawn(self, *, lifetime: float | None, cpu: float | None, source: str) -> Process:
        """A child that nobody has used: the spare one, in whose place another is forked.

        Raises:
            Gone: where the zygote has ended.
        """
        with self._forking:
            number, child = self._spare.pop() if self._spare else self._forked({})
            try:
                limits = {"begin": number, "lifetime": lifetime, "cpu": cpu}
                self._spare.append(self._forked(limits))
            except BaseException:
                child.close()
                raise
            return child

    def _forked(self, request: dict[str, Any]) -> tuple[int, Process]:
        """Have a child forked, in one message with what else the zygote shall do."""
        number = next(self._numbers)
        ours, theirs = _pair()
        lifeline, its_end = _pair()
        child = Process(ours, lifeline, limit=self._policy.max_value)
        message = json.dumps({**request, "fork": number}).encode()
        try:
            socket.send_fds(
                self._control, [message], [theirs.fileno(), its_end.fileno()], _NO_SIGNAL
            )
        except OSError as error:
            child.close()
            raise Gone from error
        finally:
            theirs.close()
            its_end.close()
        return number, child

    def is_alive(self) -> bool:
        """Whether the zygote still listens."""
        with self._forking:
            if not self._finalizer.alive:
                return False
            ended = select.poll()  # not select(), which takes no descriptor above 1023
            ended.register(self._control, select.POLLIN)
            return not ended.poll(0)

    def close(self) -> None:
        """End the zygote and every child of it; wait until they are gone."""
        with self._forking:
            self._finalizer()

    def forget(self) -> None:
        """In a process forked from the owner: leave it to the owner."""
        detached = self._finalizer.detach()
        if detached is not None:
            detached[2][1].returncode = 0  # it is the owner's to wait for


def _close(spare: list[tuple[int, Process]]) -> None:
    while spare:
        spare.pop()[1].close()


def _shut(
    control: socket.socket, process: subprocess.Popen[bytes], spare: list[tuple[int, Process]]
) -> None:
    _close(spare)
    control.close()  # the zygote sees it, and ends itself and all its children
    try:
        process.wait(_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Plain:
    """A new, ordinary process for every child: another address space and a clock, no walls."""

    layers: dict[str, str]
    missing: dict[str, str]

    def __init__(self, policy: Policy) -> None:
        if os.name != "posix":
            raise SandboxError(
                f"code cannot run apart on {sys.platform}: use Linux, or run it in place"
            )
        self._policy = policy
        self.layers = {}
        self.missing = dict.fromkeys(policy.require, "a plain process has no layers")
        if self.missing:
            raise SandboxError(
                f"the policy requires {policy.require}; a plain process has no layers"
            )

    def spawn(self, *, lifetime: float | None, cpu: float | None, source: str) -> Process:
        """Start a process; the owner's clock alone limits it."""
        ours, theirs = _pair()
        try:
            process = _start("plain", self._policy, theirs.fileno())
        except SandboxError:
            ours.close()
            raise
        finally:
            theirs.close()
        return _PlainChild(ours, process, self._policy)

    def close(self) -> None:
        """Nothing runs between calls."""


class _PlainChild(Process):
    def __init__(self, channel: socket.socket, process: subprocess.Popen[bytes], policy: Policy):
        super().__init__(channel, channel, limit=policy.max_value)
        self._process = process

    def end(self) -> Fate | None:
        self.close()
        return Fate(self._process.returncode, None, None, False)

    def close(self) -> None:
        super().close()
        if self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()


def _start(
    program: str, policy: Policy, fd: int, *, prefix: Sequence[str] = ()
) -> subprocess.Popen[bytes]:
    """Start one of this package's programs, given one descriptor and nothing else of ours."""
    settings = policy.as_dict() | {
        "fd": fd,
        "environment": list(_ENVIRONMENT),
        "search": _packages(),
        "packages": packages_under(),
        "readable": _readable(policy),
    }
    python = [sys.executable, "-I", "-S", "-c", BOOTSTRAP, program, json.dumps(settings)]
    try:
        return subprocess.Popen(
            [*prefix, *python],
            env=_environment(),
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            pass_fds=(fd,),
            start_new_session=True,
        )
    except OSError as error:
        raise SandboxError(f"the sandbox's interpreter did not start: {error}") from error


def packages_under(folder: str = str(_PACKAGE)) -> dict[str, str]:
    """The packages that the programs behind the wall are made of, by name, where `folder` is ours."""
    return {"tracegraph": folder, "tracegraph.sandbox": f"{folder}/sandbox"}


def _environment() -> dict[str, str]:
    """Nothing of the owner's, but where the loader looks for libraries."""
    kept = {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ}
    return _ENVIRONMENT | kept


def visible(policy: Policy) -> list[str]:
    """What an outer wall must show for the interpreter to start."""
    devices = [path for path in _readable(policy) if not path.startswith("/dev/")]
    return list(dict.fromkeys([*devices, sys.prefix, sys.base_prefix, str(_PACKAGE)]))


def _readable(policy: Policy) -> list[str]:
    """Python's own files, and what the policy names."""
    paths = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib")]
    paths += [*_packages(), os.path.join(sys.base_prefix, "lib"), *_SYSTEM_LIBRARIES]
    return list(dict.fromkeys([*paths, *map(os.path.abspath, policy.read)]))


def _packages() -> list[str]:
    """The folders of installed packages that this process imports from; never a project's own."""
    found = [sysconfig.get_path(name) for name in ("purelib", "platlib")]
    for path in sys.path:  # more where an environment stands on another one
        if os.path.basename(path) in ("site-packages", "dist-packages") and os.path.isdir(path):
            found.append(os.path.abspath(path))
    return list(dict.fromkeys(found))
