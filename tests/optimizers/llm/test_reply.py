"""The tolerant reader: a table of ugly replies, and laws over all of them."""

from __future__ import annotations

import json
import math
import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from optimizers.llm.reply import Form, read_reply
from tracegraph.errors import UnreadableReply
from tracegraph.llm.lenient import Lenient, read_value

KNOWN: dict[str, Form] = {
    "prompt": "text",
    "code": "text",
    "x": "json",
    "y": "json",
    "rate:0": "json",
    "x1:0": "json",
    "x:10": "json",
    "a.b[0]": "json",
}

# name: (reply, suggestions, a word that must stand in the problems or None for no problem)
TABLE: dict[str, tuple[str, dict[str, Any], str | None]] = {
    "plain": ('{"reasoning": "r", "answer": "a", "suggestion": {"x": 1}}', {"x": 1}, None),
    "fenced": ('```json\n{"suggestion": {"x": 1}}\n```', {"x": 1}, None),
    "fence without language, prose around": (
        'Here you go {smile}:\n```\n{"suggestion": {"x": [1, {"k": 2}]}}\n```\nGood luck {you}!',
        {"x": [1, {"k": 2}]},
        None,
    ),
    "fence inside a value": (
        '```json\n{"suggestion": {"prompt": "Write\\n```python\\n1\\n```\\nend"}}\n```',
        {"prompt": "Write\n```python\n1\n```\nend"},
        None,
    ),
    "wrong case and plural": ('{"Reasoning": "r", "SUGGESTIONS": {"x": 1}}', {"x": 1}, None),
    "no wrapper": ('{"reasoning": "r", "x": 1, "prompt": "p"}', {"x": 1, "prompt": "p"}, None),
    "only names": ('{"x": 1}', {"x": 1}, None),
    "wrapped once more": ('{"response": {"suggestion": {"x": 1}}}', {"x": 1}, None),
    "list of pairs": (
        '{"suggestion": [{"name": "x", "value": 1}, {"name": "prompt", "value": "p"}]}',
        {"x": 1, "prompt": "p"},
        None,
    ),
    "list of objects": ('{"suggestion": [{"x": 1}, {"y": 2}]}', {"x": 1, "y": 2}, None),
    "json in a string": ('{"suggestion": "{\\"x\\": 1}"}', {"x": 1}, "within a string"),
    "all of it a string": ('"{\\"suggestion\\": {\\"x\\": 1}}"', {"x": 1}, None),
    "trailing commas": ('{"suggestion": {"x": [1, 2,], "y": 2,},}', {"x": [1, 2], "y": 2}, None),
    "missing comma": ('{"suggestion": {"x": 1 "y": 2}}', {"x": 1, "y": 2}, "comma"),
    "missing comma at a line's end": (
        '{"suggestion": {"prompt": "p"\n"y": 2}}',
        {"prompt": "p", "y": 2},
        "comma",
    ),
    "python literals": (
        "{'suggestion': {'x': True, 'y': (1, -2.5e3), 'prompt': 'it\\'s \"so\"'}}",
        {"x": True, "y": [1, -2500.0], "prompt": 'it\'s "so"'},
        None,
    ),
    "python None": ("{'suggestion': {'x': None, 'y': 1}}", {"y": 1}, "no change"),
    "null": ('{"suggestion": {"x": null, "y": 1}}', {"y": 1}, "no change"),
    "all null": ('{"suggestion": null}', {}, None),
    "nothing suggested": ('{"reasoning": "r", "suggestion": {}}', {}, None),
    "no suggestion": ('{"reasoning": "r", "answer": "a"}', {}, "no 'suggestion'"),
    "raw line breaks": (
        '{"suggestion": {"prompt": "a\n\tb\r\nc"}}',
        {"prompt": "a\n\tb\r\nc"},
        None,
    ),
    "unescaped quotes": (
        '{"suggestion": {"prompt": "Say "hi", then "bye"", "x": 1}}',
        {"prompt": 'Say "hi", then "bye"', "x": 1},
        "not escaped",
    ),
    "unescaped quotes in code": (
        '{"suggestion": {"code": "def f(): return {"a": "b"}", "x": 1}}',
        {"code": 'def f(): return {"a": "b"}', "x": 1},
        "not escaped",
    ),
    "triple quotes": (
        '{"suggestion": {"code": """def f():\n    return "\\n"\n""", "x": 1}}',
        {"code": 'def f():\n    return "\\n"\n', "x": 1},
        "triple",
    ),
    "unknown escape": ('{"suggestion": {"prompt": "\\d+"}}', {"prompt": "\\d+"}, "no escape"),
    "surrogates": (
        '{"suggestion": {"prompt": "\\ud83c\\udf89 \\u00e9"}}',
        {"prompt": "🎉 é"},
        None,
    ),
    "line comments": (
        '{"suggestion": {"x": 1, // better\n "y": 2 # too\n}}',
        {"x": 1, "y": 2},
        None,
    ),
    "keys without quotes": ("{suggestion: {x: 1, rate:0: 2}}", {"x": 1, "rate:0": 2}, None),
    "no JSON value": ('{"suggestion": {"x": ten, "y": 2}}', {"y": 2}, "'ten'"),
    "an expression": ('{"suggestion": {"y": 2, "x": 1 + 2}}', {"y": 2}, "'1 + 2'"),
    "huge number": ('{"suggestion": {"y": 1, "x": ' + "9" * 9999 + "}}", {"y": 1}, "not a JSON"),
    "cut in a text": ('{"suggestion": {"x": 1, "prompt": "Answer wi', {"x": 1}, "cut off"),
    "cut in a number": ('{"suggestion": {"x": 1, "y": 12', {"x": 1}, "'y'"),
    "cut in a list": ('{"suggestion": {"x": 1, "y": [1, 2', {"x": 1}, "incomplete"),
    "cut in an object": ('{"suggestion": {"x": 1, "y": {"k": 2, "l', {"x": 1}, "incomplete"),
    "cut behind a value": (
        '```json\n{"suggestion": {"x": 1, "y": 2,\n',
        {"x": 1, "y": 2},
        "cut off",
    ),
    "braces missing": ('{"suggestion": {"prompt": "p"', {"prompt": "p"}, "cut off"),
    "cut inside a fence": (
        '```json\n{"suggestion": {"x": 1, "prompt": "Answ\n```',
        {"x": 1},
        "cut",
    ),
    "broken later": ('{"suggestion": {"x": 1, "y": 2, oops!}}', {"x": 1, "y": 2}, "cannot be read"),
    "unknown name": ('{"suggestion": {"z": 1, "x": 2}}', {"x": 2}, "'z' is no parameter"),
    "only unknown names": ('{"suggestion": {"z": 1}}', {}, "'z' is no parameter"),
    "names with signs": (
        '{"suggestion": {"rate:0": 1, "a.b[0]": 2}}',
        {"rate:0": 1, "a.b[0]": 2},
        None,
    ),
    "without the colon": ('{"suggestion": {"rate0": 1, "`x`": 2}}', {"rate:0": 1, "x": 2}, None),
    "ambiguous without the colon": ('{"suggestion": {"x10": 1, "y": 2}}', {"y": 2}, "can mean any"),
    "exact beside inexact": (
        '{"suggestion": {"RATE0": 1, "rate:0": 2}}',
        {"rate:0": 2},
        "suggested twice",
    ),
    "inexact beside exact": (
        '{"suggestion": {"rate:0": 2, "RATE0": 1}}',
        {"rate:0": 2},
        "suggested twice",
    ),
    "duplicate keys": ('{"suggestion": {"x": 1, "x": 2}}', {"x": 2}, "appears twice"),
    "TERMINATE": (
        '{"suggestion": {"prompt": "Say TERMINATE."}}',
        {"prompt": "Say TERMINATE."},
        None,
    ),
    "draft, then answer": (
        '<think>Maybe {"suggestion": {"x": 1}}?</think> {"suggestion": {"x": 2}}',
        {"x": 2},
        "2 proposals",
    ),
    "answer, then an example": (
        '{"suggestion": {"x": 2}} unlike {"x": 9}',
        {"x": 2},
        "2 proposals",
    ),
    "set before": ('The set {"a", "b} is: {"suggestion": {"x": 1}}', {"x": 1}, None),
    "not an object": ('{"suggestion": "use fewer words"}', {}, "must be an object"),
    "types stay as written": (
        '{"suggestion": {"x": "2.9", "prompt": 5, "y": "no"}}',
        {"x": "2.9", "prompt": 5, "y": "no"},
        None,
    ),
    "tags": (
        "<reasoning>r < s</reasoning>\n<variable>\n<name>prompt</name>\n<value>  a & b <c>\n"
        "</value>\n</variable>\n<variable><name> x </name><value> [1, True] </value></variable>",
        {"prompt": "  a & b <c>\n", "x": [1, True]},
        None,
    ),
    "tags in a fence": (
        "```xml\n<suggestion><variable><name>code</name><value>    if a:\n\tb\n</value></variable>"
        "</suggestion>\n```",
        {"code": "    if a:\n\tb\n"},
        None,
    ),
    "look-alike in a value": (
        "<variable><name>prompt</name><value>Write <value>1</value> or "
        "<value>2</value></variable> now</value></variable>",
        {"prompt": "Write <value>1</value> or <value>2</value></variable> now"},
        None,
    ),
    "entities stay": (
        "<variable><name>prompt</name><value>a &amp; b</value></variable>",
        {"prompt": "a &amp; b"},
        None,
    ),
    "json in tags": (
        '<variable><name>prompt</name><value>{"suggestion": {"x": 1}}</value></variable>',
        {"prompt": '{"suggestion": {"x": 1}}'},
        None,
    ),
    "tags in json": (
        '{"suggestion": {"prompt": "<variable><name>x</name><value>1</value></variable>"}}',
        {"prompt": "<variable><name>x</name><value>1</value></variable>"},
        None,
    ),
    "no JSON in tags": (
        "<variable><name>x</name><value> red </value></variable>",
        {"x": "red"},
        None,
    ),
    "name in an attribute": ('<variable name="x"><value>1</value></variable>', {"x": 1}, None),
    "unclosed reasoning": (
        "<reasoning>because <variable><name>x</name><value>1</value></variable>",
        {"x": 1},
        None,
    ),
    "value without an end": (
        "<variable><name>x</name><value>1</value></variable><variable><name>y</name><value>12",
        {"x": 1},
        "no end",
    ),
    "value without an end in the middle": (
        "<variable><name>x</name><value>1\n<variable><name>y</name><value>2</value></variable>",
        {"y": 2},
        "no end",
    ),
    "value closed by its variable": ("<variable><name>x</name><value>1</variable>", {"x": 1}, None),
    "unknown name in tags": (
        "<variable><name>z</name><value>1</value></variable>",
        {},
        "'z' is no parameter",
    ),
}

