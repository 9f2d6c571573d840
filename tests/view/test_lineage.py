"""Candidates as a picture, and the front that none of them beats."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.view.pictures import calm
from tracegraph.errors import PictureError
from tracegraph.view import Candidate, front, lineage

scores = st.dictionaries(st.sampled_from("abc"), st.integers(-3, 3).map(float), max_size=3)


def _beats(one: Candidate, other: Candidate) -> bool:
    return one.scores != other.scores and all(
        one.scores[name] >= other.scores[name] for name in other.scores
    )


@calm
@given(st.lists(scores, max_size=12))
def test_the_front_is_what_its_definition_says(found: list[dict[str, float]]) -> None:
    made = [Candidate(id=str(number), scores=own) for number, own in enumerate(found)]
    names = {name for candidate in made for name in candidate.scores}
    whole = [c for c in made if names and c.scores.keys() == names]
    wanted = [c.id for c in whole if not any(_beats(other, c) for other in whole)]
    assert [c.id for c in front(made)] == wanted


def test_what_is_not_a_number_is_not_on_the_front() -> None:
    made = [Candidate(id="a", scores={"s": math.nan}), Candidate(id="b", scores={"s": 0.1})]
    assert [c.id for c in front(made)] == ["b"]


def test_each_candidate_stands_below_those_that_it_was_made_from() -> None:
    made = [
        Candidate(id="start", score=0.2, values={"prompt": "Be kind."}),
        Candidate(id="worse", parents=("start",), status="rejected", note="0.1 < 0.2", score=9.0),
        Candidate(id="good", parents=("start", "gone"), score=0.6, values={"prompt": "Be brief."}),
        Candidate(id="mixed", parents=("good", "start"), score=0.5, scores={"short": 1.0}),
    ]
    frame = lineage(made)
    boxes = {box.title: box for box in frame.picture.boxes}
    assert {t: b.role for t, b in boxes.items()} == {
        "start": "input", "worse": "failure", "good": "output", "mixed": "operation",
    }  # fmt: skip
    assert [b.title for b in frame.picture.boxes if b.on_path] == ["start", "good"]
    assert boxes["mixed"].kind == "front"
    key = {box.key: title for title, box in boxes.items()}
    assert {(key[a.tail], key[a.head]) for a in frame.picture.arrows} == {
        ("start", "worse"), ("start", "good"), ("good", "mixed"), ("start", "mixed"),
    }  # fmt: skip
    told = {e.heading: e.content for e in frame.details[boxes["good"].key]}
    assert told["prompt: what changed"] == ("Be kind.", "Be brief.")
    why = {e.heading: e.content for e in frame.details[boxes["worse"].key]}
    assert why["Why it was rejected"] == "0.1 < 0.2"


def test_two_candidates_of_one_id_are_refused() -> None:
    with pytest.raises(PictureError, match="two candidates have the id 'a'"):
        lineage([Candidate(id="a"), Candidate(id="b"), Candidate(id="a")])


def test_no_candidates_give_an_empty_picture() -> None:
    assert lineage([]).picture.boxes == ()
