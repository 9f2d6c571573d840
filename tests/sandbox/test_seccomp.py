"""The filter, run by an interpreter of its own language, on both machines."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracegraph.sandbox.seccomp import ARCHITECTURES, Architecture, Instruction, packed, program

ALLOW, KILL, ERROR = 0x7FFF0000, 0x80000000, 0x00050000
PID = 4242
ROOT = Path(__file__).parents[2]
HEADERS = {
    "x86_64": Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h"),
    "aarch64": Path("/usr/include/asm-generic/unistd.h"),
}
RENAMED = {"newfstatat": ("newfstatat", "fstatat", "3264_fstatat")}
# Calls that must never be allowed whatever their arguments, on either machine.
DANGEROUS = {
    "x86_64": {
        "fork": 57, "vfork": 58, "clone": 56, "execve": 59, "execveat": 322, "socket": 41,
        "connect": 42, "bind": 49, "listen": 50, "sendmsg": 46, "sendmmsg": 307, "recvmsg": 47,
        "ptrace": 101, "process_vm_readv": 310, "process_vm_writev": 311, "pidfd_getfd": 438,
        "mount": 165, "unshare": 272, "setns": 308, "chroot": 161, "bpf": 321, "keyctl": 250,
        "perf_event_open": 298, "userfaultfd": 323, "io_uring_setup": 425, "memfd_create": 319,
        "creat": 85, "mkdir": 83, "mkdirat": 258, "unlink": 87, "unlinkat": 263, "rename": 82,
        "renameat": 264, "renameat2": 316, "link": 86, "symlink": 88, "chmod": 90, "chown": 92,
        "truncate": 76, "ftruncate": 77, "mknod": 133, "utimensat": 280, "setxattr": 188,
        "setrlimit": 160, "setuid": 105, "capset": 126, "tkill": 200, "rt_sigqueueinfo": 129,
        "pidfd_send_signal": 424, "seccomp": 317, "shmget": 29, "mq_open": 240, "chdir": 80,
        "sched_setaffinity": 203, "setpriority": 141, "splice": 275, "name_to_handle_at": 303,
        "open_by_handle_at": 304, "inotify_init1": 294, "personality": 135, "mlock": 149,
    },
    "aarch64": {
        "clone": 220, "execve": 221, "execveat": 281, "socket": 198, "connect": 203, "bind": 200,
        "listen": 201, "sendmsg": 211, "sendmmsg": 269, "recvmsg": 212, "ptrace": 117,
        "process_vm_readv": 270, "process_vm_writev": 271, "pidfd_getfd": 438, "mount": 40,
        "unshare": 97, "setns": 268, "chroot": 51, "bpf": 280, "keyctl": 219,
        "perf_event_open": 241, "userfaultfd": 282, "io_uring_setup": 425, "memfd_create": 279,
        "mkdirat": 34, "unlinkat": 35, "renameat": 38, "renameat2": 276, "linkat": 37,
        "symlinkat": 36, "fchmodat": 53, "fchownat": 54, "truncate": 45, "ftruncate": 46,
        "mknodat": 33, "utimensat": 88, "setxattr": 5, "setrlimit": 164, "setuid": 146,
        "capset": 91, "tkill": 130, "rt_sigqueueinfo": 138, "pidfd_send_signal": 424,
        "seccomp": 277, "shmget": 194, "mq_open": 180, "chdir": 49, "sched_setaffinity": 122,
        "setpriority": 140, "splice": 76, "open_by_handle_at": 265, "inotify_init1": 26,
        "personality": 92, "mlock": 228,
    },
}  # fmt: skip


def run(code: list[Instruction], data: bytes) -> int:
    """What a filter says of a call: the language of the Berkeley packet filter, as far as it is used."""
    accumulator, at = 0, 0
    for _ in range(len(code) + 1):
        operation, if_true, if_false, operand = code[at]
        at += 1
        match operation:
            case 0x20:
                (accumulator,) = struct.unpack_from("<I", data, operand)
            case 0x54:
                accumulator &= operand
            case 0x15:
                at += if_true if accumulator == operand else if_false
            case 0x35:
                at += if_true if accumulator >= operand else if_false
            case 0x05:
                at += operand
            case 0x06:
                return operand
            case _:
                raise AssertionError(f"an operation that the test does not know: {operation:#x}")
    raise AssertionError("the filter came to no end")


FILTERS = {machine.audit: program(machine, pid=PID) for machine in ARCHITECTURES.values()}


def verdict(machine: Architecture, number: int, *args: int, audit: int | None = None) -> int:
    given = (*args, 0, 0, 0, 0, 0, 0)[:6]
    which = machine.audit if audit is None else audit
    return run(FILTERS[machine.audit], struct.pack("<IIQ6Q", number, which, 0, *given))


machines = pytest.mark.parametrize("name", ARCHITECTURES)


@machines
def test_the_numbers_are_those_of_the_kernels_header(name: str) -> None:
    if not HEADERS[name].exists():
        pytest.skip("the kernel's headers are not installed")
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", HEADERS[name].read_text())
    numbers = {call: int(number) for call, number in found}
    for call, number in ARCHITECTURES[name].numbers.items():
        known = [numbers[one] for one in RENAMED.get(call, (call,)) if one in numbers]
        assert known == [number], call


@machines
def test_what_is_dangerous_is_refused_whatever_its_arguments(name: str) -> None:
    machine = ARCHITECTURES[name]
    for call, number in DANGEROUS[name].items():
        for args in ((), (PID,), (1, 1, 1, 1, 1, 1)):
            assert verdict(machine, number, *args) == ERROR | errno.EPERM, call


@machines
def test_every_number_is_allowed_only_if_it_is_in_the_table(name: str) -> None:
    machine = ARCHITECTURES[name]
    listed = set(machine.numbers.values())
    for number in range(600):
        if number not in listed:
            assert verdict(machine, number) == ERROR | errno.EPERM


@machines
def test_another_architecture_or_calling_convention_is_refused(name: str) -> None:
    machine = ARCHITECTURES[name]
    for other in (0x40000003, 0xC000003E ^ 0xC00000B7 ^ machine.audit):
        assert verdict(machine, machine.numbers["read"], audit=other) == KILL
    for number in (*machine.numbers.values(), 5000):
        for convention in (0x40000000, 0x80000000):  # x32 marks its numbers by the first
            assert verdict(machine, convention + number) == ERROR | errno.EPERM


O_WRONLY, O_RDWR, O_CREAT, O_TRUNC, O_TMPFILE, O_PATH = 1, 2, 0o100, 0o1000, 0o20200000, 0o10000000


@machines
@pytest.mark.parametrize(
    ("call", "args", "passes"),
    [
        ("openat", (0, 0, 0o2000000), True),
        ("openat", (0, 0, O_PATH), True),
        *[("openat", (0, 0, flag), False) for flag in (O_WRONLY, O_RDWR, 3, O_CREAT, O_TRUNC)],
        ("openat", (0, 0, O_TMPFILE | O_RDWR), False),
        ("kill", (PID, 9), True),
        *[("kill", (pid, 9), False) for pid in (0, 1, PID + 1, 2**32 - 1, 2**64 - 1)],
        ("tgkill", (PID, PID, 6), True),
        ("tgkill", (1, 1, 6), False),
        ("fcntl", (3, 4), True),
        *[("fcntl", (3, command), False) for command in (8, 10, 1031, 1033, 1024, 5)],
        ("ioctl", (0, 0x5401), True),
        *[("ioctl", (0, command), False) for command in (0x5412, 0x5413, 0x541C, 0x8901)],
        ("prctl", (15,), True),
        *[("prctl", (option,), False) for option in (1, 4, 22, 38, 24)],
        ("prlimit64", (0, 7, 0, 1), True),
        ("prlimit64", (0, 7, 1, 0), False),
        ("prlimit64", (0, 7, 1 << 32, 0), False),
        ("socketpair", (1, 1, 0), True),
        ("socketpair", (1, 1 | 0o2000000, 0), True),
        ("socketpair", (1, 2, 0), False),
        ("socketpair", (2, 1, 0), False),
        ("sendto", (3, 1, 1, 0, 0, 0), True),
        ("sendto", (3, 1, 1, 0, 1 << 40, 16), False),
        ("sendto", (3, 1, 1, 0, 8, 16), False),
        ("sendto", (3, 1, 1, 0x4040, 0, 0), True),
        *[("sendto", (3, 1, 1, flag, 0, 0), False) for flag in (1, 0x4041, 0x2000000, 1 << 31)],
        *[("recvfrom", (3, 1, 1, flag), True) for flag in (0, 2, 0x40, 0x100, 0x4000)],
        *[("recvfrom", (3, 1, 1, flag), False) for flag in (1, 0x2000, 3, 1 << 31)],
        *[("getsockopt", (3, 1, option), True) for option in (3, 4, 38, 39)],
        *[("getsockopt", (3, 1, option), False) for option in (17, 77, 15, 26)],
    ],
)
def test_arguments_decide_for_calls_that_are_partly_allowed(
    name: str, call: str, args: tuple[int, ...], passes: bool
) -> None:
    machine = ARCHITECTURES[name]
    expected = ALLOW if passes else ERROR | errno.EPERM
    assert verdict(machine, machine.numbers[call], *args) == expected


@machines
def test_calls_that_hide_their_arguments_seem_not_to_exist(name: str) -> None:
    machine = ARCHITECTURES[name]
    for call in ("clone3", "openat2"):
        assert verdict(machine, machine.numbers[call]) == ERROR | errno.ENOSYS


ODD = (0, 1, 2, 3, PID, PID + 1, 1 << 31, 1 << 32, (1 << 32) + 1, (1 << 64) - 1)


@given(
    st.sampled_from(
        sorted(set(ARCHITECTURES["x86_64"].numbers) & set(ARCHITECTURES["aarch64"].numbers))
    ),
    st.lists(st.sampled_from(ODD) | st.integers(0, (1 << 64) - 1), min_size=6, max_size=6),
)
def test_both_machines_say_the_same_of_every_call(call: str, args: list[int]) -> None:
    """So what the attacks prove of the one that runs here holds of the other."""
    told = {
        name: verdict(machine, machine.numbers[call], *args)
        for name, machine in ARCHITECTURES.items()
    }
    assert told["x86_64"] == told["aarch64"]


ASKED = """
import ctypes, json, mmap, os, signal, sys, time
from tracegraph.sandbox import confine, seccomp
code, calls = json.load(sys.stdin)
answers = mmap.mmap(-1, 4 * len(calls) + 4)
pid = os.fork()
if pid == 0:
    place = (ctypes.c_int32 * (len(calls) + 1)).from_buffer(answers)
    kinds = [ctypes.c_long] + [ctypes.c_ulong] * 6
    calls = [[kind(value) for kind, value in zip(kinds, call)] for call in calls]
    syscall, errno = confine.libc.syscall, ctypes.get_errno
    confine.capabilities()
    seccomp.install(confine.libc, bytes.fromhex(code))
    for at, call in enumerate(calls):  # from here on no call is made: each is only answered
        place[at] = 0 if syscall(*call) != -1 else errno()
    place[len(calls)] = 1
    while True:
        pass