UNREADABLE = {
    "empty": "",
    "blank": " \n\t ",
    "prose": "I would make the prompt shorter.",
    "another object": '{"foo": 1}',
    "a list": "[1, 2, 3]",
    "cut before any suggestion": '{"reasoning": "because the pro',
    "cut within the only suggestion": '{"reasoning": "r", "suggestion": {"prompt": "Answer wi',
    "cut within an object that has a known name": '{"suggestion": {"y": [{"k": 1, "x": false}',
    "only an opening": "{",
    "tags without an end": "<variable><name>x</name><value>1",
    "nested without end": '{"a":' * 5000,
    "brackets": "[" * 5000,
    "code": "def f():\n    return {1: 2}",
}


@pytest.mark.parametrize("name", TABLE)
def test_an_ugly_reply_is_read(name: str) -> None:
    reply, suggestions, problem = TABLE[name]
    read = read_reply(reply, KNOWN)
    assert read.suggestions == suggestions
    assert all(type(read.suggestions[k]) is type(v) for k, v in suggestions.items())
    if problem is None:
        assert read.problems == ()
    else:
        assert problem in "\n".join(read.problems)


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_reply_that_says_nothing_is_refused_with_a_reason(name: str) -> None:
    with pytest.raises(UnreadableReply) as caught:
        read_reply(UNREADABLE[name], KNOWN)
    assert caught.value.reply == UNREADABLE[name]
    assert caught.value.reason


