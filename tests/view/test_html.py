"""The page as text: what it holds, what it refuses, and that no word can break out of it."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from dataclasses import replace
from hashlib import sha256
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.view.pictures import calm, pictures, ugly
from tracegraph.errors import PictureError
from tracegraph.view import (
    Arrow,
    Box,
    Candidate,
    Curve,
    Entry,
    Exchange,
    Frame,
    Front,
    Histogram,
    Page,
    Picture,
    Rejection,
    Version,
    html,
    lineage,
    png,
    tree,
    write_html,
)
from tracegraph.view.svg import drawing

TWO = Picture(
    (Box(key=1, title="a", role="parameter"), Box(key=2, title="b")), (Arrow(tail=1, head=2),)
)
# What ends a script for a browser, or makes it miss the end: each suffices alone.
ENDS = ("</script></style>", "</script x", "</SCRIPT/", "</script\t", "<!--<script ", "<!-- ")


class _Elements(HTMLParser):
    """What a reader of HTML makes of the file: elements in order, and the text of the raw ones."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.raw: list[str] = []
        self._inside = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag in ("script", "style")
        if self._inside:
            self.raw.append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = False

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.raw[-1] += data


def _data(text: str) -> dict[str, object]:
    found = re.search(r'<script type="application/json" id="page">(.*?)</script>', text, re.S)
    assert found is not None
    return json.loads(found[1])  # type: ignore[no-any-return]


def _everywhere(words: str) -> Page:
    """A page that says `words` in every place that takes words."""
    picture = Picture(
        (Box(key=1, title=words, lines=(words,), kind=words, feedback=words, tooltip=words),),
        (),
        words,
    )
    forms = [Entry(words, form, words) for form in ("text", "code", "error")]
    frame = Frame(
        picture=picture,
        title=words,
        note=words,
        details={
            1: (
                *forms,
                Entry(words, "tree", tree({words: [words]}, repr)),
                Entry(words, "facts", {words: words}),
                Entry(words, "diff", (words, words)),
            )
        },
        parameters={words: Version(number=1, text=words, kind=words, origin=words)},
        rejections=(Rejection(parameter=words, reason=words, proposal=words),),
        exchanges=(Exchange(prompt=words, reply=words, model=words),),
        facts={words: words},
    )
    tried = Candidate(
        id=words, score=1.0, status=words, note=words, scores={words: 1.0}, values={words: words}
    )
    return Page(
        words,
        (frame, Frame(picture=TWO)),
        lineage([tried, Candidate(id=f"{words} again", parents=(words,))]),
        (Curve(words, ((0, 1), (1, 2)), words),),
        (Front(x=words, y=words, points=((words, 0.0, 1.0),), best=frozenset((words,))),),
    )


@calm
@given(
    words=st.one_of(
        ugly, st.sampled_from(ENDS).flatmap(lambda end: ugly.map(lambda word: end + word))
    )
)
def test_whatever_is_said_the_elements_stay_the_same(words: str) -> None:
    text = html(_everywhere(words))
    text.encode()  # no half characters
    kinds = [(tag, given.get("type")) for tag, given in _Elements(text).tags if tag == "script"]
    data, drawing = ("script", "application/json"), ("script", "text/plain")
    assert kinds == [data, drawing, ("script", None)]
    blocks = re.findall(r'<script type="application/json"[^<>]*>([^<]*)</script>', text)
    assert [type(json.loads(block)) for block in blocks] == [dict]
    tags = {tag for tag, _ in _Elements(text).tags}
    assert not tags & {"b", "img", "i", "iframe", "link", "a", "object", "base"}
    assert not any(name.startswith("on") for _, given in _Elements(text).tags for name in given)


def test_the_policy_names_the_one_script_and_the_one_style() -> None:
    text = html(_everywhere("<script>alert(1)</script>"))
    found = _Elements(text)
    policy = next(
        given["content"] for tag, given in found.tags if given.get("http-equiv") is not None
    )
    assert policy is not None
    hashes = re.findall(r"'sha256-([^']+)'", policy)
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    raw = {b64encode(sha256(part.encode()).digest()).decode() for part in found.raw}
    assert len(hashes) == 2
    assert set(hashes) <= raw
    assert text.count("<style>") == 1


@calm
@given(pictures())
def test_what_is_shared_gives_back_each_drawing(picture: Picture) -> None:
    again = replace(picture, title="again")
    page = Page("", (Frame(picture=picture), Frame(picture=again)))
    text = html(page)
    data: Any = _data(text)
    found = re.search(r'<script type="text/plain" id="markup">(.*?)</script>', text, re.S)
    assert found is not None
    pieces = found[1].split("\n")
    for told, shown in zip(data["pictures"], (picture, again), strict=True):
        drawn = drawing(shown, alone=False)
        keys, arrows, wires, shapes, texts, places = (
            data["lists"][told[name]]
            for name in ("keys", "arrows", "wires", "shapes", "texts", "places")
        )
        made = [
            f'<g data-tail="{tail}" data-head="{head}"{pieces[wire]}'
            for (tail, head, *_), wire in zip(arrows, wires, strict=True)
        ] + [
            f'<g data-key="{key}" transform="translate({x:.7g},{y:.7g})"{pieces[one]}{pieces[two]}'
            for key, x, y, one, two in zip(
                keys, places[::2], places[1::2], shapes, texts, strict=True
            )
        ]
        assert made == [part.text for part in drawn.parts]
        frame = "".join(pieces[number] for number in told["frame"])
        assert frame == (drawn.head + drawn.tail).replace("\n", "")


