"""One message between the two sides of the wall: a kind, a tree of JSON, raw bytes; lengths first.

A length above the limit is refused before a byte of it is read or a place for it made. Nothing is
ever unpickled.
"""

from __future__ import annotations

import _thread
import functools
import json
import json.encoder
import os
import select
import struct
import sys
import time
from itertools import accumulate
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from tracegraph.errors import SandboxError
from tracegraph.sandbox.values import ALIGN, MAX_DEPTH, pack, padding, unpack

if TYPE_CHECKING:
    from collections.abc import Callable

    from tracegraph.sandbox.values import Buffer

__all__ = [
    "ANSWER",
    "ASK",
    "CALL",
    "FAILED",
    "LAST",
    "LOAD",
    "OUTPUT",
    "RAISED",
    "RESULT",
    "WHERE",
    "Channel",
    "Frame",
    "Line",
    "Wire",
    "framed",
    "read",
    "refuse_depth",
    "write",
]

LOAD = b"L"  # host to child: this is the code
CALL = b"C"  # host to child: run it on these arguments
LAST = b"Z"  # host to child: the same, and no call comes after it
RESULT = b"R"  # child to host: it returned, and what it cost
FAILED = b"F"  # child to host: it raised, and what it cost
OUTPUT = b"O"  # child to host: it printed
ASK = b"A"  # child to host: call this host function
ANSWER = b"V"  # host to child: what the host function returned
RAISED = b"E"  # host to child: what the host function raised
WHERE = b"W"  # child to host: time is nearly up, and this is where the code is

_KINDS = frozenset((LOAD, CALL, LAST, RESULT, FAILED, OUTPUT, ASK, ANSWER, RAISED, WHERE))
_DEEPEST = 2 * MAX_DEPTH + 8  # brackets within brackets: a container of a value takes one or two
_SHALLOW = 10_000  # calls within calls: in C, as many take less than
_ROOMY = 1 << 22  # bytes of a stack
_LONGEST_NUMBER = 20  # digits; a longer integer travels as text in base 16
_FEW_DIGITS = 10_000  # Python refuses an integer of more than 4300, where it was not told otherwise
_HEADER = struct.Struct("<cIQ")
_TREE_SHARE = 4  # JSON grows when read, about 25-fold at worst, so it gets a quarter of the limit
_PART_SHARE = 64  # bytes of the limit for each list: it takes as many at least, and a microsecond
_FEWEST_BYTES = 1 << 16  # so that a failure can always be told
_AHEAD = 4096  # read at the start of a frame, so that a small one takes one call of the system
_MANY_BYTES = 1 << 20  # from here on numpy gives the room: not zeroed, and in large pages


class Frame(NamedTuple):
    """A message that was read, and the bytes that it took."""

    kind: bytes
    value: Any
    size: int


def _json_writer() -> Callable[[object], str]:
    """What makes JSON of a tree; made once, for making it costs more than its use."""
    plain = json.JSONEncoder(separators=(",", ":"), check_circular=False)
    make: Any = getattr(json.encoder, "c_make_encoder", None)
    if make is None:  # an interpreter without the part that is written in C
        return plain.encode
    # As `plain.encode` makes it anew for every text.
    text = json.encoder.encode_basestring_ascii
    in_parts = make(None, plain.default, text, None, ":", ",", False, False, True)
    return lambda tree: "".join(in_parts(tree, 0))


_to_json = _json_writer()


def write(kind: bytes, value: object, *, limit: int, name: str = "value") -> list[Buffer]:
    """The buffers that make a frame, to be sent one after the other.

    Raises:
        SandboxError: where `value` cannot travel, or is longer than `limit` bytes.
    """
    tree, runs = pack(value, name=name)
    return framed(kind, tree, runs, limit=limit, name=name)


