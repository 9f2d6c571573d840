"""Search/replace blocks: each matches exactly once, or says why not."""

import subprocess

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import tracegraph as tg
from tracegraph import bundle
from tracegraph.edits import Edit, diff, edited, read_edits
from tracegraph.marking import BadSource
from tracegraph.replies import code_in
from tracegraph.spans import Span, offset, replaced

TEXT = "def f(x):\n    a = x\n    b = x\n    return a + b\n"
LINES = st.lists(st.sampled_from(["a", "b", " c", "", "def f():", "=", "x = 1"]), max_size=8)


def block(search, replace):
    return f"<<<<<<< SEARCH\n{search}=======\n{replace}>>>>>>> REPLACE\n"


def test_blocks_are_read_among_words():
    first, second = block("    a = x\n", ""), block("b\n", "c\nd\n")
    reply = f"First:\n{first}then\n{second}done"
    assert read_edits(reply) == (Edit("    a = x\n", ""), Edit("b\n", "c\nd\n"))
    assert read_edits(TEXT) == ()
    assert read_edits("a << 3\nx == 2\n") == ()


@pytest.mark.parametrize(
    ("reply", "word"),
    [
        ("<<<<<<< SEARCH\na\n", "'======='"),
        ("<<<<<<< SEARCH\na\n=======\nb\n", "'>>>>>>> REPLACE'"),
        (block("a\n", "b\n") * 300, "300 blocks"),
    ],
)
def test_blocks_without_an_end(reply, word):
    with pytest.raises(BadSource, match=word):
        read_edits(reply)


@given(LINES, LINES, LINES, LINES)
def test_one_match_is_replaced_and_the_rest_stays(before, search, after, replace):
    assume(any(line.strip() for line in search))
    lines = [*before, *search, *after]
    places = [i for i in range(len(lines)) if lines[i : i + len(search)] == search]
    text, wanted, new = ("".join(f"{line}\n" for line in part) for part in (lines, search, replace))
    if len(places) == 1:
        result = edited(text, [Edit(wanted, new)])
        assert result == "".join(f"{line}\n" for line in [*before, *replace, *after])
    else:
        with pytest.raises(BadSource, match="matches at lines"):
            edited(text, [Edit(wanted, new)])


@given(LINES, LINES)
def test_a_diff_is_one_that_patch_can_apply(before, after):
    one, two = ("".join(f"{line}\n" for line in part) for part in (before, after))
    said = diff(one, two)
    assert bool(said) == (one != two)
    if not said:
        return
    removed = [line[1:] for line in said.splitlines()[2:] if line.startswith("-")]
    added = [line[1:] for line in said.splitlines()[2:] if line.startswith("+")]
    assert len(removed) - len(added) == len(before) - len(after)


def test_patch_itself_applies_a_diff(tmp_path):
    path = tmp_path / "f.py"
    path.write_text(TEXT)
    new = edited(TEXT, [Edit("    a = x\n", "    a = 2 * x\n")])
    try:
        subprocess.run(
            ["patch", "-s", str(path)], input=diff(TEXT, new), text=True, check=True, timeout=20
        )
    except FileNotFoundError:
        pytest.skip("there is no patch here")
    assert path.read_text() == new


REFUSED = {
    "nowhere": (Edit("    a = y\n", ""), "matches nothing"),
    "other spaces": (Edit("def f(x):\n  a = x\n", ""), "with their indents"),
    "further left": (Edit("      a = x\n", "    a = x\n"), "with their indents"),
    "twice but for spaces": (Edit("a = x\n", ""), "matches at lines 2, 4"),
    "nothing": (Edit("\n", "x\n"), "searches nothing"),
    "twice": (Edit("    a = x\n", ""), "matches at lines 2, 4"),
}


@pytest.mark.parametrize(("edit", "word"), REFUSED.values(), ids=REFUSED.keys())
def test_what_does_not_match_once_is_told(edit, word):
    text = "def f(x):\n    a = x\n    b = x\n    a = x\n" if "2, 4" in word else TEXT
    with pytest.raises(BadSource, match=word):
        edited(text, [edit])


def test_the_nearest_line_is_marked():
    with pytest.raises(BadSource) as caught:
        edited(TEXT, [Edit("  a = x\nb = x\n", "")])
    assert "   2 |     a = x  <--- block 1 has '  a = x'" in str(caught.value)


@given(st.sampled_from(["", "  ", "\t", " " * 8]), st.sampled_from(["", " ", "\r", " \t"]))
def test_spaces_that_all_lines_have_otherwise_do_not_count(indent, end):
    search = f"{indent}a = x{end}\n{end}\n{indent}if a:\n{indent}    b = x{end}\n"
    new = f"{indent}a = 1\n\n{indent}while a:\n{indent}    b = 2\n"
    text = "def f(x):\n    a = x \n\n    if a:\r\n        b = x\n    return b\n"
    made = edited(text, [Edit(search, new)])
    assert made == "def f(x):\n    a = 1\n\n    while a:\n        b = 2\n    return b\n"


