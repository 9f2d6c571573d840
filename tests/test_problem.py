"""What a problem promises: the same text everywhere, bounded, whole where it matters, honest."""

from __future__ import annotations

import dataclasses
import enum
import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Annotated, Any, Literal

import pydantic
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tracegraph as tg
from tracegraph import bundle, node
from tracegraph.llm.tokens import count_tokens, prefix, shares
from tracegraph.problem import Problem

ROOT = Path(__file__).resolve().parents[1]


def problem_of(*parameters: Any, **options: Any) -> Problem:
    return Problem.of({p.label: p for p in parameters}, **options)


# The same program gives the same text

PROGRAM = textwrap.dedent(
    """
    import dataclasses, enum
    import tracegraph as tg
    from tracegraph import bundle, node
    from tracegraph.problem import Problem

    class Mood(enum.Enum):
        CALM = 1
        LOUD = 2

    class Opaque:
        pass

    @dataclasses.dataclass(frozen=True)
    class Item:
        word: str
        thing: object = None

    @bundle
    def gather(words, extras, *, mood=Mood.CALM):
        "Join what is there."
        return [type(word) for word in words], {"n": len(extras), "who": Opaque()}

    @bundle
    def fail(thing, words):
        raise TypeError(f"cannot use {thing}")

    def build():
        prompt = node("Say hello.", trainable=True, name="prompt")
        tags = node({"a", "b", "c", "dd", "eee"}, trainable=True, name="tags")
        words = node({"x", "yy", "zzz", Item("q", Opaque()), Item("r")}, name="words")
        large = node({str(i) for i in range(20_000)}, name="large")
        out = gather([prompt, tags, 1], {"set": words, "large": large})
        try:
            fail(Opaque(), [prompt, out])
        except TypeError as error:
            bad = tg.failed_node(error)
            tg.backward([(out, "too long", 0.5), (bad, error), (out, 0.25)])
        return Problem.of({"prompt": prompt, "tags": tags}, instruction="Improve.").text()
    """
)


def test_the_same_program_gives_the_same_text_twice_in_one_process() -> None:
    space: dict[str, Any] = {"__name__": "program"}
    exec(compile(PROGRAM, "<program>", "exec", dont_inherit=True), space)
    node("ids move on")
    assert space["build"]() == space["build"]()


def test_the_same_program_gives_the_same_text_in_two_interpreters() -> None:
    texts = [
        subprocess.run(
            [sys.executable, "-c", PROGRAM + "\nprint(build())"],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            timeout=60,
            check=True,
            stdin=subprocess.DEVNULL,
        ).stdout
        for seed in ("1", "4242")
    ]
    assert texts[0] == texts[1]
    assert b"cannot use" in texts[0]
    assert b"0x" not in texts[0]


SHAPES = ["add", "list", "call", "upper", "captured", "constant", "fail"]


@bundle
def joined(items: Any) -> str:
    return "".join(map(str, items))


@bundle
def refused(x: Any) -> Any:
    raise ValueError("no")


def run_program(moves: list[tuple[str, int, int]]) -> tuple[dict[str, Any], list[tg.Node[Any]]]:
    """A random program over text parameters: its parameters and the ends that got feedback."""
    parameters = {f"p{i}": node(f"v{i}", trainable=True, name=f"p{i}") for i in range(3)}
    values: list[Any] = [*parameters.values(), node("given", name="p0x"), node("unnamed")]
    for shape, first, second in moves:
        a, b = values[first % len(values)], values[second % len(values)]
        if shape == "add":
            made = a + b
        elif shape == "list":
            made = joined([a, {"k": b}.get("k"), "plain"])
        elif shape == "call":
            made = joined((a, b))
        elif shape == "upper":
            made = a.upper()
        elif shape == "captured":
            made = _captured(a, b)
        elif shape == "constant":
            made = a + "!"
        else:
            try:
                refused(a)
            except ValueError as error:
                made = tg.failed_node(error)
        values.append(made)
    ends = [v for v in values[-2:] if tg.Graph.of(v).parameters]
    tg.backward([(end, f"remark {i}", 1.0 + i) for i, end in enumerate(ends)])
    return parameters, ends