def test_a_step_that_changes_one_value_costs_no_tenth_of_its_drawing() -> None:
    def picture(value: str) -> Picture:
        boxes = (Box(key=n, title=f"box {n}", lines=(value if n == 5 else "x",)) for n in range(40))
        return Picture(tuple(boxes), tuple(Arrow(tail=n, head=n + 1) for n in range(39)))

    def size(steps: int) -> int:
        return len(html(Page("", tuple(Frame(picture=picture(str(n))) for n in range(steps)))))

    drawn = sum(len(part.text) for part in drawing(picture("0")).parts)
    assert (size(51) - size(1)) / 50 < drawn / 10


def test_nothing_is_fetched() -> None:
    text = html(_everywhere("x"))
    assert not re.search(r"""(?:src|href|action)\s*=\s*["']|url\(|@import|fetch\(|import\(""", text)
    assert set(re.findall(r"https?://[^\\\"' ]+", text)) == {"http://www.w3.org/2000/svg"}


def test_equal_pictures_and_texts_are_stored_once() -> None:
    entry = Entry("Value", "text", "one long text " * 100)
    frames = tuple(Frame(picture=TWO, title=str(n), details={1: (entry,)}) for n in range(40))
    text = html(Page("many", frames))
    assert text.count("one long text " * 100) == 1
    assert text.count("<svg ") + text.count("\\u003csvg ") == 1
    assert len(_data(text)["frames"]) == 40  # type: ignore[arg-type]


def test_long_texts_are_cut_and_say_so() -> None:
    frame = Frame(picture=TWO, details={1: (Entry("Value", "text", "x" * 50_000),)})
    (kept,) = _data(html(Page("", (frame,)), words=100))["texts"]  # type: ignore[misc]
    assert len(kept) <= 100
    assert kept.endswith(" chars")


def test_a_page_without_steps_is_refused() -> None:
    with pytest.raises(PictureError, match="at least one step"):
        Page("nothing", ())


def test_details_of_a_stranger_are_refused() -> None:
    with pytest.raises(PictureError, match="details for 7"):
        Frame(picture=TWO, details={7: ()})


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(PictureError, match="'film'"):
        Entry("Value", "film", "")  # type: ignore[arg-type]


def test_an_endless_histogram_is_refused() -> None:
    with pytest.raises(PictureError, match="finite"):
        Histogram(0.0, float("inf"), (1,))


@pytest.mark.parametrize("words", [0, -1, 10**9])
def test_a_senseless_limit_is_refused(words: int) -> None:
    with pytest.raises(PictureError, match="words must lie"):
        html(Page("", (Frame(picture=TWO),)), words=words)


def test_another_ending_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(PictureError, match=r"end in \.html"):
        write_html(Page("", (Frame(picture=TWO),)), tmp_path / "page.svg")
    assert list(tmp_path.iterdir()) == []


def test_a_file_appears_whole(tmp_path: Path) -> None:
    path = write_html(Page("", (Frame(picture=TWO),)), tmp_path / "page.html")
    assert path.read_text(encoding="utf-8") == html(Page("", (Frame(picture=TWO),)))
    assert [p.name for p in tmp_path.iterdir()] == ["page.html"]


def test_not_a_number_is_left_out_of_the_curves() -> None:
    frame = Frame(picture=TWO, score=float("nan"), cost=float("inf"))
    told = _data(html(Page("", (frame,))))["frames"][0]  # type: ignore[index]
    assert (told["score"], told["cost"]) == (None, None)


def test_a_picture_of_values_is_a_png_inside_the_file() -> None:
    frame = Frame(picture=TWO, details={1: (Entry("Value", "image", png(b"\0\xff", 2, 1, 1)),)})
    ((_, form, source),) = _data(html(Page("", (frame,))))["entries"]  # type: ignore[misc]
    assert form == "image"
    assert source.startswith("data:image/png;base64,")


@pytest.mark.parametrize(
    ("pixels", "shape"), [(b"", (0, 1, 1)), (b"abc", (2, 1, 1)), (b"ab", (1, 1, 2))]
)
def test_pixels_that_make_no_picture_are_refused(
    pixels: bytes, shape: tuple[int, int, int]
) -> None:
    with pytest.raises(PictureError, match="pixels"):
        png(pixels, *shape)