def framed(kind: bytes, tree: object, runs: list[Buffer], *, limit: int, name: str) -> list[Buffer]:
    """As `write`, of what `pack` made already."""
    text = _to_json(tree).encode("ascii")
    size = sum([len(run) + padding(len(run)) for run in runs]) if runs else 0
    most = max(limit // _TREE_SHARE, _FEWEST_BYTES)
    if size > limit or len(text) > most:
        raise SandboxError(
            f"{name} is too large: {size:,} bytes of arrays and {len(text):,} of everything else; "
            f"the limits are {limit:,} and {most:,} (Policy.max_value)"
        )
    parts = _most_parts(limit)
    if _has_more(text, parts):
        raise SandboxError(
            f"{name} holds more than {parts:,} lists, and tuples and dicts, which count twice "
            "(Policy.max_value); send arrays"
        )
    buffers: list[Buffer] = [_HEADER.pack(kind, len(text), size) + text]
    for run in runs:
        buffers.append(run)
        if padding(len(run)):
            buffers.append(bytes(padding(len(run))))
    return buffers


def read(take: Callable[[int], Buffer], *, limit: int) -> Frame:
    """The next frame; `take(n)` gives exactly n bytes, which nobody else holds.

    Raises:
        SandboxError: for anything that `write` does not make.
        EOFError: from `take`.

    >>> import io
    >>> sent = io.BytesIO(b"".join(write(RESULT, {"x": (1, 2)}, limit=1024)))
    >>> read(lambda size: bytearray(sent.read(size)), limit=1024)
    Frame(kind=b'R', value={'x': (1, 2)}, size=30)
    """
    kind, text_size, size = _lengths(take(_HEADER.size), limit)
    tree = _tree(take(text_size), limit)
    value = unpack(tree, memoryview(take(size)) if size else None)
    return Frame(kind, value, text_size + size)


def _lengths(header: Buffer, limit: int) -> tuple[bytes, int, int]:
    """A frame's kind, the bytes of its tree and those behind it; a frame of none above the limits."""
    kind, text_size, size = _HEADER.unpack_from(header)
    if kind not in _KINDS:
        raise SandboxError(f"a frame of unknown kind {kind!r}")
    if size > limit or size % ALIGN or text_size > max(limit // _TREE_SHARE, _FEWEST_BYTES):
        raise SandboxError(
            f"a frame that claims {text_size:,} + {size:,} bytes; {limit:,} is the most"
        )
    return kind, text_size, size


def _most_parts(limit: int) -> int:
    return max(limit, _FEWEST_BYTES) // _PART_SHARE


def _has_more(text: Buffer, most: int) -> bool:
    """Whether a tree has more lists and objects than `most`."""
    if len(text) <= 2 * most:  # each has two brackets
        return False
    plain = bytes(text)
    if plain.count(b"[") + plain.count(b"{") <= most:
        return False
    plain = _without_strings(plain)
    return plain.count(b"[") + plain.count(b"{") > most


def _tree(text: Buffer, limit: int) -> Any:
    scan = _from_json
    if _has_more(text, _most_parts(limit)):
        raise SandboxError(f"a frame of more than {_most_parts(limit):,} lists")
    if len(text) > _DEEPEST:  # what is shorter is harmless
        if sys.getrecursionlimit() > _SHALLOW or 0 < _thread.stack_size() < _ROOMY:
            refuse_depth(bytes(text), most=_DEEPEST)
        if not 0 < sys.get_int_max_str_digits() <= _FEW_DIGITS:
            scan = _from_doubtful_json
    try:
        tree, end = scan(str(text, "ascii"), 0)
    except (ValueError, StopIteration, RecursionError) as error:
        raise SandboxError(f"a frame that is not JSON: {type(error).__name__}: {error}") from None
    if end != len(text):
        raise SandboxError(f"a frame with {len(text) - end} bytes behind its JSON")
    return tree


def refuse_depth(text: bytes, *, most: int) -> None:
    """Look before the parser does: it recurses in C, and where it may go too deep, the process ends.

    Raises:
        SandboxError: the parser would come to more than `most` brackets within brackets.
    """
    if text.count(b"[") + text.count(b"{") <= most:
        return
    steps = memoryview(_without_strings(text).translate(_STEPS, _NO_BRACKETS)).cast("b")
    if max(accumulate(steps), default=0) > most:
        raise SandboxError("a frame that is nested deeper than any value")


def _without_strings(text: bytes) -> bytes:
    without_escapes = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b"".join(without_escapes.split(b'"')[::2])


_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # one down, one up


def _short_number(digits: str) -> int:
    if len(digits) > _LONGEST_NUMBER:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _json_reader(**options: Any) -> Callable[[str, int], tuple[Any, int]]:
    decoder: Any = json.JSONDecoder(**options)
    return decoder.scan_once  # type: ignore[no-any-return]


_from_json = _json_reader()
_from_doubtful_json = _json_reader(parse_int=_short_number)  # many digits take quadratic time


class Wire(Protocol):
    """A channel as the host sees it: frames go both ways, until a deadline."""

    deadline: float | None

    def send(self, kind: bytes, value: object, *, name: str = "value") -> None:
        """Send one frame."""
        ...

    def send_buffers(self, buffers: list[Buffer]) -> None:
        """Send what `write` made."""
        ...

    def receive(self) -> Frame:
        """The next frame."""
        ...

    def is_silent(self) -> bool:
        """Whether nothing has come that nobody has taken, and the other side is there."""
        ...


class Line(Protocol):
    """A channel as the confined side sees it: without a deadline."""

    busy: bool

    def send(self, kind: bytes, value: object, *, name: str = "value") -> None:
        """Send one frame."""
        ...

    def receive(self) -> Frame:
        """The next frame."""
        ...


class Channel:
    """Frames over a file descriptor; until `deadline`, where the descriptor does not block.

    `deadline` is on the clock of `time.monotonic`; None waits for ever. `busy` is true while
    nothing else may be sent. After an error the channel is in the middle of a frame and must be
    closed. `put` sends what it can of some buffers, and tells how many bytes.
    """

    def __init__(
        self, fd: int, *, limit: int, put: Callable[[list[Buffer]], int] | None = None
    ) -> None:
        self.fd = fd
        self._put = put or functools.partial(os.writev, fd)
        self.limit = limit
        self.deadline: float | None = None
        self.busy = False
        self._unread = b""
        self._waits = not os.get_blocking(fd)
        self._readable, self._writable = select.poll(), select.poll()
        self._readable.register(fd, select.POLLIN)
        self._writable.register(fd, select.POLLOUT)

    def send(self, kind: bytes, value: object, *, name: str = "value") -> None:
        """Send one frame.

        Raises:
            SandboxError: where `value` cannot travel; then nothing was sent.
            TimeoutError: at the deadline. OSError: where the other side is gone.
        """
        self.send_buffers(write(kind, value, limit=self.limit, name=name))

    def send_buffers(self, buffers: list[Buffer]) -> None:
        """Send a frame that `write` made; raises as `send`."""
        self.busy = True
        at, count = 0, len(buffers)
        while at < count:
            try:
                sent = self._put(buffers[at : at + 64])
            except BlockingIOError:
                self._wait(self._writable)
                continue
            while at < count and sent >= len(buffers[at]):
                sent -= len(buffers[at])
                at += 1
            if sent:
                buffers[at] = memoryview(buffers[at])[sent:]
        self.busy = False

    def receive(self) -> Frame:
        """The next frame.

        Raises:
            SandboxError: where it is malformed. EOFError: where the other side is gone.
            TimeoutError: at the deadline.
        """
        start, self._unread = self._unread or self._read_some(_AHEAD), b""
        if len(start) >= _HEADER.size:
            kind, text_size, size = _lengths(start, self.limit)
            end = _HEADER.size + text_size
            if size == 0 and len(start) == end:  # most are small, and come alone
                tree = _tree(start[_HEADER.size :], self.limit)
                return Frame(kind, unpack(tree), text_size)
        self._unread = start
        return read(self._take, limit=self.limit)

    def is_silent(self) -> bool:
        """Whether nothing has come that nobody has taken, and the other side is there."""
        return not self._unread and not self._readable.poll(0)

    def _take(self, size: int) -> Buffer:
        if size <= len(self._unread):
            head, self._unread = self._unread[:size], self._unread[size:]
            return bytearray(head)
        if size <= _HEADER.size:
            chunks = self._unread
            while len(chunks) < size:
                chunks += self._read_some(_AHEAD)
            head, self._unread = chunks[:size], chunks[size:]
            return head
        view, at = _room(size), len(self._unread)
        view[:at] = self._unread
        self._unread = b""
        while at < size:
            at += self._read_into(view[at:])
        return view

    def _read_some(self, most: int) -> bytes:
        while True:
            if self._waits:
                self._wait(self._readable)  # at the start of a frame, nothing is there yet
            try:
                chunk = os.read(self.fd, most)
            except BlockingIOError:
                continue
            if not chunk:
                raise EOFError
            return chunk

    def _read_into(self, view: memoryview) -> int:
        while True:
            try:
                count = os.readv(self.fd, [view])
            except BlockingIOError:
                self._wait(self._readable)
                continue
            if not count:
                raise EOFError
            return count

    def _wait(self, ready: select.poll) -> None:
        if self.deadline is None:
            ready.poll()
            return
        left = self.deadline - time.monotonic()
        if left <= 0 or not ready.poll(left * 1000):
            raise TimeoutError


def _room(size: int) -> memoryview:
    numpy: Any = sys.modules.get("numpy") if size >= _MANY_BYTES else None
    if numpy is None:
        return memoryview(bytearray(size))
    try:
        return memoryview(numpy.empty(size, dtype=numpy.uint8))
    except AttributeError:  # another thread is still importing it
        return memoryview(bytearray(size))