def _captured(a: Any, b: Any) -> Any:
    @bundle
    def reader(x: str) -> str:
        return x + b.data  # type: ignore[no-any-return]

    return reader(a)


programs = st.lists(
    st.tuples(st.sampled_from(SHAPES), st.integers(0, 30), st.integers(0, 30)), max_size=25
)


@given(programs)
@settings(max_examples=50, deadline=None)
def test_a_random_program_replayed_gives_the_same_problem(moves: list[Any]) -> None:
    first, _ = run_program(moves)
    second, _ = run_program(moves)
    assert Problem.of(first) == Problem.of(second)
    assert Problem.of(first).text() == Problem.of(second).text()


@given(programs, st.sampled_from([300, 600, 4_000]))
@settings(max_examples=50, deadline=None)
def test_names_are_distinct_and_every_name_that_is_used_is_told(
    moves: list[Any], budget: int
) -> None:
    parameters, ends = run_program(moves)
    problem = Problem.of(parameters, budget=budget)
    told = [*(v.name for v in problem.variables), *(f.name for f in problem.inputs)]
    told += [s.name for s in problem.steps]
    assert len(set(told)) == len(told)
    if not problem.left_out:
        known = {*told, "..."}
        used = {value for step in problem.steps for _, value in step.arguments}
        assert {u for u in used if u.isidentifier()} <= known
        assert set(problem.outputs) <= set(told)
        assert {s.output for s in problem.feedback} <= set(told)
        assert len(problem.outputs) == len(ends)


@given(programs, st.sampled_from([300, 1_000, 4_000]))
@settings(max_examples=40, deadline=None)
def test_a_random_program_stays_within_the_budget(moves: list[Any], budget: int) -> None:
    parameters, _ = run_program(moves)
    assert count_tokens(Problem.of(parameters, budget=budget).text()) <= 1.2 * budget


# Names


def test_a_name_given_by_a_person_never_collides_with_a_numbered_one() -> None:
    first = node("a", trainable=True, name="upper0")
    second = node("b", trainable=True, name="upper")
    given_ = node("c", name="upper")
    end = joined([first.upper(), second.upper(), given_])
    end.backward("no")
    problem = problem_of(first, second)
    names = [v.name for v in problem.variables] + [f.name for f in problem.inputs]
    names += [s.name for s in problem.steps]
    assert sorted(names) == sorted(set(names))
    assert {"upper0", "upper"} <= set(names)


def test_a_name_that_is_no_identifier_becomes_one() -> None:
    prompt = node("a", trainable=True, name="prompt")
    (prompt + node("b" * 60, name="my doc: 1/2")).backward("no")
    (fact,) = problem_of(prompt).inputs
    assert fact.name == "my_doc__1_20"


def test_two_functions_of_one_name_are_told_apart() -> None:
    def made(suffix: str, doc: str) -> Any:
        source = f"def act(x):\n    {doc!r}\n    return x + {suffix!r}\n"
        space: dict[str, Any] = {}
        exec(source, space)
        return bundle(space["act"])

    one, two = made("a", "The first."), made("b", "The second.")
    prompt = node("p", trainable=True, name="prompt")
    two(one(prompt)).backward("no")
    problem = problem_of(prompt)
    assert [s.operation for s in problem.steps] == ["act", "act_2"]
    assert "The first." in problem.documentation["act"]
    assert "The second." in problem.documentation["act_2"]


# The budget


