"""What hostile code tries, each as a source whose `attack(world)` is called in the sandbox.

`world` is a dict: `secret`, a file with a password; `scratch`, an empty folder; `home`, the user's; `host`,
the number of the test's process; `tcp` and `abstract`, addresses on which the test listens; `held`, what a
parameter of the test's holds.

`error` is what the host must see; None: the call returns, and `value` is what it may return. Whether the
attack reached anything is judged from outside, by the test.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tracegraph.errors import Forbidden, OutOfMemory, SandboxError, TimedOut

__all__ = ["ATTACKS", "Attack"]


@dataclass(frozen=True)
class Attack:
    name: str
    walls: str
    """As the table in docs/explanation/sandbox.md says it."""
    source: str
    error: type[Exception] | tuple[type[Exception], ...] | None
    value: Any = None
    alone: tuple[str, ...] = ()
    """Layers each of which stops it even where all the others are missing."""
    host: tuple[str, ...] = ()
    """The host functions that it is given, of those in the judge."""

    def through(self, door: str) -> str:
        """The source with what it writes to the channel given to `door` instead."""
        return self.source.replace("os.write(3, ", f"{door}(")


_FAILS = (Forbidden, OSError, SandboxError)

_SEND = """
import os, struct
def send(kind, text):
    os.write(3, struct.pack('<cIQ', kind, len(text), 0) + text)
"""
"""Begins the source of an attack that writes frames of its own."""

ATTACKS = [
    # Files
    Attack(
        "write to a folder of temporary files",
        "landlock, seccomp",
        "def attack(w):\n    open(w['scratch'] + '/x', 'w').write('x')",
        Forbidden,
        alone=("landlock", "seccomp"),
    ),
    Attack(
        "write to shared memory",
        "landlock, seccomp",
        "def attack(w):\n    open('/dev/shm/tracegraph-attack', 'w').write('x')",
        Forbidden,
        alone=("landlock", "seccomp"),
    ),
    Attack(
        "write to the home folder",
        "landlock, seccomp",
        "def attack(w):\n    open(w['home'] + '/tracegraph-attack', 'w').write('x')",
        Forbidden,
        alone=("landlock", "seccomp"),
    ),
    Attack(
        "write with numpy's own file functions",
        "landlock, seccomp",
        "import numpy\ndef attack(w):\n    numpy.zeros(9).tofile(w['scratch'] + '/x')",
        Forbidden,
        alone=("landlock", "seccomp"),
    ),
    Attack(
        "make folders and links, rename, remove, change modes",
        "landlock, seccomp",
        """
import os
def attack(w):
    s = w['scratch']
    for act in (lambda: os.mkdir(s + '/d'), lambda: os.symlink('/', s + '/l'),
                lambda: os.remove(w['secret']), lambda: os.rename(w['secret'], s + '/r'),
                lambda: os.chmod(w['secret'], 0o777), lambda: os.truncate(w['secret'], 0),
                lambda: os.link(w['secret'], s + '/h'), lambda: os.mkfifo(s + '/f'),
                lambda: os.utime(w['secret'], (0, 0)), lambda: os.chdir(s)):
        try:
            act()
        except OSError:
            continue
        return 'done'
""",
        None,
        alone=("seccomp",),
    ),
    Attack(
        "fill the disk",
        "landlock, seccomp, rlimits",
        """
def attack(w):
    with open(w['scratch'] + '/x', 'wb') as file:
        while True:
            file.write(bytes(1 << 20))
""",
        Forbidden,
        alone=("landlock", "seccomp"),
    ),
    Attack(
        "read a secret file",
        "landlock",
        "def attack(w):\n    return open(w['secret']).read()",
        Forbidden,
        alone=("landlock",),
    ),
    Attack(
        "read /etc/shadow",
        "landlock",
        "def attack(w):\n    return open('/etc/shadow').read()",
        Forbidden,
        alone=("landlock",),
    ),
    Attack(
        "read /etc/passwd",
        "landlock",
        "def attack(w):\n    return open('/etc/passwd').read()",
        Forbidden,
        alone=("landlock",),
    ),
    Attack(
        "list the home folder",
        "landlock",
        "import os\ndef attack(w):\n    return os.listdir(w['home'])",
        Forbidden,
        alone=("landlock",),
    ),
    # The host's process
    Attack(
        "read the environment",
        "empty environment",
        "import os\ndef attack(w):\n    return dict(os.environ)",
        None,
        value={
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
            "MKL_NUM_THREADS": "1",
            "LC_ALL": "C.UTF-8",
        },
    ),
    Attack(
        "read other processes' environments and memory by /proc",
        "landlock",
        """
