"""The program that runs apart: one interpreter, warm and walled in, that forks every child.

It is started with ``python -I``, an empty environment and one descriptor, the control socket.
Over it come requests for children, each with two descriptors: the child's channel, and its
lifeline. When the lifeline's other end closes, the child is killed; when the child ends, its fate
is told over the lifeline. When the control socket closes, the parent is gone, however it went,
and everything ends.

The parent asks for a child before it needs one: that child is forked, walled in and warmed while the
parent does something else. Its clock begins when the parent says that it is in use.

The zygote reads nothing that a child writes.
"""

from __future__ import annotations

import _socket  # the part in C of `socket`, whose other parts would be an eighth of the start
import contextlib
import gc
import json
import math
import os
import select
import signal
import struct
import sys
import time
from typing import Any, NoReturn

from tracegraph.sandbox import confine, seccomp
from tracegraph.sandbox.frames import Channel
from tracegraph.sandbox.serve import OUT_OF_MEMORY, serve

__all__ = ["main"]

_MOST = 1 << 16  # bytes of one control message
_FDS = struct.Struct("2i")  # with each that asks for a child, two descriptors
_LOADED_LATER = {"torch": ("torch.fx.experimental.symbolic_shapes",)}
"""Parts that a package loads at its first use, which every child would wait for: half a second for the
first gradient of torch."""


class _Ward:  # not a dataclass: that module's import would be a quarter of the start
    """A child, and what the zygote holds of it; `number` is the parent's name for it."""

    __slots__ = ("deadline", "lifeline", "number", "pid", "pidfd")

    def __init__(self, number: int, pid: int, pidfd: int, lifeline: int) -> None:
        self.number, self.pid, self.pidfd, self.lifeline = number, pid, pidfd, lifeline
        self.deadline = math.inf


def main(policy: dict[str, Any]) -> NoReturn:
    """Wall this process in as the policy says, report what is active, then serve requests."""
    control = _socket.socket(fileno=policy["fd"])
    confine.expendable()
    wanted = set(policy["layers"])
    layers: dict[str, str] = {}
    missing: dict[str, str] = {}

    def put_on(name: str, layer: Any, *args: Any) -> None:
        if name not in wanted:
            missing[name] = "not wanted by the policy"
            return
        try:
            layers[name] = layer(*args)
        except (confine.Unavailable, OSError) as error:
            missing[name] = str(error)

    put_on("namespaces", confine.namespaces)
    if "namespaces" in layers:
        _become_init(control)
    error = _preload(policy["preload"])
    if "rlimits" in wanted:
        layers["rlimits"] = "memory,cpu,files"
    else:
        missing["rlimits"] = "not wanted by the policy"
    put_on("capabilities", confine.capabilities)
    put_on("landlock", confine.landlock, policy["readable"])
    put_on("undumpable", confine.undumpable)
    put_on("seccomp", _probe_seccomp)
    for name in os.environ.keys() - set(policy["environment"]):
        del os.environ[name]
    control.send(json.dumps({"layers": layers, "missing": missing, "error": error}).encode())
    if error is None:
        zygote = _Zygote(control, policy, layers)
        gc.freeze()  # children share these pages as long as nobody counts their objects again
        gc.enable()
        zygote.run()
    os._exit(0)


def _become_init(control: _socket.socket) -> None:
    """Fork into the new process namespace; the process outside stays to reap the one inside."""
    pid = os.fork()
    if pid:
        control.close()
        os.waitpid(pid, 0)
        os._exit(0)
    confine.die_with_parent()
    if os.getppid() != 0 or os.getpid() != 1:
        os._exit(1)


def _preload(names: list[str]) -> str | None:
    """Import modules; why one could not be, or None."""
    for name in names:
        try:
            __import__(name)
        except Exception as error:
            return f"cannot preload {name!r}: {type(error).__name__}: {error}"
        for part in _LOADED_LATER.get(name, ()):
            with contextlib.suppress(ImportError):
                __import__(part)
    return None


def _probe_seccomp() -> str:
    why = seccomp.available(confine.libc)
    if why is not None:
        raise confine.Unavailable(why)
    return "allow-list"


