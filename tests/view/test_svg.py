from __future__ import annotations

import re
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings

from tests.view.pictures import ROLES, example, pictures
from tracegraph.errors import PictureError
from tracegraph.view import Arrow, Box, Picture, svg

_SVG = "{http://www.w3.org/2000/svg}"
_ALLOWED = {f"{_SVG}{tag}" for tag in ("svg", "title", "style", "rect", "g", "path", "text")}
slow = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@slow
@given(pictures())
def test_any_words_give_wellformed_xml_of_drawing_elements_only(picture: Picture) -> None:
    root = ElementTree.fromstring(svg(picture))
    assert {element.tag for element in root.iter()} <= _ALLOWED
    assert all(not name.startswith("on") for element in root.iter() for name in element.attrib)
    assert len(root.findall(f".//{_SVG}g[@data-key]")) == len(picture.boxes)
    assert len(root.findall(f".//{_SVG}g[@data-tail]")) == len(picture.arrows)


@slow
@given(pictures(largest=4))
def test_the_same_picture_gives_the_same_text(picture: Picture) -> None:
    assert svg(picture) == svg(picture)


def test_it_is_self_contained() -> None:
    text = svg(example()).replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"https?:|url\(|@import|href|<script|@font-face", text)


def test_it_can_be_read_aloud_and_in_the_dark() -> None:
    root = ElementTree.fromstring(svg(example()))
    assert root.get("role") == "img"
    said = root.get("aria-label") or ""
    assert "an example: 2 parameters, 1 input, 1 operation, 1 output, 1 failure" in said
    assert "prefers-color-scheme:dark" in (root.findtext(f"{_SVG}style") or "")


def test_every_role_differs_by_outline_and_mark_not_by_colour_alone() -> None:
    seen = set()
    for role in ROLES:
        root = ElementTree.fromstring(svg(Picture((Box(key=1, title="same", role=role),))))
        box = root.find(f".//{_SVG}g[@data-key='1']")
        assert box is not None
        paths = box.findall(f"{_SVG}path")
        commands = tuple(re.sub(r"[-\d. ]+", "", path.get("d") or "") for path in paths)
        seen.add((len(paths), commands))
    assert len(seen) == len(ROLES)


def test_feedback_shows_as_ring_note_and_marks_on_the_way() -> None:
    text = svg(example())
    body = text.partition("</style>")[2]
    assert body.count('class="tg-ring"') == 3
    assert body.count('class="tg-note"') == 2
    assert body.count('class="tg-arrow tg-way"') == 2 + 1  # and the legend
    assert "way of feedback" in body
    plain_text = svg(Picture((Box(key=1, title="a"),)))
    assert "tg-ring" not in plain_text.partition("</style>")[2]
    assert "way of feedback" not in plain_text


def test_a_tooltip_has_more_than_the_box() -> None:
    box = Box(key=1, title="prompt", lines=("'Answer" + "." * 90,), tooltip="line 1\nline 2")
    text = svg(Picture((box,)))
    assert "<title>line 1\nline 2</title>" in text
    assert "… +" in text


def test_words_fit_into_their_box() -> None:
    box = Box(
        key=1, title="W" * 30, lines=("日本" * 30, "m" * 200), kind="number", feedback="w" * 99
    )
    root = ElementTree.fromstring(svg(Picture((box,))))
    body = root.find(f".//{_SVG}path[@class='tg-body']")
    assert body is not None
    wide = max(float(x) for x in re.findall(r"[MHA ](\d+\.?\d*)", body.get("d") or ""))
    for line in root.findall(f".//{_SVG}text[@class='tg-line']"):
        cells = sum(2 if ord(char) > 0x2E80 else 1 for char in line.text or "")
        assert float(line.get("x") or 0) + cells * 11.5 * 0.6 <= wide


def test_a_cycle_is_refused() -> None:
    boxes = (Box(key=1, title="a"), Box(key=2, title="b"))
    with pytest.raises(PictureError, match="cycle"):
        svg(Picture(boxes, (Arrow(tail=1, head=2), Arrow(tail=2, head=1))))


def test_an_empty_picture_is_an_svg_too() -> None:
    assert ElementTree.fromstring(svg(Picture(()))).get("aria-label") == "nothing; 0 arrows"


def test_a_picture_of_nothing_says_so() -> None:
    assert ">nothing was recorded</text>" in svg(Picture(()))
    assert "nothing was recorded" not in svg(Picture((Box(key=1, title="x"),)))