import glob
def attack(w):
    found = []
    for path in [f"/proc/{w['host']}/environ", f"/proc/{w['host']}/mem", '/proc/1/environ',
                 '/proc/self/environ', *glob.glob('/proc/[0-9]*/environ')]:
        try:
            found.append(open(path, 'rb').read())
        except OSError:
            pass
    return found
""",
        None,
        value=[],
        alone=("landlock",),
    ),
    Attack(
        "read the host's memory by process_vm_readv",
        "namespaces, seccomp",
        """
import ctypes
def attack(w):
    libc = ctypes.CDLL(None, use_errno=True)
    place = ctypes.create_string_buffer(16)
    vector = (ctypes.c_uint64 * 2)(ctypes.addressof(place), 16)
    return libc.process_vm_readv(w['host'], vector, 1, vector, 1, 0)
""",
        None,
        value=-1,
        alone=("seccomp",),
    ),
    Attack(
        "ptrace the host",
        "namespaces, landlock, seccomp",
        """
import ctypes
def attack(w):
    return ctypes.CDLL(None).ptrace(16, w['host'], 0, 0)
""",
        None,
        value=-1,
        alone=("seccomp",),
    ),
    Attack(
        "kill the host",
        "namespaces, landlock, seccomp",
        "import os\ndef attack(w):\n    os.kill(w['host'], 9)",
        (Forbidden, ProcessLookupError),
    ),
    Attack(
        "kill the parent process",
        "namespaces, seccomp",
        "import os\ndef attack(w):\n    os.kill(os.getppid(), 9)",
        (Forbidden, ProcessLookupError),
    ),
    Attack(
        "kill every process",
        "seccomp",
        "import os\ndef attack(w):\n    os.kill(-1, 9)",
        Forbidden,
    ),
    Attack(
        "have a descriptor send signals to others",
        "seccomp",
        """
import fcntl, os
def attack(w):
    fcntl.fcntl(3, fcntl.F_SETOWN, os.getppid())
""",
        Forbidden,
        alone=("seccomp",),
    ),
    Attack(
        "stop itself",
        "the clock",
        "import os, signal\ndef attack(w):\n    os.kill(os.getpid(), signal.SIGSTOP)",
        TimedOut,
    ),
    Attack(
        "end itself by a signal",
        "a process apart",
        "import os\ndef attack(w):\n    os.kill(os.getpid(), 15)",
        SandboxError,
    ),
    Attack(
        "change an argument in place",
        "values as data",
        "def attack(w):\n    w['held'].append('changed')",
        None,
    ),
    Attack(
        "change a module of the host",
        "a process apart",
        """
import json, builtins
def attack(w):
    json.dumps = builtins.len = lambda *a: 'changed'
    import tracegraph.errors
    tracegraph.errors.SandboxError = None
    return 1
""",
        (SandboxError, TypeError),
    ),
    Attack(
        "use a descriptor that it was not given",
        "a process apart",
        """
import os
def attack(w):
    found = []
    for fd in range(4096):
        try:
            os.fstat(fd)
        except OSError:
            continue
        found.append(fd)
    return len(found) > 6
""",
        None,
        value=False,
    ),
    Attack(
        "open itself by /proc",
        "landlock",
        """
import os
def attack(w):
    found = []
    for path in ('/proc/self/maps', '/proc/self/mem', '/proc/self/fd/3', '/proc/self/root/etc/passwd',
                 '/proc/self/cwd/etc/passwd', '/proc/thread-self/environ', '/proc/self/task'):
        for flags in (os.O_RDONLY, os.O_RDWR):
            try:
                found.append(os.read(os.open(path, flags), 100))
            except OSError:
                pass
    return found
""",
        None,
        value=[],
        alone=("landlock",),
    ),
    Attack(
        "attach to the zygote and to other children",
        "seccomp",
        """