class _Zygote:
    """The loop: start children, watch them, end them."""

    def __init__(self, control: _socket.socket, policy: dict[str, Any], layers: dict[str, str]):
        self._control, self._policy, self._layers = control, policy, layers
        self._poller = select.poll()
        self._poller.register(control.fileno(), select.POLLIN)
        self._wards: dict[int, _Ward] = {}
        self._filter = seccomp.assemble() if "seccomp" in layers else b""

    def run(self) -> None:
        """Serve until the parent is gone."""
        while True:
            ready = {fd for fd, _ in self._poller.poll(self._patience())}
            for fd in ready & self._wards.keys():
                if fd in self._wards:
                    self._end(self._wards[fd], timed_out=False)
            now = time.monotonic()
            for ward in set(self._wards.values()):
                if ward.deadline <= now:
                    self._end(ward, timed_out=True)
            # Last: a new child may be given descriptors that were closed above.
            if self._control.fileno() in ready and not self._take_request():
                self._end_all()
                return

    def _patience(self) -> float | None:
        nearest = min((ward.deadline for ward in self._wards.values()), default=math.inf)
        return None if nearest == math.inf else max(0.0, nearest - time.monotonic()) * 1000

    def _take_request(self) -> bool:
        message, fds = _received(self._control)
        if not message:
            return False
        request = json.loads(message)
        if "begin" in request:
            self._begin(request["begin"], request["lifetime"], request["cpu"])
        channel, lifeline = fds
        try:
            pid = os.fork()
        except OSError as error:
            _tell(lifeline, {"error": f"fork: {error}"})
            os.close(channel)
            os.close(lifeline)
            return True
        if pid == 0:
            self._be_child(channel)
        os.close(channel)
        ward = _Ward(request["fork"], pid, os.pidfd_open(pid), lifeline)
        for fd in (ward.pidfd, ward.lifeline):
            self._wards[fd] = ward
            self._poller.register(fd, select.POLLIN)
        return True

    def _begin(self, number: int, lifetime: float | None, cpu: float | None) -> None:
        """Start the clocks of a child that is now in use."""
        ward = next((one for one in self._wards.values() if one.number == number), None)
        if ward is None:
            return  # it ended before it was used
        if lifetime is not None:
            ward.deadline = time.monotonic() + lifetime
        if cpu is not None and "rlimits" in self._layers:
            confine.limit_cpu(math.ceil(cpu), pid=ward.pid)

    def _be_child(self, channel: int) -> NoReturn:
        """Wall in the rest, serve, and never come back to the loop."""
        status = 70
        try:
            os.dup2(channel, 3)
            os.closerange(4, 1 << 16)
            self._wards.clear()
            confine.die_with_parent()
            _reseed()
            if "rlimits" in self._layers:
                confine.rlimits(memory_bytes=self._policy["memory_mb"] << 20)
            if "seccomp" in self._layers:
                seccomp.install(confine.libc, seccomp.addressed(self._filter, os.getpid()))
            serve(
                Channel(3, limit=self._policy["max_value"]),
                max_output=self._policy["max_output"],
                rehearsed=True,
            )
            status = 0
        except MemoryError:
            status = OUT_OF_MEMORY
        finally:
            os._exit(status)

    def _end(self, ward: _Ward, *, timed_out: bool) -> None:
        """Kill a child if it still runs, and tell what became of it."""
        for fd in (ward.pidfd, ward.lifeline):
            self._poller.unregister(fd)
            del self._wards[fd]
        os.kill(ward.pid, signal.SIGKILL)  # its number is its own until the next line
        _, status, usage = os.wait4(ward.pid, 0)
        told = {
            "status": os.waitstatus_to_exitcode(status),
            "cpu_seconds": usage.ru_utime + usage.ru_stime,
            "max_rss": usage.ru_maxrss * 1024,
            "timed_out": timed_out,
        }
        _tell(ward.lifeline, told)
        os.close(ward.pidfd)
        os.close(ward.lifeline)

    def _end_all(self) -> None:
        for ward in set(self._wards.values()):
            self._end(ward, timed_out=False)


def _received(control: _socket.socket) -> tuple[bytes, tuple[int, ...]]:
    """One message of the parent's, and the descriptors that came with it."""
    message, rights, _, _ = control.recvmsg(_MOST, _socket.CMSG_SPACE(_FDS.size))
    return message, tuple(fd for _, _, data in rights for fd in _FDS.unpack(data))


def _reseed() -> None:
    """Let random numbers differ from child to child; Python's own do so after every fork."""
    for name in ("numpy.random", "torch"):
        module: Any = sys.modules.get(name)
        if module is not None:
            module.seed()


def _tell(lifeline: int, message: dict[str, Any]) -> None:
    try:
        os.write(lifeline, json.dumps(message).encode())
    except OSError:
        return  # nobody listens any more
