from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import tracegraph as tg
from optimizers import Patch
from optimizers.llm.patch import patched
from tracegraph.llm import Scripted

TEXT = "Be kind.\nBe brief.\nBe right.\n"


def block(search: str, replace: str, name: str = "prompt") -> str:
    return f"{name}\n<<<<<<< SEARCH\n{search}=======\n{replace}>>>>>>> REPLACE\n"


def step(reply: str, text: str = TEXT) -> tuple[Any, Any]:
    prompt = tg.node(text, trainable=True, name="prompt")
    optimizer = Patch([prompt], llm=Scripted(lambda request: reply))
    optimizer.backward(prompt.upper(), "Too brief.")
    return prompt, optimizer.step()


def test_several_blocks_apply_in_turn() -> None:
    prompt, update = step(
        "Longer.\n\n"
        + block("Be brief.\n", "Be long.\n")
        + "and\n"
        + block("Be long.\n", "Talk.\n")
    )
    assert prompt.data == "Be kind.\nTalk.\nBe right.\n"
    assert update.reasoning == "Longer."


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        (block("Be lazy.\n", "x\n"), "does not stand in it"),
        (block("Be\n", "x\n"), "3 times"),
        (block("Be kind.\n", "x\n", name="other"), "no text or code"),
        ("prompt\n<<<<<<< SEARCH\nBe kind.\n=======\nx\n", "no whole block"),
        (block("Be kind.\n", "x\n") + block("Be lazy.\n", "y\n"), "does not stand in it"),
    ],
)
def test_what_cannot_be_applied_changes_nothing_and_says_why(reply: str, reason: str) -> None:
    prompt, update = step(reply)
    assert prompt.data == TEXT
    assert reason in update.rejections[0].reason


def test_no_block_is_no_change() -> None:
    prompt, update = step("All is well.")
    assert (prompt.data, update.rejections, update.reasoning) == (TEXT, (), "All is well.")


def test_code_is_patched_and_checked() -> None:
    @tg.bundle(trainable=True, trust=True)
    def double(x: int) -> int:
        """Twice."""
        return 2 * x

    assert double.parameter is not None
    llm = Scripted([
        block("    return 2 * x\n", "    return 3 * x\n", name="double"),
        block("    return 3 * x\n", "    return (3 * x\n", name="double"),
    ])  # fmt: skip
    optimizer = Patch(double, llm=llm)
    for _ in range(2):
        optimizer.backward(double(1), "Three times.")
        update = optimizer.step()
        assert double(2).data == 6
    assert "does not parse" in update.rejections[0].reason


@given(st.text("ab\n", max_size=20), st.text("ab\n", min_size=1, max_size=4), st.text(max_size=5))
@example("aa\n\n", "a\n\n\n", "")
def test_a_patch_is_one_replacement_or_an_error(text: str, search: str, replace: str) -> None:
    if search.strip() and text.count(search) == 1:
        assert patched(text, search, replace) == text.replace(search, replace)
    elif not search.strip():
        assert patched(text, search, replace).startswith(text)
    elif search in text or text.count(search.removesuffix("\n")) != 1:  # one last break may lack
        with pytest.raises(ValueError, match="stand"):
            patched(text, search, replace)
