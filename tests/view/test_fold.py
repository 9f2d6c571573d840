"""Folding: nothing is lost, nothing is joined that was apart, and what repeats becomes one box."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracegraph.view import Arrow, Box, Picture, fold, svg
from tracegraph.view.layout import Size, layered

few = settings(deadline=None, max_examples=25)  # each program has some hundred boxes


@st.composite
def programs(draw: st.DrawFn) -> Picture:
    """What a program with straight parts, chains, loops and loops in loops leaves behind."""
    boxes: list[Box] = []
    arrows: list[Arrow] = []

    def add(title: str, *inputs: int, role: str = "operation") -> int:
        key = len(boxes)
        boxes.append(Box(key=key, title=title, role=role, lines=(str(key),)))  # type: ignore[arg-type]
        arrows.extend(Arrow(tail=i, head=key, label=f"a{n}") for n, i in enumerate(inputs))
        return key

    rule = add("rule", role="parameter")
    state = add("start", role="input")
    for _ in range(draw(st.integers(1, 3))):
        body = draw(st.lists(st.sampled_from("abcd"), min_size=1, max_size=4))
        inner = draw(st.integers(1, 6))
        for _ in range(draw(st.integers(1, 40))):
            for _ in range(inner):
                for title in body:
                    extra = [rule] if title == "a" else []
                    if title == "b":
                        extra.append(add("item", role="input"))
                    state = add(title, state, *extra)
            if inner > 1:
                state = add("next", state, draw(st.integers(0, len(boxes) - 1)))
    return Picture(tuple(boxes), tuple(arrows), "a program")


@few
@given(programs())
def test_every_box_is_in_some_picture_and_parameters_in_the_outermost(picture: Picture) -> None:
    found = fold(picture)
    seen = {box.key for inner in found.whole() for box in inner.boxes if box.inside is None}
    assert seen == {box.key for box in picture.boxes}
    outer = {box.key for box in found.boxes}
    assert {box.key for box in picture.boxes if box.role == "parameter"} <= outer


@few
@given(programs())
def test_every_picture_can_be_laid_out_and_holds_only_arrows_that_were_there(
    picture: Picture,
) -> None:
    known = {(a.tail, a.head, a.label) for a in picture.arrows}
    found = fold(picture)
    reached: set[tuple[int, str]] = set()
    for inner in found.whole():
        layered([Size(80, 30)] * len(inner.boxes), inner.indexed())  # refuses a cycle
        single = {box.key for box in inner.boxes if box.inside is None}
        assert {
            (a.tail, a.head, a.label) for a in inner.arrows if {a.tail, a.head} <= single
        } <= known
        reached |= {(a.head, a.label) for a in inner.arrows if a.head in single}
    assert reached == {(head, name) for _, head, name in known}


@few
@given(programs())
def test_a_picture_that_was_folded_is_small(picture: Picture) -> None:
    for inner in list(fold(picture).whole())[1:]:
        assert sum(box.role == "operation" or box.inside is not None for box in inner.boxes) <= 48


def _loop(times: int, *, role_of: dict[int, str] | None = None) -> Picture:
    boxes = [Box(key=0, title="rule", role="parameter")]
    arrows = []
    for number in range(times):
        for step, title in enumerate(("ask", "read", "check")):
            key = 1 + 3 * number + step
            role = (role_of or {}).get(key, "operation")
            boxes.append(
                Box(key=key, title=title, role=role, on_path=key == 4)  # type: ignore[arg-type]
            )
            arrows.append(Arrow(tail=key - 1, head=key, label="x"))
            if title == "ask" and number:
                arrows.append(Arrow(tail=0, head=key, label="rule"))
    return Picture(tuple(boxes), tuple(arrows))


def test_a_loop_of_a_bundle_is_one_box() -> None:
    found = fold(_loop(200))
    (group,) = [box for box in found.boxes if box.inside is not None]
    assert group.lines[0] == "read → check → ask"
    assert group.on_path  # feedback passed through one of its boxes
    assert len(found.boxes) < 8


def test_a_failure_stands_out_of_the_loop_it_ended() -> None:
    picture = _loop(200, role_of={600: "failure"})
    found = fold(picture)
    assert [box.key for box in found.boxes if box.role == "failure"] == [600]


def test_loops_in_loops_fold_twice() -> None:
    boxes, arrows = [Box(key=0, title="start", role="input")], []
    for title in (["a", "b"] * 20 + ["c"]) * 10:
        boxes.append(Box(key=len(boxes), title=title))
        arrows.append(Arrow(tail=len(boxes) - 2, head=len(boxes) - 1))
        if title == "c":  # used again, so that it is no chain
            arrows.append(Arrow(tail=0, head=len(boxes) - 1, label="again"))
    arrows += [Arrow(tail=0, head=v, label="seed") for v in range(2, 400, 2)]
    found = fold(Picture(tuple(boxes), tuple(sorted(arrows, key=lambda a: a.head))))
    depth, level = 0, found
    while inner := [box.inside for box in level.boxes if box.inside is not None]:
        depth, level = depth + 1, inner[0]
    assert len(found.boxes) < 60
    assert depth >= 3  # loop, turn, inner loop


def test_what_does_not_repeat_stays_as_it_is() -> None:
    draw = Random(3)
    boxes = tuple(Box(key=v, title=str(v)) for v in range(200))
    arrows = tuple(Arrow(tail=draw.randrange(v), head=v) for v in range(1, 200) for _ in range(2))
    picture = Picture(boxes, arrows)
    assert fold(picture) is picture


def test_a_small_picture_and_one_out_of_order_stay_as_they_are() -> None:
    small = _loop(10)
    assert fold(small) is small
    boxes = tuple(Box(key=v, title="a") for v in range(100))
    backward = Picture(boxes, tuple(Arrow(tail=v + 1, head=v) for v in range(99)))
    assert fold(backward) is backward


def test_a_folded_box_says_that_it_opens() -> None:
    text = svg(fold(_loop(200)))
    assert "opens" in text
    assert text.count("tg-pile") == 2


@pytest.mark.parametrize("count", [13, 40, 5_000])
def test_a_chain_of_any_length_is_one_box(count: int) -> None:
    boxes = [Box(key=v, title=f"way {v}") for v in range(count)]
    rest = [Box(key=count + v, title=f"rest {v}", role="input") for v in range(70)]
    arrows = [Arrow(tail=v, head=v + 1) for v in range(count - 1)]
    found = fold(Picture((*boxes, *rest), tuple(arrows)))
    assert [b.title for b in found.boxes if b.inside] == [f"chain of {count - 1:,}"]
    assert max(len(inner.boxes) for inner in list(found.whole())[1:]) <= 26
