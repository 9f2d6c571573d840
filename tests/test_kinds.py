"""How values are told apart, shown and copied."""

import dataclasses
import enum
import subprocess
import sys

import numpy as np
import pydantic
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tracegraph.kinds import KINDS, is_array, is_tensor, kind_of, preview, show


class Colour(enum.Enum):
    RED = 1


class Rank(enum.IntEnum):
    LOW = 1


@dataclasses.dataclass
class Point:
    x: int
    secret: str = dataclasses.field(default="s", repr=False)


class Settings(pydantic.BaseModel):
    rate: float = 0.5


class Bad:
    def __repr__(self):
        raise RuntimeError("no")


SHOWN = [
    ("a", "'a'"),
    (1, "1"),
    (1.5, "1.5"),
    (True, "True"),
    (None, "None"),
    (b"x", "b'x'"),
    (bytearray(b"x"), "b'x'"),
    ([1, "a"], "[1, 'a']"),
    ((), "()"),
    ((1,), "(1,)"),
    ([], "[]"),
    ({}, "{}"),
    (set(), "set()"),
    ({2, 1}, "{1, 2}"),
    ({"a": [1]}, "{'a': [1]}"),
    (Colour.RED, "Colour.RED"),
    (Rank.LOW, "Rank.LOW"),
    (Point(1), "Point(x=1)"),
    (Settings(), "Settings(rate=0.5)"),
    (Bad(), "<Bad>"),
    (object(), "<object>"),
    (len, "<function len>"),
    (Point, "<class Point>"),
    (10**50, "<int of 167 bits>"),
    (np.zeros(2), "array([0.0, 0.0], float64)"),
    (np.zeros((10, 10)), "array(shape=[10, 10], float64)"),
    (torch.ones(2), "tensor([1.0, 1.0], float32)"),
    (torch.ones(2, requires_grad=True), "tensor([1.0, 1.0], float32)"),
    (torch.zeros(5, 5, dtype=torch.bfloat16), "tensor(shape=[5, 5], bfloat16)"),
    (np.array([object()]), "array(shape=[1], object)"),
]  # fmt: skip


@pytest.mark.parametrize(("value", "text"), SHOWN, ids=[t for _, t in SHOWN])
def test_what_is_shown(value, text):
    assert show(value) == text


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=30,
)


@given(JSON, st.integers(1, 300))
def test_shown_text_is_bounded(value, limit):
    text = show(value, limit)
    assert len(text) <= 8 * limit + 2_000


def test_huge_and_deep_values_are_shown_at_once():
    deep: list = []
    for _ in range(10_000):
        deep = [deep]
    for value in (
        "x" * 10_000_000, list(range(1_000_000)), {i: i for i in range(1_000_000)}, deep,
        set(range(1_000_000)), ["y" * 1_000_000] * 1_000, b"z" * 10_000_000, 10**5_000,
    ):  # fmt: skip
        assert len(show(value, 100)) < 1_000
        assert preview(value) is None or len(preview(value)) < 2_000
    loop: list = [1]
    loop.append(loop)
    assert show(loop) == "[1, ...]"


def test_shown_text_is_the_same_in_every_process():
    code = (
        "from tracegraph.kinds import show\n"
        "class A: pass\n"
        "print(show([{'b', 'a', 'c'}, A(), frozenset('xyz'), lambda: 1, {'k': A}]))"
    )
    said = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True,
            env={"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(said) == 1
    assert " at 0x" not in said.pop()


def test_kinds():
    assert {k: kind_of(v).name for k, v in {
        "text": "a", "number": 1, "float": 1.5, "choice": True, "enum": Colour.RED, "json": [1],
        "none": None, "tensor": torch.ones(1), "array": np.ones(1), "rank": Rank.LOW,
        "npint": np.int64(1),
    }.items()} == {
        "text": "text", "number": "number", "float": "number", "choice": "choice",
        "enum": "choice", "json": "json", "none": "json", "tensor": "tensor", "array": "tensor",
        "rank": "choice", "npint": "number",
    }  # fmt: skip
    assert kind_of(object()) is None
    assert kind_of(len) is None
    assert kind_of(Point) is None
    assert set(KINDS) == {"text", "number", "choice", "code", "json", "tensor"}


def test_copies_do_not_change_with_their_original():
    for value in ([1, [2]], {"a": [1]}, np.zeros(2), torch.zeros(2, requires_grad=True)):
        twin = kind_of(value).copy(value)
        assert twin is not value
        if is_tensor(value):
            assert not twin.requires_grad
            assert twin.data_ptr() != value.data_ptr()
        elif is_array(value):
            assert not np.shares_memory(twin, value)
        elif isinstance(value, list):
            value[1].append(3)
            assert twin == [1, [2]]


def test_telling_a_tensor_imports_nothing():
    code = (
        "import sys\nfrom tracegraph.kinds import is_tensor, is_array, kind_of\n"
        "is_tensor(1), is_array(1), kind_of(1)\n"
        "assert not {'torch', 'numpy', 'pydantic'} & set(sys.modules), set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={"PYTHONPATH": ":".join(sys.path)})
