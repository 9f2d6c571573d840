"""What goes in comes out; what comes from hostile hands is refused, and costs no more than it weighs."""

from __future__ import annotations

import json
import json.scanner
import math
import os
import struct
import sys
import tracemalloc
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tracegraph.errors import SandboxError
from tracegraph.sandbox import values as reading
from tracegraph.sandbox.frames import ANSWER, RESULT, Channel, Frame, read, refuse_depth, write
from tracegraph.sandbox.values import MAX_BITS, MAX_DEPTH, pack

LIMIT = 1 << 20
NUMBERS = [
    np.dtype(code)
    for code in ("?", "i1", "u1", "i2", "u4", "i8", "u8", "f2", "f4", "f8", "c8", "c16")
]


def through(value: object) -> Any:
    """`value` as it arrives on the other side."""
    wire = bytearray().join(bytes(part) for part in write(RESULT, value, limit=LIMIT))
    frame, left = read_all(bytes(wire))
    assert left == b""
    return frame.value


def read_all(wire: bytes, *, limit: int = LIMIT) -> tuple[Frame, bytes]:
    rest = memoryview(wire)

    def take(size: int) -> bytearray:
        nonlocal rest
        if size > len(rest):
            raise EOFError
        head, rest = rest[:size], rest[size:]
        return bytearray(head)

    return read(take, limit=limit), bytes(rest)


def same(left: Any, right: Any) -> bool:
    """Equal in type, in shape, and in value, where nan is nan."""
    if type(left) is not type(right):
        return False
    match left:
        case np.ndarray():
            return left.dtype == right.dtype and np.array_equal(left, right, equal_nan=True)
        case np.generic():
            return left.dtype == right.dtype and left.tobytes() == right.tobytes()
        case list() | tuple():
            return len(left) == len(right) and all(map(same, left, right))
        case dict():
            return same([*left.items()], [*right.items()])
        case float():
            return left == right or (math.isnan(left) and math.isnan(right))
        case complex():
            return same(left.real, right.real) and same(left.imag, right.imag)
    return bool(left == right)


leaves = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(1 << 300), 1 << 300)
    | st.floats()
    | st.complex_numbers()
    | st.text()
    | st.binary()
    | arrays.arrays(st.sampled_from(NUMBERS), arrays.array_shapes(min_dims=0, min_side=0))
    | st.sampled_from(NUMBERS).flatmap(arrays.from_dtype)
)
keys = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.text()
    | st.binary()
    | st.floats(allow_nan=False),
    lambda inner: st.tuples(inner, inner) | st.frozensets(inner, max_size=3),
    max_leaves=5,
)
values = st.recursive(
    leaves,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(keys, inner, max_size=5)
        | st.sets(keys, max_size=5)
        | st.frozensets(keys, max_size=5)
    ),
    max_leaves=20,
)


@given(values)
@settings(max_examples=60, deadline=None)
@example(value="\ud800 alone")
@example(value={float("nan"): [float("inf")]})
@example(value=(1 << MAX_BITS) - 1)
@example(value=np.zeros((0, 3)))
def test_a_value_arrives_as_it_left(value: Any) -> None:
    assert same(through(value), value)


@pytest.mark.filterwarnings("error")
def test_an_empty_array_can_be_written_to_and_an_empty_tensor_arrives_without_a_warning() -> None:
    torch = pytest.importorskip("torch")
    assert through(np.zeros((0, 3))).flags.writeable
    assert through(torch.zeros(2, 0)).shape == (2, 0)


def test_an_array_of_any_layout_and_byte_order_arrives_with_its_numbers() -> None:
    array = np.arange(12.0).reshape(3, 4)
    for given_array in (array.T, array[::2, ::-1], array.astype(">f8"), np.asfortranarray(array)):
        arrived = through(given_array)
        assert np.array_equal(arrived, given_array)
        assert arrived.flags.writeable
        assert arrived.flags.aligned


@dataclass
class Point:
    x: int


class Colour(IntEnum):
    RED = 1


