from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from tests.view.pictures import example
from tracegraph.errors import PictureError
from tracegraph.view import Arrow, Box, Picture


def test_two_boxes_of_one_key_are_refused() -> None:
    with pytest.raises(PictureError, match="2 boxes have the key 7"):
        Picture((Box(key=7, title="a"), Box(key=7, title="b")))


@pytest.mark.parametrize(("arrow", "end"), [((9, 1), "starts"), ((1, 9), "ends")])
def test_an_arrow_to_nowhere_is_refused(arrow: tuple[int, int], end: str) -> None:
    with pytest.raises(PictureError, match=f"{end} at 9"):
        Picture((Box(key=1, title="a"),), (Arrow(tail=arrow[0], head=arrow[1]),))


def test_an_unknown_role_is_refused_with_the_known_ones() -> None:
    with pytest.raises(PictureError, match=r"'hero'.*parameter, input"):
        Box(key=1, title="a", role="hero")  # type: ignore[arg-type]


def test_a_picture_is_a_value() -> None:
    assert example() == example()
    assert hash(example()) == hash(example())
    with pytest.raises(FrozenInstanceError):
        example().boxes[0].title = "x"  # type: ignore[misc]
