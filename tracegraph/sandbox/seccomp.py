"""The calls of the system that confined code may make: an allow-list, as a seccomp filter.

Numbers are those of Linux's ``asm/unistd_64.h`` (x86_64) and ``asm-generic/unistd.h`` (aarch64).
What is not on the list fails with EPERM; `clone3` and `openat2` fail with ENOSYS, so that
libraries fall back to calls whose arguments a filter can read. There is no way to make a process,
a thread, a socket to elsewhere, or a change to any file.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import NamedTuple

from tracegraph.errors import SandboxError

__all__ = [
    "ARCHITECTURES",
    "Architecture",
    "Instruction",
    "addressed",
    "assemble",
    "available",
    "install",
    "packed",
    "program",
]


class Instruction(NamedTuple):
    """One instruction of the classic Berkeley packet filter."""

    code: int
    if_true: int
    if_false: int
    operand: int


class Architecture(NamedTuple):
    """What a filter must know of a machine: its audit number and its numbers of the calls."""

    audit: int
    numbers: dict[str, int]


def _numbers(text: str) -> dict[str, int]:
    return {name: int(number) for name, number in (item.split("=") for item in text.split())}


_X86_64 = _numbers(
    """
    read=0 write=1 readv=19 writev=20 pread64=17 pwrite64=18 close=3 close_range=436 fstat=5
    newfstatat=262 stat=4 lstat=6 statx=332 lseek=8 mmap=9 munmap=11 mremap=25 mprotect=10
    madvise=28 brk=12 membarrier=324 mincore=27 rt_sigaction=13 rt_sigprocmask=14
    rt_sigreturn=15 rt_sigpending=127 rt_sigtimedwait=128 rt_sigsuspend=130 sigaltstack=131
    restart_syscall=219 pause=34 alarm=37 getitimer=36 setitimer=38 futex=202
    set_robust_list=273 get_robust_list=274 rseq=334 set_tid_address=218 sched_yield=24
    sched_getaffinity=204 poll=7 ppoll=271 select=23 pselect6=270 epoll_create=213
    epoll_create1=291 epoll_ctl=233 epoll_wait=232 epoll_pwait=281 epoll_pwait2=441 eventfd2=290
    pipe=22 pipe2=293 dup=32 dup2=33 dup3=292 getpid=39 gettid=186 getppid=110 getpgrp=111
    getpgid=121 getsid=124 getuid=102 geteuid=107 getgid=104 getegid=108 getresuid=118
    getresgid=120 getgroups=115 uname=63 getcwd=79 getrandom=318 sysinfo=99 getrusage=98
    times=100 getcpu=309 clock_gettime=228 clock_getres=229 clock_nanosleep=230 nanosleep=35
    gettimeofday=96 time=201 getrlimit=97 readlink=89 readlinkat=267 access=21 faccessat=269
    faccessat2=439 getdents64=217 getdents=78 fstatfs=138 statfs=137 recvfrom=45 getsockname=51
    getpeername=52 getsockopt=55 shutdown=48 wait4=61 waitid=247 exit=60 exit_group=231
    fadvise64=221 open=2 openat=257 fcntl=72 ioctl=16 kill=62 tgkill=234 prctl=157 prlimit64=302
    socketpair=53 sendto=44 clone3=435 openat2=437
    """
)

_AARCH64 = _numbers(
    """
    read=63 write=64 readv=65 writev=66 pread64=67 pwrite64=68 close=57 close_range=436 fstat=80
    newfstatat=79 statx=291 lseek=62 mmap=222 munmap=215 mremap=216 mprotect=226 madvise=233
    brk=214 membarrier=283 mincore=232 rt_sigaction=134 rt_sigprocmask=135 rt_sigreturn=139
    rt_sigpending=136 rt_sigtimedwait=137 rt_sigsuspend=133 sigaltstack=132 restart_syscall=128
    getitimer=102 setitimer=103 futex=98 set_robust_list=99 get_robust_list=100 rseq=293
    set_tid_address=96 sched_yield=124 sched_getaffinity=123 ppoll=73 pselect6=72
    epoll_create1=20 epoll_ctl=21 epoll_pwait=22 epoll_pwait2=441 eventfd2=19 pipe2=59 dup=23
    dup3=24 getpid=172 gettid=178 getppid=173 getpgid=155 getsid=156 getuid=174 geteuid=175
    getgid=176 getegid=177 getresuid=148 getresgid=150 getgroups=158 uname=160 getcwd=17
    getrandom=278 sysinfo=179 getrusage=165 times=153 getcpu=168 clock_gettime=113
    clock_getres=114 clock_nanosleep=115 nanosleep=101 gettimeofday=169 getrlimit=163
    readlinkat=78 faccessat=48 faccessat2=439 getdents64=61 fstatfs=44 statfs=43 recvfrom=207
    getsockname=204 getpeername=205 getsockopt=209 shutdown=210 wait4=260 waitid=95 exit=93
    exit_group=94 fadvise64=223 openat=56 fcntl=25 ioctl=29 kill=129 tgkill=131 prctl=167
    prlimit64=261 socketpair=199 sendto=206 clone3=435 openat2=437
    """
)

ARCHITECTURES = {
    "x86_64": Architecture(0xC000003E, _X86_64),
    "aarch64": Architecture(0xC00000B7, _AARCH64),
}

_UNKNOWN_TO_FILTERS = ("clone3", "openat2")

# Where in `struct seccomp_data` things lie; an argument's low half comes first on both machines.
_NUMBER, _ARCHITECTURE, _ARGUMENTS = 0, 4, 16
_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_EQUAL, _AT_LEAST, _JUMP = 0x15, 0x35, 0x05
_FARTHEST = 255  # how many instructions a comparison can skip
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000

_WRITING = 0o3 | 0o100 | 0o1000 | 0o20000000  # access mode, O_CREAT, O_TRUNC, O_TMPFILE's own bit
_FCNTL = (0, 1, 2, 3, 4, 1030)  # F_DUPFD, F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_DUPFD_CLOEXEC
_IOCTL = (0x5401, 0x5450, 0x5451, 0x5421)  # TCGETS, FIONCLEX, FIOCLEX, FIONBIO
_PRCTL = (15, 16)  # PR_SET_NAME, PR_GET_NAME
_UNIX, _STREAM, _TYPE = 1, 1, 0xF
_SENDING = 0x4040  # MSG_DONTWAIT, MSG_NOSIGNAL; not MSG_OOB, whose code in the kernel has had holes
_RECEIVING = _SENDING | 0x102  # MSG_PEEK, MSG_WAITALL
# SO_TYPE, SO_ERROR, SO_SNDBUF, SO_RCVBUF, SO_PROTOCOL, SO_DOMAIN; not SO_PEERPIDFD
_SOCKET = (3, 4, 7, 8, 38, 39)
_NOBODY = 0x7ABCDEF1  # stands for the process to be confined; larger than any process number


def _low(argument: int) -> Instruction:
    return Instruction(_LOAD, 0, 0, _ARGUMENTS + 8 * argument)


def _high(argument: int) -> Instruction:
    return Instruction(_LOAD, 0, 0, _ARGUMENTS + 8 * argument + 4)


def _give(verdict: int) -> Instruction:
    return Instruction(_RETURN, 0, 0, verdict)


_REFUSE = _give(_ERROR | errno.EPERM)
_PASS = _give(_ALLOW)


def _only(argument: int, values: tuple[int, ...], *, mask: int | None = None) -> list[Instruction]:
    """Pass where the (masked) low half of an argument is one of `values`, else refuse."""
    code = [_low(argument)]
    if mask is not None:
        code.append(Instruction(_AND, 0, 0, mask))
    for value in values:
        code += [Instruction(_EQUAL, 0, 1, value), _PASS]
    return [*code, _REFUSE]


def _no_more_than(argument: int, flags: int) -> list[Instruction]:
    """Pass where the low half of an argument has none but these flags, else refuse."""
    return _only(argument, (0,), mask=~flags & 0xFFFFFFFF)


def _null(argument: int) -> list[Instruction]:
    """Refuse where an argument, a pointer, is not zero in both halves."""
    nonzero = [Instruction(_EQUAL, 1, 0, 0), _REFUSE]
    return [_low(argument), *nonzero, _high(argument), *nonzero]


def _conditions(pid: int) -> dict[str, list[Instruction]]:
    """What the arguments of a call must be, for calls that are only partly allowed."""
    stream = [_low(0), Instruction(_EQUAL, 1, 0, _UNIX), _REFUSE, *_only(1, (_STREAM,), mask=_TYPE)]
    return {
        "open": _no_more_than(1, ~_WRITING),
        "openat": _no_more_than(2, ~_WRITING),
        "fcntl": _only(1, _FCNTL),
        "ioctl": _only(1, _IOCTL),
        "prctl": _only(0, _PRCTL),
        "kill": _only(0, (pid,)),
        "tgkill": _only(0, (pid,)),
        "prlimit64": [*_null(2), _PASS],  # reads a limit, sets none
        "socketpair": stream,
        "sendto": [*_null(4), *_no_more_than(3, _SENDING)],  # to the other end only
        "recvfrom": _no_more_than(3, _RECEIVING),
        "getsockopt": _only(2, _SOCKET),
    }


def program(machine: Architecture, *, pid: int) -> list[Instruction]:
    """The filter for the process `pid`, which may send signals to itself alone."""
    conditions = _conditions(pid)
    bodies = {number: conditions.get(name, [_PASS]) for name, number in machine.numbers.items()}
    for name in _UNKNOWN_TO_FILTERS:
        bodies[machine.numbers[name]] = [_give(_ERROR | errno.ENOSYS)]
    starts: list[int] = []  # each body holds from its start to the next one
    held: list[list[Instruction]] = []
    for number in sorted({0, *bodies, *(number + 1 for number in bodies)}):
        body = bodies.get(number, [_REFUSE])
        if not held or held[-1] != body:
            starts.append(number)
            held.append(body)
    return [
        Instruction(_LOAD, 0, 0, _ARCHITECTURE),
        Instruction(_EQUAL, 1, 0, machine.audit),
        _give(_KILL),
        Instruction(_LOAD, 0, 0, _NUMBER),
        *_chosen(starts, held),
    ]


def _chosen(starts: list[int], held: list[list[Instruction]]) -> list[Instruction]:
    """Find a number's body in halves: the kernel tries a new filter on every number there is."""
    if len(held) == 1:
        return held[0]
    middle = len(held) // 2
    below = _chosen(starts[:middle], held[:middle])
    above = _chosen(starts[middle:], held[middle:])
    if len(below) <= _FARTHEST:
        return [Instruction(_AT_LEAST, len(below), 0, starts[middle]), *below, *above]
    skip = Instruction(_JUMP, 0, 0, len(below))
    return [Instruction(_AT_LEAST, 0, 1, starts[middle]), skip, *below, *above]


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))