end = time.monotonic() + 60
place = memoryview(answers).cast("i")
while not place[len(calls)] and time.monotonic() < end:
    time.sleep(0.01)
os.kill(pid, signal.SIGKILL)
os.waitpid(pid, 0)
print(json.dumps(list(place)))
"""
"""Asks the kernel of each call what a filter says, where the filter answers with an error even for what
it allows: so nothing is ever done, and the calls of another machine can be asked of this one's kernel."""


UNFILTERED = {335, 336}
"""The calls about which newer kernels of x86_64 ask no filter: uretprobe and uprobe, with which a process
that has no probes can only end itself."""


@machines
def test_the_kernel_says_of_every_call_what_the_interpreter_says(name: str) -> None:
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        pytest.skip("expects an x86_64 kernel")
    here = ARCHITECTURES["x86_64"].audit
    allowed, refused, unknown = errno.EXDEV, errno.EPERM, errno.ENOSYS
    machine = Architecture(here, ARCHITECTURES[name].numbers)
    code = [
        one._replace(operand=ERROR | allowed) if one.code == 0x06 and one.operand == ALLOW else one
        for one in program(machine, pid=PID)
    ]
    odd = [[value] * 6 for value in (0, 1, PID, 0x5401, 1 << 32, (1 << 64) - 1)]
    odd += [[1, 1, 0, 0, 0, 0], [0, 0, 0o2000000, 0x4040, 0, 0], [0, 3, 77, 1, 1 << 32, 0]]
    numbers = [*set(range(600)) - UNFILTERED, 0x40000000, 0x40000001, 0x7FFFFFFF]
    calls = [[number, *args] for number in numbers for args in odd]
    done = subprocess.run(
        [sys.executable, "-c", ASKED],
        input=json.dumps([packed(code).hex(), calls]),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    *answers, finished = json.loads(done.stdout)
    assert finished == 1
    meant = {
        ALLOW: allowed,
        ERROR | errno.EPERM: refused,
        ERROR | errno.ENOSYS: unknown,
    }
    filtered = program(machine, pid=PID)
    said = [
        meant[run(filtered, struct.pack("<IIQ6Q", number, here, 0, *args))]
        for number, *args in calls
    ]
    assert answers == said
    assert set(said) == {allowed, refused, unknown}


@machines
def test_the_kernel_takes_the_filter(name: str) -> None:
    """A filter for another machine ends the process at its next call, which is of the wrong kind."""
    if sys.platform != "linux" or os.uname().machine != "x86_64":
        pytest.skip("expects an x86_64 kernel")
    source = (
        "import os; from tracegraph.sandbox import confine, seccomp\n"
        "confine.capabilities()\n"
        f"code = seccomp.program(seccomp.ARCHITECTURES[{name!r}], pid=os.getpid())\n"
        "seccomp.install(confine.libc, seccomp.packed(code))\nos._exit(7)\n"
    )
    ended = subprocess.run([sys.executable, "-c", source], cwd=ROOT, timeout=60).returncode
    assert ended == (7 if name == "x86_64" else -signal.SIGSYS)


def test_a_jump_never_leaves_its_eight_bits() -> None:
    for machine in ARCHITECTURES.values():
        code = program(machine, pid=PID)
        assert len(code) < 4096
        assert all(max(one.if_true, one.if_false) < 256 for one in code)