import ctypes, os
def attack(w):
    libc = ctypes.CDLL(None, use_errno=True)
    place = ctypes.create_string_buffer(16)
    vector = (ctypes.c_uint64 * 2)(ctypes.addressof(place), 16)
    me, parent = os.getpid(), os.getppid()
    found = []
    for pid in {parent, me - 1, me + 1, me + 2}:
        found.append(libc.ptrace(16, pid, 0, 0))
        found.append(libc.process_vm_readv(pid, vector, 1, vector, 1, 0))
        found.append(libc.process_vm_writev(pid, vector, 1, vector, 1, 0))
        found.append(libc.syscall(434, pid, 0))  # pidfd_open
    return set(found) == {-1}
""",
        None,
        value=True,
        alone=("seccomp",),
    ),
    Attack(
        "stop the zygote or another child",
        "seccomp",
        """
import os, signal
def attack(w):
    me, parent = os.getpid(), os.getppid()
    reached = []
    for pid, number in ((parent, signal.SIGSTOP), (me - 1, 0), (me + 1, 0), (me + 2, 0), (0, 0)):
        try:
            os.kill(pid, number)
        except OSError:
            continue
        reached.append(pid)
    return reached
""",
        None,
        value=[],
        alone=("seccomp",),
    ),
    Attack(
        "lower the limits of the zygote",
        "seccomp",
        """
import os, resource
def attack(w):
    resource.prlimit(os.getppid(), resource.RLIMIT_NOFILE, (1, 1))
""",
        Forbidden,
        alone=("seccomp",),
    ),
    Attack(
        "use the newer doors of the kernel: io_uring, userfaultfd, secret memory",
        "seccomp",
        """
import ctypes
def attack(w):
    libc = ctypes.CDLL(None, use_errno=True)
    place = ctypes.create_string_buffer(256)
    calls = {'io_uring_setup': 425, 'io_uring_enter': 426, 'io_uring_register': 427, 'userfaultfd': 323,
             'memfd_create': 319, 'memfd_secret': 447, 'pidfd_getfd': 438, 'process_madvise': 440,
             'perf_event_open': 298, 'open_tree': 428, 'fsopen': 430, 'mount_setattr': 442,
             'landlock_create_ruleset': 444, 'seccomp': 317, 'kcmp': 312, 'add_key': 248,
             'name_to_handle_at': 303, 'fanotify_init': 300, 'modify_ldt': 154, 'vmsplice': 278}
    return [name for name, n in calls.items() if libc.syscall(n, place, place, 0, 0, 0, 0) != -1]
""",
        None,
        value=[],
        alone=("seccomp",),
    ),
    Attack(
        "leave shared memory, semaphores and queues behind",
        "seccomp",
        """
import ctypes
def attack(w):
    libc = ctypes.CDLL(None, use_errno=True)
    made = [libc.syscall(29, 0, 4096, 0o1666), libc.syscall(64, 0, 1, 0o1666),
            libc.syscall(68, 0, 0o1666), libc.syscall(240, b'tracegraph-attack', 0o102, 0o666, None),
            libc.shm_open(b'/tracegraph-attack', 0o102, 0o666)]
    return made
""",
        None,
        value=[-1] * 5,
        alone=("seccomp",),
    ),
    # The network
    Attack(
        "connect by TCP",
        "namespaces, landlock, seccomp",
        "import socket\ndef attack(w):\n    socket.create_connection(w['tcp'], 1)",
        _FAILS,
        alone=("namespaces", "landlock", "seccomp"),
    ),
    Attack(
        "connect to an abstract socket",
        "namespaces, landlock, seccomp",
        """
import socket
def attack(w):
    s = socket.socket(socket.AF_UNIX)
    s.connect(w['abstract'])
""",
        _FAILS,
        alone=("namespaces", "landlock", "seccomp"),
    ),
    Attack(
        "send by UDP",
        "namespaces, seccomp",
        """
import socket
def attack(w):
    socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('192.0.2.1', 9))
""",
        _FAILS,
        alone=("namespaces", "seccomp"),
    ),
    Attack(
        "fetch a page with urllib",
        "namespaces, landlock, seccomp",
        """
import urllib.request
def attack(w):
    return urllib.request.urlopen(f"http://127.0.0.1:{w['tcp'][1]}/").read()