def test_what_stands_there_to_the_letter_goes_first():
    text = "if x:\n    a = 1\na = 1\n"
    assert edited(text, [Edit("a = 1\n", "a = 2\n")]) == "if x:\n    a = 1\na = 2\n"


def test_edits_are_made_in_turn():
    edits = [Edit("    a = x\n", "    a = 1\n"), Edit("    a = 1\n", "    a = 2\n")]
    assert "a = 2" in edited(TEXT, edits)


def test_a_code_parameter_reads_blocks_as_a_change_of_its_present_text():
    @bundle(trainable=True)
    def f(x):
        a = x
        return a + 1

    before = f.parameter.data
    assert f.parameter.read(block("    a = x\n", "    a = 2 * x\n")) == before.replace(
        "a = x", "a = 2 * x"
    )
    for reply in (block("    c = x\n", ""), block("    return a + 1\n", "    return (\n")):
        with pytest.raises(tg.Rejected) as caught:
            f.parameter.read(reply)
        assert "<---" in caught.value.reason
    assert f.parameter.read(before) == before
    assert f.parameter.data == before


WHOLE = "def f(x):\n    a = '''\none\n'''\n    return a\n"


@pytest.mark.parametrize(
    "reply",
    [
        WHOLE.replace("\n", "\r\n"), WHOLE.replace("\n", "\r"), f"\ufeff{WHOLE}",
        f"```python\n{WHOLE}```", f"So:\n\n```\n{WHOLE}```\n\nIt is right.\r\n",
        "  def f(x):\n      a = '''\none\n'''\n      return a\n",
    ],
)  # fmt: skip
def test_code_is_read_as_models_write_it(reply):
    @bundle(trainable=True)
    def f(x):
        return x

    text = f.parameter.read(reply)
    assert text == WHOLE
    f.parameter.assign(text)
    assert f(1).data == "\none\n"


@pytest.mark.parametrize(
    "reply", [f"```\n{WHOLE}```\n```\n{WHOLE}```", "def f(x):\n return '", "", "```\n\n```"]
)
def test_what_is_not_code_is_refused_as_before(reply):
    @bundle(trainable=True)
    def f(x):
        return x

    with pytest.raises(tg.Rejected, match=r"does not parse|must define 'f'"):
        f.parameter.read(reply)


def test_a_fence_in_documentation_is_no_reply():
    broken = 'def f(x):\n    """\n    ```\n    f(1)\n    ```\n    """\n    return (\n'
    assert code_in(broken) == broken
    assert code_in(f"```\n{broken}```") == broken


def test_our_own_decorator_is_refused_with_its_line():
    @bundle(trainable=True)
    def f(x):
        return x

    with pytest.raises(tg.Rejected, match="leave out @bundle") as caught:
        f.parameter.read("import math\n\n@tg.bundle(trainable=True)\ndef f(x):\n    return 1\n")
    assert "3 | @tg.bundle(trainable=True)  <--- leave this out" in caught.value.reason


def test_a_prompt_may_hold_blocks():
    words = block("a\n", "b\n")
    prompt = tg.node("a\n", trainable=True)
    assert prompt.read(words) == words


@given(LINES, st.lists(st.sampled_from(["a", "b", "def f():"]), min_size=1, max_size=3))
def test_lines_that_are_indented_otherwise_are_found_where_they_are(lines, wanted):
    """However they are looked for: each place is where the block stands with an indent."""
    lines = [f"  {line}" for line in lines * 4]
    places = [
        at + 1
        for at in range(len(lines) - len(wanted) + 1)
        if lines[at : at + len(wanted)] == [f"  {line}" for line in wanted]
    ]
    edit = Edit("".join(f"{line}\n" for line in wanted), "x\n")
    text = "".join(f"{line}\n" for line in lines)
    if len(places) == 1:
        (at,) = places
        new = [*lines[: at - 1], "  x", *lines[at - 1 + len(wanted) :]]
        assert edited(text, [edit]) == "".join(f"{line}\n" for line in new)
        return
    told = f"at lines {', '.join(map(str, places[:10]))};" if places else "matches nothing"
    with pytest.raises(BadSource, match=told):
        edited(text, [edit])


@given(
    st.text(st.sampled_from("aß\n\r\x0c\u2028"), max_size=12),
    st.lists(st.tuples(st.integers(0, 20), st.sampled_from(["", "ö", "xy"])), max_size=4),
)
def test_parts_of_a_text_are_replaced_where_python_counts_them(text, cuts):
    lines = text.encode().splitlines(keepends=True)
    for number in range(1, len(lines) + 1):
        assert offset(text, number, 0) == len(b"".join(lines[: number - 1]))
        assert offset(text, number, None) == len(b"".join(lines[:number]))
    starts = sorted({offset(text, line, 0) for line in range(1, len(lines) + 1)})
    spans = [
        Span(begin, end, new)
        for (at, new), begin, end in zip(cuts, starts, starts[1:], strict=False)
        if at % 2
    ]
    naive = text.encode()
    for one in reversed(spans):
        naive = naive[: one.start] + one.new.encode() + naive[one.end :]
    assert replaced(text, spans[::-1]) == naive.decode()