def test_reasoning_and_answer_are_read_beside_the_suggestion() -> None:
    read = read_reply('{"Reasoning": "r", "answer": 4, "suggestion": {"x": 1}}', KNOWN)
    assert (read.reasoning, read.answer) == ("r", "4")
    read = read_reply(TABLE["unclosed reasoning"][0], KNOWN)
    assert read.reasoning == "because"


def test_a_parameter_may_be_called_like_a_key_of_the_form() -> None:
    known: dict[str, Form] = {"answer": "text", "suggestion": "text"}
    read = read_reply('{"suggestion": {"answer": "a", "suggestion": "s"}}', known)
    assert read.suggestions == {"answer": "a", "suggestion": "s"}
    assert read_reply('{"answer": "a"}', known).suggestions == {}


def test_problems_are_bounded() -> None:
    many = {f"unknown{i}": i for i in range(1000)}
    read = read_reply(json.dumps({"suggestion": {**many, "x": 1}}), KNOWN)
    assert read.suggestions == {"x": 1}
    assert len(read.problems) == 51
    assert max(map(len, read.problems)) < 2000


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.text(alphabet="\"'`\\{}[]<>:, \nabe/#"),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=12,
)
names = st.text(alphabet=string.ascii_letters + string.digits + ":._[] ", min_size=1, max_size=12)
prose = st.sampled_from(["", "Sure, here it is:\n", "I think {it} is [best] 'so':\n", "// note\n"])
fences = st.sampled_from([("", ""), ("```json\n", "\n```"), ("```\n", "\n```\nDone {now}.")])