""",
        _FAILS,
        alone=("namespaces", "landlock", "seccomp"),
    ),
    Attack(
        "send from a socket pair to a named socket",
        "seccomp",
        """
import socket
def attack(w):
    socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)[0].sendto(b'x', w['abstract'])
""",
        Forbidden,
        alone=("seccomp",),
    ),
    Attack(
        "send bytes out of band",
        "seccomp",
        """
import socket
def attack(w):
    a, b = socket.socketpair()
    a.send(b'x')
    assert b.recv(1, socket.MSG_PEEK) == b.recv(1) == b'x'
    try:
        b.recv(1, socket.MSG_OOB)
    except PermissionError:
        a.send(b'x', socket.MSG_OOB)
""",
        Forbidden,
        alone=("seccomp",),
    ),
    Attack(
        "take a handle of the host from the channel",
        "seccomp",
        """
import socket
def attack(w):
    assert socket.socketpair()[0].getsockopt(socket.SOL_SOCKET, socket.SO_TYPE) == socket.SOCK_STREAM
    peer_pidfd = 77
    globals()['held'] = channel = socket.socket(fileno=3)  # where nobody holds it, it is closed
    channel.getsockopt(socket.SOL_SOCKET, peer_pidfd)
""",
        Forbidden,
        alone=("seccomp",),
    ),
    # Processes and threads
    Attack(
        "run a program",
        "landlock, seccomp",
        "import os\ndef attack(w):\n    os.execv('/bin/echo', ['echo'])",
        Forbidden,
        alone=("landlock", "seccomp"),
    ),
    Attack(
        "start a subprocess",
        "seccomp",
        "import subprocess\ndef attack(w):\n    subprocess.run(['/bin/echo'])",
        Forbidden,
        alone=("seccomp",),
    ),
    Attack(
        "fork bomb",
        "seccomp",
        "import os\ndef attack(w):\n    while True:\n        os.fork()",
        Forbidden,
    ),
    Attack(
        "leave a daemon behind",
        "seccomp",
        """
import os, time
def attack(w):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(60)
""",
        Forbidden,
    ),
    Attack(
        "thread bomb",
        "seccomp",
        """
import threading, time
def attack(w):
    threading.stack_size(65536)
    while True:
        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
""",
        RuntimeError,
        alone=("seccomp",),
    ),
    Attack(
        "raw system calls by ctypes",
        "seccomp",
        """
import ctypes
def attack(w):
    libc = ctypes.CDLL(None, use_errno=True)
    fork, clone, unshare, mount, memfd, bpf, uring, keyctl = 57, 56, 272, 165, 319, 321, 425, 250
    return [libc.syscall(n, 0, 0, 0, 0, 0, 0)
            for n in (fork, clone, unshare, mount, memfd, bpf, uring, keyctl, 435, 437, 101)]
""",
        None,
        value=[-1] * 11,
        alone=("seccomp",),
    ),
    Attack(
        "system calls of the 32-bit convention",
        "seccomp",
        """
import ctypes
def attack(w):
    return ctypes.CDLL(None, use_errno=True).syscall(0x40000000 + 57)
""",
        None,
        value=-1,
    ),
    # Time and memory
    Attack("endless loop", "the clock", "def attack(w):\n    while True:\n        pass", TimedOut),
    Attack(
        "endless loop in C",
        "the clock",
        "import itertools\ndef attack(w):\n    sum(itertools.repeat(0))",
        TimedOut,
    ),
    Attack(
        "endless loop with all signals ignored",
        "the clock",
        """
import signal
def attack(w):
    for number in range(1, 65):
        try:
            signal.signal(number, signal.SIG_IGN)
        except (OSError, ValueError):
            pass
    while True:
        pass
""",
        TimedOut,
    ),
    Attack(
        "endless loop that swallows every exception",
        "the clock",
        """
def attack(w):
    while True:
        try:
            while True:
                raise KeyboardInterrupt
        except BaseException:
            pass
""",
        TimedOut,
    ),
    Attack(
        "sleep for ever", "the clock", "import time\ndef attack(w):\n    time.sleep(1e6)", TimedOut
    ),
    Attack(
        "memory bomb",
        "rlimits",
        "def attack(w):\n    return len(bytearray(6 << 30))",
        OutOfMemory,
        alone=("rlimits",),
    ),
    Attack(
        "memory bomb in small steps",
        "rlimits",
        """
