"""The walls around code that nobody vouches for, each from the kernel, each put on once.

Each function puts on one layer, in the process that calls it, and cannot be undone. It raises
`Unavailable` where the system does not have it; the caller decides whether to go on without it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = [
    "Unavailable",
    "capabilities",
    "die_with_parent",
    "expendable",
    "landlock",
    "libc",
    "limit_cpu",
    "namespaces",
    "rlimits",
    "undumpable",
]

libc = ctypes.CDLL(None, use_errno=True)


class Unavailable(Exception):
    """The system does not have a layer; the text says why."""


def _check(result: int, what: str) -> int:
    if result < 0:
        raise Unavailable(f"{what}: {os.strerror(ctypes.get_errno())}")
    return result


_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP = 1, 4, 24
_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
_CAPABILITY_VERSION_3 = 0x20080522

_NEW_UTS, _NEW_IPC, _NEW_USER, _NEW_PID, _NEW_NET = (
    0x04000000,
    0x08000000,
    0x10000000,
    0x20000000,
    0x40000000,
)


def die_with_parent() -> None:
    """Be killed when the thread that started this process ends."""
    _check(libc.prctl(_PR_SET_PDEATHSIG, 9, 0, 0, 0), "PR_SET_PDEATHSIG")


def expendable() -> None:
    """Be the first that the kernel ends where memory runs out, as is every process forked from here."""
    with contextlib.suppress(OSError):  # no /proc is there
        fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
        try:
            os.write(fd, b"1000")
        finally:
            os.close(fd)


def namespaces() -> str:
    """An empty network, no memory shared with others; after the next fork, no other process."""
    wanted = _NEW_NET | _NEW_IPC | _NEW_UTS | _NEW_PID
    if libc.unshare(wanted) == 0:
        return "net,ipc,uts,pid"
    _check(libc.unshare(_NEW_USER | wanted), "unshare")
    return "user,net,ipc,uts,pid"


def capabilities() -> str:
    """No privileges, and no way to gain any by running a program."""
    if not hasattr(libc, "capset"):
        raise Unavailable("capset: not on this system")
    _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")
    libc.prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    for number in range(64):
        libc.prctl(
            _PR_CAPBSET_DROP, number, 0, 0, 0
        )  # fails without the right to, or past the last
    header = ctypes.create_string_buffer(struct.pack("Ii", _CAPABILITY_VERSION_3, 0))
    _check(libc.capset(header, ctypes.create_string_buffer(24)), "capset")
    return "none,no_new_privs"


def undumpable() -> str:
    """No other process may read this one's memory, and it leaves no core file."""
    _check(libc.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0), "PR_SET_DUMPABLE")
    return "yes"


_LANDLOCK_CREATE, _LANDLOCK_ADD, _LANDLOCK_RESTRICT = 444, 445, 446
_LANDLOCK_VERSION, _LANDLOCK_PATH = 1, 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16}  # how many kinds of access each version can refuse
_TCP, _SCOPES = 0b11, 0b11  # bind, connect; abstract sockets, signals


def landlock(readable: Iterable[str]) -> str:
    """Only `readable` may be read, no file written; no TCP, no signals to the outside."""
    version = _check(libc.syscall(_LANDLOCK_CREATE, None, 0, _LANDLOCK_VERSION), "landlock")
    attributes = [(1 << _RIGHTS.get(version, 16)) - 1]
    if version >= 4:
        attributes.append(_TCP)
    if version >= 6:
        attributes.append(_SCOPES)
    packed = struct.pack(f"{len(attributes)}Q", *attributes)
    ruleset = libc.syscall(_LANDLOCK_CREATE, packed, ctypes.c_size_t(len(packed)), 0)
    _check(ruleset, "landlock_create_ruleset")
    try:
        for path in readable:
            _allow(ruleset, path)
        _check(libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")
        _check(libc.syscall(_LANDLOCK_RESTRICT, ruleset, 0), "landlock_restrict_self")
    finally:
        os.close(ruleset)
    return f"abi{version}"


def _allow(ruleset: int, path: str) -> None:
    try:
        fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EACCES, errno.ENOTDIR):
            return  # what is not there, or out of reach, needs no rule
        raise
    try:
        rights = _READ_FILE | _READ_DIR if os.path.isdir(path) else _READ_FILE
        rule = struct.pack("=Qi", rights, fd)
        _check(libc.syscall(_LANDLOCK_ADD, ruleset, _LANDLOCK_PATH, rule, 0), "landlock_add_rule")
    finally:
        os.close(fd)


def rlimits(*, memory_bytes: int) -> str:
    """Bounds on memory and open files; no writing of files, no core files, no locked memory."""
    limits = {
        resource.RLIMIT_AS: memory_bytes,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: 64,
        resource.RLIMIT_MEMLOCK: 0,
    }
    try:
        for kind, most in limits.items():
            hard = resource.getrlimit(kind)[1]
            least = most if hard == resource.RLIM_INFINITY else min(most, hard)
            resource.setrlimit(kind, (least, least))
    except (ValueError, OSError) as error:
        raise Unavailable(f"setrlimit: {error}") from None
    return "memory,cpu,files"


def limit_cpu(seconds: int, *, pid: int | None = None) -> None:
    """Bound the processor time of this or another process: first SIGXCPU, then SIGKILL."""
    kind = resource.RLIMIT_CPU
    hard = (resource.getrlimit(kind) if pid is None else resource.prlimit(pid, kind))[1]
    most = seconds + 1 if hard == resource.RLIM_INFINITY else min(seconds + 1, hard)
    limits = (min(seconds, most), most)
    if pid is None:
        resource.setrlimit(kind, limits)
    else:
        resource.prlimit(pid, kind, limits)