@given(json_values, st.sampled_from([None, 2]), st.booleans())
def test_valid_json_is_read_exactly(value: Any, indent: int | None, ascii_only: bool) -> None:
    written = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert read_value(written) == value
    (found,) = Lenient(json.dumps({"k": value}, indent=indent)).objects()
    assert found.value == {"k": value}
    assert found.notes == []


@given(st.dictionaries(names, json_values, min_size=1, max_size=5), prose, fences, st.booleans())
def test_a_dumped_suggestion_comes_back_equal(
    suggestion: dict[str, Any], before: str, fence: tuple[str, str], wrapped: bool
) -> None:
    known: dict[str, Form] = dict.fromkeys(suggestion, "json")
    body: Any = {"reasoning": "r {", "suggestion": suggestion}
    reserved = {"suggestion", "suggestions", "reasoning", "answer"}
    spelled = {name.replace(":", "").strip().casefold() for name in suggestion}
    if not wrapped and not spelled & reserved:
        body = suggestion
    text = before + fence[0] + json.dumps(body) + fence[1]
    read = read_reply(text, known)
    assert read.suggestions == {k: v for k, v in suggestion.items() if v is not None}


@given(st.dictionaries(st.sampled_from("abcdef"), json_values, min_size=1), st.data())
def test_a_cut_reply_yields_complete_values_or_none(
    suggestion: dict[str, Any], data: st.DataObject
) -> None:
    text = json.dumps({"reasoning": "r", "suggestion": suggestion})
    cut = text[: data.draw(st.integers(0, len(text)))]
    try:
        read = read_reply(cut, dict.fromkeys("abcdef", "json"))
    except UnreadableReply:
        return
    assert all(suggestion[name] == value for name, value in read.suggestions.items())


@given(st.text(alphabet=string.ascii_letters + "<>/& \n\t\"'`{}"))
def test_a_text_in_tags_comes_back_verbatim(value: str) -> None:
    text = f"<variable>\n<name>prompt</name>\n<value>{value}</value>\n</variable>"
    assert read_reply(text, {"prompt": "text"}).suggestions == {"prompt": value}


SIGNS = list("{}[]()\"'`,:\\/#<>=-.x1 \n")
WORDS = ["suggestion", "null", "<variable>", "<name>", "</name>", "<value>", "</value>"]
WORDS += ["</variable>", '{"suggestion": {"x": ', "\\u12", '"""', "//", "```"]
pieces = st.sampled_from(SIGNS + WORDS)


@given(st.text() | st.lists(pieces, max_size=60).map("".join))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        read = read_reply(text, KNOWN)
    except UnreadableReply:
        return
    assert read.suggestions.keys() <= KNOWN.keys()
    assert None not in read.suggestions.values()


ADVERSARIES = [
    "{",
    '{"',
    '{"a":',
    '{"a":[',
    '{"a":"b"',
    '{"a":"b" ',
    "{'a':\"",
    '{"x":"" "',
    '"',
    '{"x": 1, ',
    '{"suggestion": {"x": ',
    "[",
    "{a",
    "{//",
    '{"a":"\n',
    '{"x":"\\',
    '"}',
    '{"x": "q"q"}}\n\n',
]


@pytest.mark.parametrize("piece", ADVERSARIES)
def test_the_work_is_linear_in_the_text(piece: str) -> None:
    for length in (2_000, 20_000):
        lenient = Lenient(piece * (length // len(piece)))
        for found in lenient.objects():
            lenient.look_inside(found)
        assert lenient.work <= 9 * length + 2_000


def test_ten_megabytes_are_read() -> None:
    value = "A line of the prompt. " * 480_000
    text = json.dumps({"reasoning": "r", "suggestion": {"prompt": value, "x": 1}})
    read = read_reply("Sure:\n" + text, KNOWN)
    assert len(text) > 10_000_000
    assert read.suggestions == {"prompt": value, "x": 1}
    assert read_reply(text[:-3], KNOWN).suggestions == {"prompt": value}
    with pytest.raises(UnreadableReply):
        read_reply("{" * 10_000_000, KNOWN)


def test_numbers_that_json_writes_for_no_number() -> None:
    read = read_reply('{"suggestion": {"x": NaN, "y": -Infinity}}', KNOWN)
    assert math.isnan(read.suggestions["x"])
    assert read.suggestions["y"] == -math.inf