def test_a_thousand_variables_stay_within_the_budget() -> None:
    parameters = {f"p{i}": node(float(i), trainable=True, name=f"p{i}") for i in range(1_000)}
    joined(list(parameters.values())).backward("too low")
    problem = Problem.of(parameters, budget=4_000)
    assert count_tokens(problem.text()) <= 4_800
    assert len(problem.variables) >= 150
    hidden = 1_000 - len(problem.variables)
    assert f"{hidden:,} variables are left out and keep their values" in problem.text()
    assert re.search(r"\.\.\.=\d+ more", problem.steps[0].line)


def test_variables_that_received_feedback_come_before_those_that_did_not() -> None:
    parameters = {f"p{i}": node("word " * 40, trainable=True, name=f"p{i}") for i in range(500)}
    (parameters["p499"] + "!").backward("about this one")
    problem = Problem.of(parameters, budget=1_000)
    assert "p499" in {v.name for v in problem.variables}
    assert "variables are left out" in problem.left_out


def test_a_long_chain_keeps_its_ends_and_counts_what_it_leaves_out() -> None:
    prompt = node("start", trainable=True, name="prompt")
    value = prompt + node("first " * 20, name="first_input")
    for number in range(2_000):
        value = value + node(f"{number} " * 20, name=f"i{number}")
    value = value.upper()
    value.backward("too long")
    problem = problem_of(prompt, budget=4_000)
    assert count_tokens(problem.text()) <= 4_800
    assert problem.steps[0].arguments[0] == ("x", "prompt")
    assert problem.steps[-1].operation == "upper"
    assert problem.outputs == (problem.steps[-1].name,)
    left = 2_002 - len(problem.steps)
    assert f"({left:,} operations in the middle are left out)" in problem.text()


def test_values_of_a_megabyte_are_cut_and_the_cut_is_told() -> None:
    prompt = node("p " * 500_000, trainable=True, name="prompt")
    end = joined([prompt, node("doc " * 250_000, name="doc")])
    end.backward("remark " * 150_000)
    problem = problem_of(prompt, instruction="do " * 300_000, budget=4_000)
    assert count_tokens(problem.text()) <= 4_800
    (variable,) = problem.variables
    assert not variable.whole
    assert re.search(r"\[\.\.\. [\d,]+ characters not shown \.\.\.\]", variable.value)
    assert "characters)" in problem.feedback[0].text
    assert "characters)" in problem.instruction


@pytest.mark.parametrize("letter", ["中", "é", " ", "\n", "{", "a", "😀"])
def test_any_script_stays_within_the_budget(letter: str) -> None:
    prompt = node(letter * 100_000, trainable=True, name="prompt")
    (prompt + letter * 100_000).backward("x" + letter * 100_000)
    problem = problem_of(prompt, budget=2_000)
    assert count_tokens(problem.text()) <= 2_400
    assert len(problem.text()) <= 2_000 * 20


def test_many_outputs_keep_each_remark_beside_its_output() -> None:
    prompt = node("a", trainable=True, name="prompt")
    tg.backward([(prompt + str(i), f"remark {i} " * 30) for i in range(300)])
    problem = problem_of(prompt, budget=4_000)
    assert count_tokens(problem.text()) <= 4_800
    assert {s.output for s in problem.feedback} == {s.name for s in problem.steps}
    assert f"{300 - len(problem.feedback)} remarks and their outputs are left out" in (
        problem.left_out
    )


def test_a_thousand_inputs_of_one_call_are_not_all_told() -> None:
    prompt = node("a", trainable=True, name="prompt")
    joined([prompt, *(node("text " * 30, name=f"t{i}") for i in range(1_000))]).backward("no")
    problem = problem_of(prompt, budget=2_000)
    assert count_tokens(problem.text()) <= 2_400
    assert len(problem.inputs) < 40
    assert "more" in problem.steps[0].line


def test_constraints_and_descriptions_are_within_the_budget_too() -> None:
    words = tuple(f"word{i}" for i in range(5_000))
    choice = node(
        "word1",
        trainable=True,
        name="choice",
        constraint=Literal[words],
        description="said " * 10_000,
    )
    (choice + "!").backward("no")
    problem = problem_of(choice, budget=2_000)
    assert count_tokens(problem.text()) <= 2_400