@pytest.mark.parametrize(
    "value",
    [
        object(),
        len,
        Point(1),
        Colour.RED,
        OrderedDict(),
        type("Text", (str,), {})("x"),
        np.array([object()]),
        np.array(["text"]),
        np.zeros(1, dtype=[("a", "f8")]),
        np.ma.masked_array([1.0]),
        bytearray(b"x"),
        range(3),
        1 << (MAX_BITS + 1),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_cannot_travel_is_refused_with_its_type_and_place(value: object) -> None:
    with pytest.raises(SandboxError, match=r"^args\[1\]\['key'\] is "):
        write(RESULT, [0, {"key": value}], limit=LIMIT, name="args")


@pytest.fixture
def wary() -> Iterator[None]:
    """Python itself allows more depth and longer numbers than the reader trusts."""
    depth, digits = sys.getrecursionlimit(), sys.get_int_max_str_digits()
    sys.setrecursionlimit(20_000)
    sys.set_int_max_str_digits(0)
    yield
    sys.setrecursionlimit(depth)
    sys.set_int_max_str_digits(digits)


def test_a_nest_that_is_too_deep_and_one_without_end_are_refused() -> None:
    value: list[Any] = []
    for _ in range(MAX_DEPTH):
        value = [value]
    endless: list[Any] = []
    endless.append(endless)
    for nest in (value, endless):
        with pytest.raises(SandboxError, match="nested deeper"):
            write(RESULT, nest, limit=LIMIT)


BRACKETS = ("deeper brackets than a value has", "deeper brackets behind a string")


@pytest.mark.parametrize("name", BRACKETS)
def test_deep_brackets_are_refused_before_they_are_read(name: str, wary: None) -> None:
    with pytest.raises(SandboxError, match="deeper than any value"):
        read_all(FORGED[name])


def depth_reached(text: str) -> tuple[int, bool]:
    """How deep Python's own JSON parser, the one in Python, goes into a text; and whether it is JSON."""
    decoder: Any = json.JSONDecoder()
    deepest = depth = 0

    def counted(parse: Any) -> Any:
        def inner(*args: Any) -> Any:
            nonlocal deepest, depth
            depth += 1
            deepest = max(deepest, depth)
            found = parse(*args)
            depth -= 1
            return found

        return inner

    decoder.parse_array = counted(decoder.parse_array)
    decoder.parse_object = counted(decoder.parse_object)
    try:
        _, end = json.scanner.py_make_scanner(decoder)(text, 0)
    except (StopIteration, ValueError):
        return deepest, False
    return deepest, end == len(text)


trees = st.recursive(
    st.text('[]{}"\\a\n\u00e4') | st.integers(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text('[]{}"\\'), inner),
)


@given(trees.map(json.dumps) | st.text('[[[]{"\\,:1 '), st.integers(0, 6))
@settings(max_examples=80, deadline=None)
@example(text='["\\\\", [[]]]', most=2)
@example(text='["\\"[[[[", [[]]]', most=2)
@example(text='[[["', most=2)
def test_brackets_are_counted_as_the_parser_meets_them(text: str, most: int) -> None:
    deepest, whole = depth_reached(text)
    try:
        refuse_depth(text.encode("ascii"), most=most)
    except SandboxError:
        assert deepest > most or not whole
    else:
        assert deepest <= most


def test_brackets_in_a_text_are_no_nest_and_the_deepest_value_passes(wary: None) -> None:
    value: Any = {"[" * 500: '{"[\\' * 500}
    for _ in range(MAX_DEPTH - 1):
        value = (value,)
    assert through(value) == value
    assert through([["[", "]"]] * 1000) == [["[", "]"]] * 1000
    assert through([1 << 62, -(1 << 63), 1 << 5000] * 100)[2] == 1 << 5000


@pytest.mark.parametrize("part", [[], (), {}, {"a": [1]}, frozenset()], ids=repr)
def test_a_value_of_very_many_parts_is_refused_by_who_sends_and_by_who_reads(part: Any) -> None:
    lists = json.dumps(pack(part)[0]).count("[") + json.dumps(pack(part)[0]).count("{")
    fits = LIMIT // 64 // lists - 2
    texts = ["[{" * 99, '\\"[' * 99]  # brackets in a text are no lists
    assert through([part] * fits + texts) == [part] * fits + texts
    with pytest.raises(SandboxError, match=r"value holds more than 16,384 lists"):
        write(RESULT, [part] * (fits + 3), limit=LIMIT)
    sent = b"".join(map(bytes, write(RESULT, [part] * (fits + 3), limit=4 * LIMIT)))
    with pytest.raises(SandboxError, match=r"a frame of more than 16,384 lists"):
        read_all(sent)


def test_an_enormous_key_is_told_by_its_type() -> None:
    with pytest.raises(SandboxError, match=r"value\[<int>\] is of type builtin_function"):
        pack({1 << 100_000: len})


@given(st.lists(values, min_size=1, max_size=4), st.data())
@settings(max_examples=60, deadline=None)
def test_frames_arrive_however_their_bytes_are_cut(many: list[Any], data: Any) -> None:
    wire = b"".join(bytes(part) for one in many for part in write(RESULT, one, limit=LIMIT))
    cuts = data.draw(st.lists(st.integers(0, len(wire)), max_size=6).map(sorted))
    pieces = [wire[a:b] for a, b in pairwise([0, *cuts, len(wire)]) if a < b]
    channel = Cut(pieces)
    for one in many:
        assert same(channel.receive().value, one)
    assert channel.is_silent()
    with pytest.raises(EOFError):
        channel.receive()


class Cut(Channel):
    """A channel whose every read gives no more than the next piece."""

    def __init__(self, pieces: list[bytes]) -> None:
        with open(os.devnull, "rb") as nothing:
            super().__init__(nothing.fileno(), limit=LIMIT)
        self._pieces = pieces

    def is_silent(self) -> bool:
        return not self._unread and not self._pieces

    def _read_some(self, most: int) -> bytes:
        if not self._pieces:
            raise EOFError
        piece = self._pieces.pop(0)
        if len(piece) > most:
            self._pieces.insert(0, piece[most:])
        return piece[:most]

    def _read_into(self, view: memoryview) -> int:
        piece = self._read_some(len(view))
        view[: len(piece)] = piece
        return len(piece)


def test_what_is_too_large_is_refused_before_it_is_sent() -> None:
    for value in (bytes(LIMIT + 1), np.zeros(LIMIT), "x" * LIMIT):
        with pytest.raises(SandboxError, match="too large"):
            write(RESULT, value, limit=LIMIT)


def frame(tree: str, blob: bytes = b"", *, kind: bytes = RESULT) -> bytes:
    return struct.pack("<cIQ", kind, len(tree), len(blob)) + tree.encode() + blob


FORGED = {
    "an unknown kind": frame("1", kind=b"?"),
    "not JSON": frame("[1,"),
    "no text": frame(""),
    "text behind the value": frame("1 1"),
    "a space before the value": frame(" 1"),
    "a JSON object": frame('{"a": 1, "b": 2}'),
    "an unknown tag": frame('{"pickle": "gASVDAAAAAAAAAB9"}'),
    "an array larger than its bytes": frame('{"array":["<f8",[1099511627776]]}'),
    "an array of objects": frame('{"array":["|O",[1]]}', bytes(16)),
    "an array of text": frame('{"array":["|S8",[2]]}', bytes(16)),
    "an array of another dtype": frame('{"array":["<M8[ns]",[1]]}', bytes(16)),
    "a shape that overflows": frame('{"array":["<f8",[4294967296, 4294967296, 2]]}', bytes(16)),
    "a shape of minus one": frame('{"array":["<f8",[-1]]}', bytes(16)),
    "a shape of floats": frame('{"array":["<f8",[1.0]]}', bytes(16)),
    "a shape of many sides": frame('{"array":["<f8",[' + ",".join(["1"] * 99) + "]]}", bytes(16)),
    "empty, with a huge side": frame('{"array":["<f8",[0, 9223372036854775807, 3]]}'),
    "empty, with endless rows": frame('{"array":["|b1",[4611686018427387903, 0]]}'),
    "deeper brackets than a value has": frame("[" * 200 + "]" * 200),
    "deeper brackets behind a string": frame('["\\"]}", ' + "[" * 200 + "]" * 201),
    "brackets in a string without an end": frame('"' + '[\\"' * 100_000),
    "bools of another byte": frame('{"array":["|b1",[16]]}', bytes([0, 1, 2, 0] * 4)),
    "a scalar with a shape": frame('{"scalar":["<f8",[2]]}', bytes(16)),
    "bytes nobody asked for": frame("1", bytes(16)),
    "the same bytes twice": frame('[{"bytes": 16}, {"bytes": 16}]', bytes(16)),
    "bytes of negative length": frame('{"bytes": -1}', bytes(16)),
    "a dict with a key too many": frame('{"dict": [1, 2, 3]}'),
    "a dict with a key twice": frame('{"dict": [1, 2, 1, 3]}'),
    "a dict of several NaN": frame('{"dict": [NaN, 2, NaN, 3]}'),
    "a set with an item twice": frame('{"set": ["a", "a"]}'),
    "a set that has more twice": frame('{"set": [' + ",".join(["1", "2"] * 50) + "]}"),
    "a list as a key": frame('{"dict": [[1], 2]}'),
    "a list in a set": frame('{"set": [[1]]}'),
    "an unmarked long integer": frame("1" * 40),
    "an integer of 5000 digits": frame("1" * 5000),
    "a long integer too long": frame('{"int": "0x' + "1" * MAX_BITS + '"}'),
    "a long integer that is none": frame('{"int": "one"}'),
    "half a complex number": frame('{"complex": [1.0]}'),
    "too deep": frame("[" * 100 + "]" * 100),
    "far too deep": frame("[" * 100_000 + "]" * 100_000),
    "terabytes of text": struct.pack("<cIQ", RESULT, 0xFFFFFFFF, 0),
    "terabytes of arrays": struct.pack("<cIQ", RESULT, 1, 1 << 60),
    "an odd number of bytes": struct.pack("<cIQ", RESULT, 1, 17) + b"1" + bytes(17),
}


@pytest.mark.parametrize("wire", FORGED.values(), ids=FORGED.keys())
def test_a_forged_frame_is_refused_at_no_cost(wire: bytes) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(SandboxError):
            read_all(wire)
        assert tracemalloc.get_traced_memory()[1] < 3 * LIMIT
    finally:
        tracemalloc.stop()


def one_way_through_a_table(size: int, count: int) -> tuple[list[int], list[int]]:
    """Keys that fill a table, and keys that all look through much of it for a place.

    A table of CPython looks at ``i``, then at ``5 * i + 1`` plus what is left of the hash, shifted by five
    bits each time. The first keys lie on the way that is taken when nothing is left of it; each of the others
    meets one of them at every place that it looks at before, and then follows that way.
    """
    mask = size - 1
    way = [1]
    while len(way) < count:
        way.append((5 * way[-1] + 1) & mask)
    taken = np.zeros(size, dtype=bool)
    taken[way] = True
    bits = size.bit_length() - 1
    keys = place = np.array(way[:: count // 500])
    for shift in range(5, 65, 5):
        if bits <= 55:  # some of them, each with all that its next five bits can be
            some = slice(None, None, len(keys) // 20_000 + 1)
            more = np.arange(32)[None, :] << bits
            keys, place = (keys[some, None] | more).ravel(), np.repeat(place[some], 32)
            bits += 5
        place = (5 * place + 1 + ((keys >> shift) & mask)) & mask
        keys, place = keys[taken[place]], place[taken[place]]
    return way, keys.tolist()


def of_one_hash(count: int) -> list[int]:
    return [number * ((1 << 61) - 1) for number in range(count)]


def test_keys_that_collide_are_refused_before_their_table_is_made(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each of them would keep a host busy for seconds; here it is less patient than it is."""
    monkeypatch.setattr(reading, "_SLACK", reading._SLACK // 10)
    monkeypatch.setattr(reading, "_PER_KEY", reading._PER_KEY // 10)
    way, others = one_way_through_a_table(1 << 17, 50_000)
    assert len(way) + len(others) > (1 << 17) / 3  # so many make the table as large
    assert len(set(others)) == len(others) > 10_000
    table = ",".join(f"{key},0" for key in [*way, *others])
    hashed = ",".join(f'{{"int":"{key:#x}"}}' for key in of_one_hash(20_000))
    for wire in (frame(f'{{"dict":[{table}]}}'), frame(f'{{"set":[{hashed}]}}')):
        with pytest.raises(SandboxError, match="keys of one container collide"):
            read_all(wire, limit=8 << 20)


def test_many_keys_that_do_not_collide_are_a_table() -> None:
    keys = [number * 7919 for number in range(10_000)]
    assert through(dict.fromkeys(keys, 0)) == dict.fromkeys(keys, 0)
    assert through({*keys, *map(str, keys)}) == {*keys, *map(str, keys)}


@given(st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_no_bytes_do_more_than_be_refused(wire: bytes) -> None:
    left = len(wire) + 1
    while len(wire) < left:  # every frame takes some bytes
        left = len(wire)
        try:
            _, wire = read_all(wire, limit=1 << 12)
        except (SandboxError, EOFError):
            return
    raise AssertionError("a frame was made of nothing")


trees = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["<f8", "|b1", "|O", "0x1f"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["tuple", "set", "frozenset", "dict", "int", "bytes", "complex", "array", "scalar"]
            ),
            inner,
            max_size=2,
        )
        | st.tuples(st.sampled_from(["<f8", "|i1"]), st.lists(st.integers(-1, 9), max_size=3)).map(
            lambda pair: {"array": list(pair)}
        )
    ),
    max_leaves=20,
)


@given(trees, st.integers(0, 8))
@settings(max_examples=80, deadline=None)
def test_a_tree_of_any_shape_is_a_value_or_refused(tree: Any, runs: int) -> None:
    wire = frame(json.dumps(tree), bytes(16 * runs))
    try:
        value = read_all(wire)[0].value
    except SandboxError:
        return
    assert same(through(value), value)


@given(values, st.data())
@settings(max_examples=150, deadline=None)
def test_a_frame_with_one_byte_changed_is_a_value_or_refused(value: Any, data: Any) -> None:
    wire = bytearray().join(bytes(part) for part in write(ANSWER, value, limit=LIMIT))
    wire[data.draw(st.integers(0, len(wire) - 1))] = data.draw(st.integers(0, 255))
    try:
        read_all(bytes(wire))
    except (SandboxError, EOFError):
        return