def attack(w):
    held = []
    while True:
        held.append(bytearray(8 << 20))
""",
        (OutOfMemory, TimedOut),
    ),
    Attack(
        "deep recursion", "the interpreter", "def attack(w):\n    return attack(w)", RecursionError
    ),
    Attack(
        "recursion bomb",
        "a process apart",
        """
import sys
def attack(w):
    sys.setrecursionlimit(10**9)
    class A:
        def __getattr__(self, name):
            return getattr(self, name)
    return [repr(A().x)]
""",
        (SandboxError, RecursionError, MemoryError),
    ),
    Attack(
        "code that takes for ever to compile",
        "the clock",
        "x = 9" + "**9" * 12 + "\ndef attack(w):\n    return x",
        (TimedOut, MemoryError),
    ),
    # Ends
    Attack(
        "os._exit", "a process apart", "import os\ndef attack(w):\n    os._exit(0)", SandboxError
    ),
    Attack(
        "SystemExit", "a process apart", "def attack(w):\n    raise SystemExit(0)", SandboxError
    ),
    Attack(
        "segmentation fault",
        "a process apart",
        "import ctypes\ndef attack(w):\n    ctypes.string_at(0)",
        SandboxError,
    ),
    Attack("abort", "a process apart", "import os\ndef attack(w):\n    os.abort()", SandboxError),
    # The reply
    Attack(
        "return a value with a hostile __reduce__",
        "values as data",
        """
class Bomb:
    def __reduce__(self):
        return (open, ('/tmp/x', 'w'))
def attack(w):
    return [Bomb()]
""",
        SandboxError,
    ),
    Attack(
        "return a value with a hostile __eq__, __hash__, __del__ and repr",
        "values as data",
        """
class Bomb(str):
    def __eq__(self, other):
        raise SystemExit
    __hash__ = __repr__ = __str__ = __del__ = __eq__
def attack(w):
    return Bomb('x')
""",
        SandboxError,
    ),
    Attack(
        "raise an exception that is hostile in every part",
        "a process apart",
        """
class Meta(type):
    @property
    def __name__(cls):
        raise SystemExit
class Bomb(Exception, metaclass=Meta):
    def __str__(self):
        raise SystemExit
    __repr__ = __str__
    @property
    def __class__(self):
        raise SystemExit
def attack(w):
    bomb = Bomb()
    globals()[1] = bomb
    raise bomb
""",
        SandboxError,
    ),
    Attack(
        "write a pickle as the reply",
        "values as data",
        """
import os, pickle
def attack(w):
    class Bomb:
        def __reduce__(self):
            return (open, (w['scratch'] + '/pickled', 'w'))
    attack.__globals__['Bomb'] = Bomb
    Bomb.__qualname__, Bomb.__module__ = 'Bomb', '__candidate__'
    os.write(3, pickle.dumps(Bomb()))
""",
        SandboxError,
    ),
    Attack(
        "write rubbish to every descriptor",
        "values as data",
        """
import os
def attack(w):
    for fd in range(64):
        try:
            os.write(fd, bytes(range(256)) * 16)
        except OSError:
            pass
""",
        SandboxError,
    ),
    Attack(
        "claim a reply of many terabytes",
        "values as data",
        "import os, struct\ndef attack(w):\n    os.write(3, struct.pack('<cIQ', b'R', 9, 1 << 44))",
        SandboxError,
    ),
    Attack(
        "claim an array larger than its bytes",
        "values as data",
        _SEND
        + """
def attack(w):
    send(b'R', b'[{"array":["<f8",[1099511627776]]},0]')
""",
        SandboxError,
    ),
    Attack(
        "close the channel",
        "a process apart",
        "import os, time\ndef attack(w):\n    os.closerange(0, 64)\n    time.sleep(60)",
        SandboxError,
    ),
    Attack(
        "return 500 MB",
        "limits on size",
        "import numpy\ndef attack(w):\n    return numpy.zeros(60_000_000)",
        (SandboxError, MemoryError),
    ),
    Attack(
        "print 10 GB",
        "limits on size",
        "def attack(w):\n    while True:\n        print('x' * 1_000_000)",
        TimedOut,
    ),
    Attack(
        "flood the channel with output",
        "limits on size",
        """