def test_what_fits_is_shown_whole() -> None:
    text = "Answer the customer. " * 60
    prompt = node(text, trainable=True, name="prompt")
    prompt.upper().backward("Too loud, " * 50)
    problem = problem_of(prompt)
    assert problem.variables[0].value == text
    assert problem.variables[0].whole
    assert problem.feedback[0].text == "Too loud, " * 50
    assert problem.left_out == ""


@given(
    st.lists(st.integers(0, 1_000), min_size=1, max_size=40),
    st.integers(10, 5_000),
    st.integers(1, 100),
)
def test_shares_keep_to_the_total_and_serve_the_small_first(
    sizes: list[int], total: int, least: int
) -> None:
    given_ = shares(sizes, total, least)
    assert len(given_) == len(sizes)
    assert all(share <= size for share, size in zip(given_, sizes, strict=True))
    assert sum(given_) <= max(total, min(sizes[0], max(total, least)))
    if sum(sizes) <= total:
        assert given_ == sizes


@given(st.text(max_size=500), st.integers(1, 100))
def test_a_prefix_is_a_prefix_within_its_tokens(text: str, tokens: int) -> None:
    kept = prefix(text, tokens, note="")
    assert text.startswith(kept)
    assert count_tokens(kept) <= tokens


# What is shown


def test_masks_hide_sections_and_unknown_ones_are_refused() -> None:
    prompt = node("a", trainable=True, name="prompt", constraint="keep it short")
    (prompt + node("b" * 50, name="doc")).upper().backward("no")
    problem = problem_of(prompt, instruction="Improve.")
    titles = re.findall(r"^#(\w+)$", problem.text(), re.MULTILINE)
    assert titles == [
        "Instruction", "Code", "Documentation", "Variables", "Constraints", "Inputs", "Others",
        "Outputs", "Feedback",
    ]  # fmt: skip
    for title in titles:
        for written in (title, f"#{title}", title.lower()):
            left = re.findall(r"^#(\w+)$", problem.text([written]), re.MULTILINE)
            assert left == [t for t in titles if t != title]
    with pytest.raises(ValueError, match=r"no section 'Colour'; it has Instruction, Code"):
        problem.text(["Colour"])


def test_several_outputs_are_told_with_their_weights_and_score() -> None:
    prompt = node("a", trainable=True, name="prompt")
    good, bad = prompt + "1", prompt + "2"
    tg.backward([(good, ("fine", 1.0)), (bad, ("poor", 0.0), 3.0)])
    problem = problem_of(prompt)
    assert problem.score == 0.25
    assert problem.text(["Code", "Variables", "Outputs", "Documentation"]) == (
        "#Feedback\nadd0: fine\nadd0: score 1\nadd1 (weight 3): poor\nadd1 (weight 3): score 0"
    )


def test_a_failed_node_is_shown_with_the_marked_line() -> None:
    @bundle
    def divide(x: int, y: int) -> float:
        """Divide."""
        half = x / 2
        return half / y

    top = node(3, trainable=True, name="top")
    with pytest.raises(ZeroDivisionError) as caught:
        divide(top, 0)
    failed = tg.failed_node(caught.value)
    assert failed is not None
    failed.backward(caught.value)
    problem = problem_of(top)
    (step,) = problem.steps
    assert step.failed
    assert step.value.startswith("(ZeroDivisionError) ")
    assert re.search(r"return half / y +<--- \(ZeroDivisionError\)", step.value)
    small = problem_of(top, budget=300)
    assert re.search(r"return half / y +<--- \(ZeroDivisionError\)", small.steps[0].value)
    assert "half = x / 2" not in small.steps[0].value or small.steps[0].value == step.value


