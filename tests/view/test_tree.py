from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tests.view.pictures import calm, ugly
from tracegraph.view import tree

values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), ugly, st.binary()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=6), st.dictionaries(ugly, inner, max_size=6), st.tuples(inner)
    ),
    max_leaves=40,
)


def _parts(grown: Any) -> int:
    if not isinstance(grown, dict) or "o" in grown:
        return 1
    inside = [part for _, part in grown["m"]] if "m" in grown else grown["l"]
    assert len(inside) <= grown["n"]
    return 1 + sum(map(_parts, inside))


@calm
@given(values, st.integers(1, 30))
def test_it_is_json_of_bounded_size(value: object, items: int) -> None:
    grown = tree(value, repr, items=items, text=50)
    json.dumps(grown, allow_nan=False, ensure_ascii=False).encode()
    assert _parts(grown) <= items


def test_a_value_inside_itself_ends() -> None:
    inside: list[object] = [1]
    inside.append(inside)
    assert tree(inside, lambda _: "...") == {"l": [1, {"o": "..."}], "n": 2}


def test_numbers_that_javascript_would_change_are_words() -> None:
    assert tree([2**53, 0.5, float("inf")], repr)["l"] == [
        {"o": "9007199254740992"},
        0.5,
        {"o": "inf"},
    ]