import os, struct
def attack(w):
    text = b'{"tuple":["stdout","' + b'x' * 1_000_000 + b'"]}'
    frame = struct.pack('<cIQ', b'O', len(text), 0) + text
    while True:
        os.write(3, frame)
""",
        (TimedOut, SandboxError),
    ),
    Attack(
        "nest a value deeply",
        "values as data",
        """
def attack(w):
    value = []
    for _ in range(100_000):
        value = [value]
    return value
""",
        SandboxError,
    ),
    Attack(
        "return a value that contains itself",
        "values as data",
        "def attack(w):\n    value = {}\n    value['self'] = value\n    return value",
        SandboxError,
    ),
    Attack(
        "return an enormous integer",
        "values as data",
        "def attack(w):\n    return 1 << 10_000_000",
        SandboxError,
    ),
    Attack(
        "raise an exception that holds an enormous integer",
        "values as data",
        "def attack(w):\n    raise KeyError(1 << 200_000)",
        KeyError,
    ),
    Attack(
        "raise an exception that a terminal obeys",
        "values as data",
        """
def attack(w):
    x = '\\x1b]52;c;cm0gLXJmIH4=\\x07'  # what is between: \x1b[2J\x9b2J
    raise ValueError(x, '\\x9b2J\\r\\x7f')
""",
        ValueError,
    ),
    Attack(
        "return an array of endless rows without a byte",
        "values as data",
        "import numpy\ndef attack(w):\n    return numpy.empty((1 << 60, 0), dtype='u1')",
        SandboxError,
    ),
    Attack(
        "return a dict of keys with one hash",
        "values as data",
        _SEND
        + """
def attack(w):
    step = (1 << 61) - 1
    keys = ','.join('{"int":"%#x"},0' % (i * step) for i in range(40_000))
    send(b'R', ('[{"dict":[' + keys + ']},0]').encode())
""",
        (SandboxError, TimedOut),
    ),
    Attack(
        "answer with millions of empty lists",
        "limits on size",
        _SEND
        + """
def attack(w):
    send(b'R', b'[[' + b'[],' * 5_000_000 + b'0],0]')
""",
        SandboxError,
    ),
    Attack(
        "return a dict of many keys that are NaN",
        "values as data",
        "def attack(w):\n    return {float('nan'): i for i in range(100_000)}",
        SandboxError,
    ),
    Attack(
        "say that it is in a place that makes no sense",
        "values as data",
        _SEND
        + """
def attack(w):
    for text in (b'{"dict":["line",{"dict":[]},"locals",7,"traceback",[[9,9]]]}', b'[1]'):
        send(b'W', text)
    while True:
        pass
""",
        SandboxError,
    ),
    Attack(
        "tell of an exception that makes no sense",
        "values as data",
        _SEND
        + """
def attack(w):
    text = (b'[{"dict":["type",1,"builtin",["SystemExit",2,"print","ValueError"],'
            b'"args",["' + b'x' * 1_000_000 + b'"],"host",5,"line",-1,"locals",[1]]},0]')
    send(b'F', text)
    os.read(3, 100)
""",
        ValueError,
    ),
    Attack(
        "call a host function that was not given",
        "the bridge's list",
        _SEND
        + """
def attack(w):
    send(b'A', b'{"dict":["name","eval","args",{"tuple":["1"]},"kwargs",{"dict":[]}]}')
    os.read(3, 100)
""",
        SandboxError,
    ),
    Attack(
        "claim a processor time that makes no sense",
        "values as data",
        _SEND
        + """
def attack(w):
    send(b'R', b'["x",-Infinity]')
    os.read(3, 100)
""",
        None,
        value="x",
    ),
    Attack(
        "answer with frames that belong to the host",
        "values as data",
        _SEND
        + """
def attack(w):
    for kind in (b'L', b'C', b'Z', b'V', b'E'):
        send(kind, b'1')
    os.read(3, 100)
""",
        SandboxError,
    ),
    Attack(
        "print and raise what no file can hold",
        "values as data",
        """