def test_nested_containers_and_captured_inputs_are_shown() -> None:
    prompt = node("p", trainable=True, name="prompt")
    hidden = node("h", trainable=True, name="hidden")

    @bundle
    def reader(messages: list[dict[str, str]]) -> str:
        return messages[0]["content"] + hidden.data

    reader([{"role": "system", "content": prompt}]).backward("no")
    (step,) = problem_of(prompt, hidden).steps
    assert ("messages[0]['content']", "prompt") in step.arguments
    assert ("hidden", "hidden") in step.arguments
    assert ("messages", "[{'role': 'system', 'content': 'p'}]") in step.arguments


def test_descriptions_stand_apart_from_the_value() -> None:
    prompt = node("two\nlines", trainable=True, name="prompt", description="what is\nsaid first")
    doc = node("d" * 50, name="doc", description="the document")
    (prompt + doc).backward("no")
    text = problem_of(prompt).text()
    assert "# what is said first\n(text) prompt =\ntwo\nlines\n" in text
    assert f"doc0 = '{'d' * 50}'  # the document" in text


class Pace(enum.Enum):
    SLOW = 1
    FAST = 2


class Plan(pydantic.BaseModel):
    steps: list[str]
    pace: Literal["slow", "fast"] = "slow"


@dataclasses.dataclass
class Point:
    x: float
    y: float


def test_constraints_and_schemas_are_shown() -> None:
    parameters = [
        node(
            0.5,
            trainable=True,
            name="rate",
            constraint=Annotated[float, pydantic.Field(ge=0, le=1)],
        ),
        node("red", trainable=True, name="color", constraint=Literal["red", "green"]),
        node("a-1", trainable=True, name="code_name", constraint=re.compile(r"[a-z]-\d")),
        node("x", trainable=True, name="free", constraint="one word only"),
        node(Plan(steps=["a"]), trainable=True, name="plan", constraint=Plan),
        node(Pace.SLOW, trainable=True, name="pace"),
    ]
    joined(parameters).backward("no")
    problem = problem_of(*parameters)
    shown = {v.name: v for v in problem.variables}
    assert shown["color"].constraint == "one of 'red', 'green'"
    assert shown["code_name"].constraint == r"matches the regular expression [a-z]-\d"
    assert shown["free"].constraint == "one word only"
    assert shown["pace"].constraint == "one of SLOW, FAST"
    assert shown["rate"].json_schema == {"maximum": 1, "minimum": 0, "type": "number"}
    assert shown["plan"].json_schema is not None
    assert '"steps"' in shown["plan"].constraint
    assert "#Constraints\nrate: " in problem.text()


def test_what_a_value_was_when_it_was_recorded_is_shown() -> None:
    prompt = node("p", trainable=True, name="prompt")
    items = ["a"]
    first = joined([prompt, node(items, name="items")])
    items.append("later")
    first.backward("no")
    assert "later" not in problem_of(prompt).text()


def test_a_problem_without_any_feedback_has_its_variables() -> None:
    prompt = node("p", trainable=True, name="prompt")
    assert problem_of(prompt).text() == "#Variables\n(text) prompt = p"


def test_feedback_on_the_parameter_itself_is_told() -> None:
    prompt = node("p", trainable=True, name="prompt")
    prompt.backward("too short")
    assert problem_of(prompt).text().endswith("#Feedback\nprompt: too short")


def test_a_problem_is_plain_data() -> None:
    prompt = node("p", trainable=True, name="prompt")
    prompt.upper().backward("no")
    problem = problem_of(prompt)
    assert Problem.model_validate_json(problem.model_dump_json()) == problem


@pytest.mark.parametrize(
    ("parameters", "budget", "said"),
    [
        ([], 4_000, "give a mapping from names"),
        ({}, "many", "a whole number of tokens, got 'many'"),
        ({}, 1.5, "a whole number of tokens, got 1.5"),
    ],
)
def test_bad_input_is_refused(parameters: Any, budget: Any, said: str) -> None:
    with pytest.raises(TypeError, match=said):
        Problem.of(parameters, budget=budget)
