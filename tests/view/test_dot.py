from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.view.pictures import example, pictures, ugly
from tracegraph.errors import MissingExtra, PictureError
from tracegraph.view import Arrow, Box, Picture, dot, render
from tracegraph.view.words import label, words

needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="needs graphviz's dot program")
slow = settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture
def no_dot(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


def test_svg_needs_no_program(no_dot: None, tmp_path: Path) -> None:
    path = render(example(), tmp_path / "x.svg")
    assert ElementTree.parse(path).getroot().get("class") == "tg"


@pytest.mark.parametrize("name", ["x.png", "x.pdf"])
def test_without_the_program_the_error_says_how_to_get_it(
    no_dot: None, tmp_path: Path, name: str
) -> None:
    with pytest.raises(MissingExtra, match=r"apt-get.*brew.*choco.*\.svg"):
        render(example(), tmp_path / name)
    with pytest.raises(MissingExtra):
        render(example(), tmp_path / "x.svg", engine="dot")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["x", "x.jpg", "x.svgz"])
def test_an_unknown_ending_is_refused_with_the_known_ones(tmp_path: Path, name: str) -> None:
    with pytest.raises(PictureError, match=r"\.svg, \.png, \.pdf"):
        render(example(), tmp_path / name)


def test_an_unknown_engine_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match="neato"):
        render(example(), tmp_path / "x.svg", engine="neato")  # type: ignore[arg-type]
    with pytest.raises(PictureError, match=r"writes \.svg only"):
        render(example(), tmp_path / "x.png", engine="own")


def test_a_file_that_cannot_be_replaced_leaves_nothing_beside(tmp_path: Path) -> None:
    (tmp_path / "x.svg").mkdir()
    with pytest.raises(OSError, match=r"x\.svg"):
        render(example(), tmp_path / "x.svg", engine="own")
    assert [path.name for path in tmp_path.iterdir()] == ["x.svg"]


@needs_dot
@pytest.mark.parametrize(
    ("name", "start"), [("x.png", b"\x89PNG"), ("x.pdf", b"%PDF"), ("x.svg", b"<?xml")]
)
def test_the_program_writes_each_ending(tmp_path: Path, name: str, start: bytes) -> None:
    path = render(example(), tmp_path / name)
    assert path.read_bytes().startswith(start)
    assert [found.name for found in tmp_path.iterdir()] == [name]


def _laid_out(source: str) -> dict[str, object]:
    done = subprocess.run(
        ["dot", "-Tjson"], input=source.encode(), capture_output=True, timeout=60, check=True
    )
    assert done.stderr.decode() == "" or "Warning" not in done.stderr.decode()
    return dict(json.loads(done.stdout))


def _shown(drawn: list[dict[str, object]]) -> list[str]:
    return [str(step["text"]) for step in drawn if step["op"] == "T"]


@needs_dot
@slow
@given(st.lists(ugly, min_size=1, max_size=12))
def test_dot_shows_exactly_the_words(texts: list[str]) -> None:
    boxes = tuple(Box(key=i, title=word, lines=(word,)) for i, word in enumerate(texts))
    arrows = tuple(Arrow(tail=i, head=i + 1, label=word) for i, word in enumerate(texts[1:]))
    found = _laid_out(dot(Picture(boxes, arrows, texts[0])))
    objects = found["objects"]
    assert isinstance(objects, list)
    for box, node in zip(boxes, objects, strict=True):
        shown = "".join(_shown(node["_ldraw_"])).split()
        cut = words(box)
        assert shown == "".join(["● " + cut.title, *cut.lines]).split()
    edges = found.get("edges", [])
    assert isinstance(edges, list)
    for arrow, edge in zip(arrows, edges, strict=True):
        assert "".join(_shown(edge.get("_ldraw_", []))).split() == label(arrow).split()


@needs_dot
@slow
@given(pictures(largest=5))
def test_dot_reads_any_picture(picture: Picture) -> None:
    assert len(_laid_out(dot(picture))["objects"]) == len(picture.boxes)  # type: ignore[arg-type]


def test_the_language_is_the_same_as_in_svg() -> None:
    source = dot(example())
    assert source.count("peripheries=2") == 2
    assert source.count("shape=octagon") == 1
    assert source.count("arrowtail=vee") == 2
    assert source.count("style=dashed") == 1