_PR_GET_SECCOMP, _PR_SET_SECCOMP, _MODE_FILTER = 21, 22, 2


def available(libc: ctypes.CDLL) -> str | None:
    """None where filters can be installed here, else why not."""
    machine = os.uname().machine
    if machine not in ARCHITECTURES:
        return f"no table of system calls for {machine}"
    if libc.prctl(_PR_GET_SECCOMP, 0, 0, 0, 0) < 0:
        return "the kernel was built without it"
    # With no program, a kernel that knows filters answers EFAULT, another one EINVAL.
    libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, None, 0, 0)
    return None if ctypes.get_errno() == errno.EFAULT else "the kernel has no filter mode"


def assemble() -> bytes:
    """The filter for this machine, as the kernel takes it, for a process yet to be named."""
    return packed(program(ARCHITECTURES[os.uname().machine], pid=_NOBODY))


def packed(code: list[Instruction]) -> bytes:
    """A filter as the kernel takes it."""
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)


def addressed(code: bytes, pid: int) -> bytes:
    """An assembled filter made out to the process `pid`."""
    return code.replace(struct.pack("I", _NOBODY), struct.pack("I", pid))


def install(libc: ctypes.CDLL, code: bytes) -> None:
    """Put this process under a filter, for ever.

    Raises:
        SandboxError: where the kernel refuses it.
    """
    place = ctypes.create_string_buffer(code, len(code))
    described = _Program(len(code) // 8, ctypes.addressof(place))
    if libc.prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(described), 0, 0) != 0:
        number = ctypes.get_errno()
        raise SandboxError(f"seccomp was refused: {os.strerror(number)}")
