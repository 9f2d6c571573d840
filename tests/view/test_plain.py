from __future__ import annotations

import unicodedata
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.view.pictures import calm, ugly
from tracegraph.view.plain import fit, one_line, plain, shorten, width


@calm
@given(ugly)
def test_plain_text_is_legal_xml_and_utf8(text: str) -> None:
    safe = plain(text)
    safe.encode("utf-8")
    assert "\x1b" not in safe
    escaped = safe.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    assert (ElementTree.fromstring(f"<a>{escaped}</a>").text or "") == safe


@calm
@given(ugly)
def test_plain_is_idempotent(text: str) -> None:
    assert plain(plain(text)) == plain(text)


@calm
@given(ugly)
def test_one_line_is_one_line(text: str) -> None:
    assert len(one_line(text).splitlines()) <= 1


@calm
@given(ugly, st.integers(1, 60))
def test_shortened_text_keeps_to_the_limit_and_counts_what_was_cut(text: str, limit: int) -> None:
    short = shorten(text, limit)
    assert len(short) <= limit
    if len(text) <= limit:
        assert short == text
    elif short != "…":
        kept, _, cut = short.rpartition("… +")
        assert text.startswith(kept)
        assert len(kept) + int(cut.removesuffix(" chars").replace(",", "")) == len(text)


# The reference knows the newest Unicode; what it lets end, and more, must be what we let end.
graphemes = st.text(
    st.one_of(
        st.characters(exclude_categories=("Cs", "Cn", "Co")),
        st.sampled_from("\u0301\u200d\ufe0f👩👧🇩🇪🏽가각क्षำ\r\n"),
    ),
    min_size=30,
    max_size=80,
)


@calm
@given(graphemes, st.integers(20, 40))
def test_no_grapheme_is_split(text: str, limit: int) -> None:
    regex = pytest.importorskip("regex", reason="needs regex as an independent reference")
    kept = shorten(text, limit).rpartition("… +")[0]
    ends = {match.end() for match in regex.finditer(r"\X", text)}
    # A few scripts have letters that bind forward (Prepend), which Python's tables do not tell.
    if not any(regex.match(r"\p{GCB=Prepend}", char) for char in text):
        assert not kept or len(kept) in ends


@pytest.mark.parametrize("piece", ["\\n", "\\x1b", "\\u00e9", "\\U0001f600", "\\N{DASH}", "&amp;"])
def test_no_escape_is_split(piece: str) -> None:
    text = "ab" + piece * 30
    for limit in range(18, 40):
        kept = shorten(text, limit).rpartition("… +")[0]
        assert (len(kept) - 2) % len(piece) == 0 or len(kept) < 2


@pytest.mark.parametrize("piece", ["🇩🇪", "👨‍👩‍👧", "👍🏽", "e\u0301", "각", "क्षि"])
def test_no_cluster_is_split(piece: str) -> None:
    for limit in range(18, 40):
        kept = shorten(piece * 40, limit).rpartition("… +")[0]
        assert len(kept) % len(piece) == 0


@pytest.mark.parametrize("limit", [0, -1])
def test_a_limit_without_room_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        shorten("text", limit)


@calm
@given(ugly, st.integers(0, 40))
def test_fitted_text_fits(text: str, cells: int) -> None:
    text = one_line(text)
    short = fit(text, cells)
    assert width(short) <= cells
    # Marks take no cell; a text made of very many of them is cut all the same.
    assert short == text or width(text) > cells or len(text) > 4 * cells + 100


def test_width_counts_wide_characters_twice_and_marks_never() -> None:
    assert width("日本") == 4
    assert width(unicodedata.normalize("NFD", "é")) == 1
