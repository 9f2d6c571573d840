"""Counting and cutting by tokens."""

from __future__ import annotations

import re
from typing import Any, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tracegraph.errors import WrongModel
from tracegraph.llm import Request, bound_tokens, count_tokens, truncate

TEXTS = st.text(max_size=300) | st.text(alphabet="ab 1.\n", max_size=300)


@given(TEXTS, TEXTS)
def test_more_text_never_counts_less(one: str, other: str) -> None:
    assert 0 <= count_tokens(one) <= count_tokens(one + other)
    assert count_tokens(one + other) <= count_tokens(one) + count_tokens(other) + 1


@given(TEXTS)
def test_the_bound_is_above_the_bytes(text: str) -> None:
    assert bound_tokens(Request.of(text or "x")) > len(text.encode("utf-8", "replace"))


@example("word 1, " * 100, 40, "both")
@given(TEXTS, st.integers(0, 60), st.sampled_from(["start", "end", "both"]))
def test_a_cut_text_fits_and_says_what_is_missing(
    text: str, tokens: int, keep: Literal["start", "end", "both"]
) -> None:
    cut = truncate(text, tokens, keep=keep)
    if count_tokens(text) <= tokens:
        assert cut == text
        return
    notes = re.findall(r"\[\.\.\. ([\d,]+) of ([\d,]+) characters left out \.\.\.\]", cut)
    left_out, whole = (int(n.replace(",", "")) for n in notes[-1])
    assert whole == len(text)
    note = f"[... {left_out:,} of {whole:,} characters left out ...]"
    assert len(cut) == len(text) - left_out + len(note)
    assert count_tokens(cut) <= tokens or cut == note
    if keep != "end":
        assert text.startswith(cut[: cut.index(note)])
    if keep != "start":
        assert text.endswith(cut[cut.index(note) + len(note) :])


@pytest.mark.parametrize("wrong", [{"tokens": -1}, {"tokens": 5, "keep": "middle"}])
def test_wrong_limits_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(WrongModel):
        truncate("text", **wrong)
