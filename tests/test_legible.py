"""Code is what a person reads who looks at it: what is not seen, or moves what is, is refused and shown."""

import sys
import types

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracegraph import Rejected, bundle
from tracegraph.legible import legible, unseen
from tracegraph.marking import BadSource, marked

HIDDEN = [
    "\u202a", "\u202e", "\u2066", "\u2069", "\u200e", "\u061c",  # another direction of writing
    "\u200b", "\u2060", "\xad", "\U000e0041",  # nothing at all
    "\x1b", "\x08", "\x7f", "\x9b", "\x0b",  # what a terminal obeys
    "\u2028", "\x85", "\r",  # ends of lines to some readers
]  # fmt: skip
PLAIN = "x = 'für שלום कि'  # \N{SNOWMAN} \N{MAN}\u200d\N{WOMAN} \u06cc\u200c\t\f\n\r\n"


@pytest.mark.parametrize("sign", HIDDEN, ids=ascii)
def test_no_optimizer_can_hide_code_from_a_reader(sign):
    @bundle(trainable=True)
    def f(x):
        return x

    @bundle(trainable=True)
    class Kind:
        def get(self):
            return 1

    for owner, old in ((f, "return x"), (Kind, "return 1")):
        before = owner.parameter.data
        for new in (f"{old}  # a{sign}b", f"y = 'a{sign}b'; {old}"):
            text = before.replace(old, new)
            with pytest.raises(Rejected) as caught:
                owner.parameter.assign(text, origin="optimizer")
            said = str(caught.value)
            assert owner.parameter.data == before
            assert f"U+{ord(sign):04X}" in said or "does not parse" in said
            assert sign == "\r" or sign not in said


def test_nor_in_a_module(tmp_path):
    module = types.ModuleType("rates")
    path = tmp_path / "rates.py"
    path.write_text("def rate(x):\n    return x\n", encoding="utf-8")
    module.__file__ = str(path)
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), vars(module))
    sys.modules["rates"] = module
    try:
        rates = bundle(module, trainable=True)
    finally:
        del sys.modules["rates"]
    with pytest.raises(Rejected, match=r"U\+202E \(RIGHT-TO-LEFT OVERRIDE\)"):
        rates.parameter.assign("def rate(x):\n    return 1  # \u202e\n", origin="optimizer")


def test_languages_emoji_and_ends_of_lines_are_no_secrets():
    assert unseen(PLAIN) is None
    assert legible(PLAIN.replace("\r\n", "\n")) == PLAIN.replace("\r\n", "\n")
    assert unseen("\ufeff" + PLAIN) is None
    assert unseen("\ufeff \ufeff") == 2


def test_a_text_that_a_person_began_with_stays_allowed():
    @bundle(trainable=True)
    def f(x):
        return "a​b"

    first = f.parameter.data
    assert unseen(first) is not None
    f.parameter.assign("def f(x):\n    return 1\n")
    f.parameter.assign(first)
    assert f(1).data == "a\u200bb"


@given(st.lists(st.sampled_from([*HIDDEN, "\r\n", "a", "\n", "ü"])).map("".join))
def test_the_first_is_found_and_all_are_shown(text):
    at = unseen(text)
    bare = text.replace("\r\n", "\n\n")
    places = [n for n, sign in enumerate(bare) if sign in HIDDEN]
    assert at == (places[0] if places else None)
    assert not set(legible(text)) & set(HIDDEN)


def test_a_marked_line_shows_what_is_in_it():
    shown = marked("x = 1\ny = '\x1b[2J\u202e'\n", 2, "here")
    assert shown == "   1 | x = 1\n   2 | y = '\\x1b[2J\\u202e'  <--- here"
    assert "\\x1b" in str(BadSource("no", text="\x1b", line=1))