import sys
def attack(w):
    half = chr(0xd800)
    print(half, half.join('ab'))
    print(half, file=sys.stderr)
    raise ValueError(half, {half: half})
""",
        ValueError,
    ),
    Attack(
        "end the host's loop by StopIteration",
        "values as data",
        """
def attack(w):
    class Quiet(StopIteration):
        pass
    raise Quiet
""",
        SandboxError,
    ),
    Attack(
        "give a host function more than fits",
        "limits on size",
        "def attack(w):\n    echo(['x' * 100_000] * 300)",
        SandboxError,
        host=("echo",),
    ),
    Attack(
        "call host functions without end",
        "limits on number",
        "def attack(w):\n    while True:\n        echo()",
        SandboxError,
        host=("echo",),
    ),
    Attack(
        "ask host functions and never read an answer",
        "the clock",
        _SEND
        + """
def attack(w):
    text = b'{"dict":["name","long","args",{"tuple":[]},"kwargs",{"dict":[]}]}'
    for _ in range(200):
        send(b'A', text)
    while True:
        pass
""",
        TimedOut,
        host=("long",),
    ),
    Attack(
        "call a host function while it waits for another",
        "a process apart",
        """
import signal
def attack(w):
    signal.signal(signal.SIGALRM, lambda *a: echo('inner'))
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    for _ in range(400):
        echo('outer')
    signal.setitimer(signal.ITIMER_REAL, 0)
    raise SandboxError
""",
        (SandboxError, NameError, TimedOut),
        host=("echo",),
    ),
    Attack(
        "call a host function by what is no name, with what is no name",
        "the bridge's list",
        _SEND
        + """
def attack(w):
    send(b'A', b'{"dict":["name","__class__","args",{"tuple":[]},"kwargs",{"dict":[1,2]}]}')
    os.read(3, 100)
""",
        SandboxError,
        host=("echo",),
    ),
    Attack(
        "have the host's own error say what it did not",
        "values as data",
        _SEND
        + """
def attack(w):
    try:
        refuse()
    except LookupError:
        pass
    text = (b'[{"dict":["type","LookupError","builtin",["LookupError"],"args",["forged"],"message","forged",'
            b'"host",1]},0]')
    send(b'F', text)
    os.read(3, 100)
""",
        LookupError,
        host=("refuse",),
    ),
    Attack(
        "search frames and the heap for the expected answer",
        "answers stay outside",
        """
import gc, sys
def attack(w):
    found, frame = [], sys._getframe()
    while frame:
        found += [v for v in frame.f_locals.values() if type(v) is str]
        frame = frame.f_back
    for thing in gc.get_objects():
        if type(thing) is dict:
            found += [v for v in list(thing.values()) if type(v) is str]
    return any(w['mark'][::-1] in text for text in found)
""",
        None,
        value=False,
    ),
    # Definitions
    Attack(
        "run while being defined",
        "landlock",
        "def steal(f):\n    open('/etc/passwd')\n    return f\n@steal\ndef attack(w):\n    return 1",
        Forbidden,
        alone=("landlock",),
    ),
    Attack(
        "define something else under the entry's name",
        "a process apart",
        "def attack(w):\n    return 1\nattack = 7",
        TypeError,
    ),
    Attack("define nothing", "a process apart", "def another(w):\n    return 1", NameError),
    # What is not stopped
    Attack(
        "forge its own reply",
        "nothing",
        _SEND
        + """
def attack(w):
    send(b'R', b'["forged",0]')
    return 'honest'
""",
        None,
        value="forged",
    ),
    Attack(
        "tell apart test and use",
        "nothing",
        "def attack(w):\n    return 'good' if 'host' in w else 'bad'",
        None,
        value="good",
    ),
    Attack(
        "tell apart test and use by the clock",
        "nothing",
        "import time\ndef attack(w):\n    return time.process_time() < 3600 and time.time() > 0",
        None,
        value=True,
    ),
    Attack(
        "learn that a file exists, and its size",
        "nothing",
        "import os\ndef attack(w):\n    return os.stat(w['secret']).st_size > 0",
        None,
        value=True,
    ),
    Attack(
        "burn its processor time",
        "nothing",
        "def attack(w):\n    return sum(range(100_000)) > 0",
        None,
        value=True,
    ),
]
