"""Rules: what made the difference between two runs of one example becomes a sentence of the text."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

import tracegraph as tg
from optimizers import Rules
from optimizers.records import records_of
from tracegraph.errors import OptimizerError
from tracegraph.llm import Request, Scripted

WAYS = ("by hand", "by machine", "by guess")


@tg.bundle
def work(prompt: str, order: str) -> str:
    """Does an order."""
    return f"{order} done"


def contrast(request: Request) -> str:
    """A model that sees what a better and a worse run did, and knows nothing else."""
    text = request.messages[-1].text
    pair = re.search(
        r"Better, score .*?order = '(\w+)'.*?gave: '(by \w+)'.*?Worse, score.*?gave: '(by \w+)'", text, re.S
    )  # fmt: skip
    if pair is None or pair[2] == pair[3]:
        return '{"suggestion": {}}'
    return json.dumps({"suggestion": {"prompt": f"When {pair[1]}, work {pair[2]}."}})


@pytest.fixture
def prompt() -> Any:
    return tg.node("Work.", trainable=True, name="prompt")


def suggest(rule: str) -> str:
    return json.dumps({"suggestion": {"prompt": rule}})


def give(rules: Rules, prompt: Any, *runs: tuple[str, float]) -> None:
    """Runs of an order with their scores; the same order is the same example."""
    rules.backward([(work(prompt, order), score) for order, score in runs])


def test_the_way_of_each_order_is_learned_from_runs_that_chance_made_differ(prompt: Any) -> None:
    right = {"wood": "by hand", "steel": "by machine"}
    rules = Rules([prompt], llm=Scripted(contrast), pairs=1)
    for turn in range(8):
        runs = [(order, chanced(prompt, order, turn + n)) for order in right for n in range(3)]
        rules.backward([(done, float(done.data == right[order])) for order, done in runs])
        rules.step()
    assert sorted(prompt.data.split("\n")) == [
        "- When steel, work by machine.", "- When wood, work by hand.", "Work.",
    ]  # fmt: skip


def chanced(prompt: Any, order: str, chance: int) -> Any:
    """One run of an order; what chance does is no input of it."""

    @tg.bundle(name="work")
    def run(prompt: str, order: str) -> str:
        ruled = re.search(rf"When {order}, work (by \w+)", prompt)
        return ruled[1] if ruled else WAYS[chance % 3]

    return run(prompt, order)


def test_only_runs_of_one_example_are_contrasted(prompt: Any) -> None:
    llm = Scripted([suggest("A rule.")])
    rules = Rules([prompt], llm=llm)
    give(rules, prompt, ("wood", 1.0), ("steel", 0.0))
    update = rules.step()
    assert not update
    assert "no example was run both better and worse" in update.note
    assert llm.requests == []
    give(rules, prompt, ("steel", 1.0))
    assert rules.step()
    shown = llm.requests[0].messages[-1].text
    assert "steel" in shown
    assert "wood" not in shown


def test_runs_of_one_example_before_and_after_a_change_are_contrasted(prompt: Any) -> None:
    llm = Scripted([suggest("A rule.")])
    rules = Rules([prompt], llm=llm)
    give(rules, prompt, ("wood", 0.0))
    rules.propose()
    rules.zero_feedback()
    prompt.assign("Work slowly.")
    give(rules, prompt, ("wood", 1.0))
    assert rules.step()
    assert prompt.data == "Work slowly.\n- A rule."


def test_the_largest_difference_comes_first_and_what_was_shown_waits(prompt: Any) -> None:
    llm = Scripted(lambda request: suggest(f"Rule {len(llm.requests)}."))
    rules = Rules([prompt], llm=llm, pairs=1)
    orders = [("wood", 0.4), ("steel", 0.9), ("glass", 0.6)]
    give(rules, prompt, *orders, *((order, 0.0) for order, _ in orders))
    asked = []
    for _ in range(3):
        rules.settle(rules.propose())
        (example,) = re.findall(
            r"order = '(\w+)'.*?Worse", llm.requests[-1].messages[-1].text, re.S
        )
        asked.append(example)
        give(rules, prompt, ("sand", 0.1))
    assert asked == ["steel", "glass", "wood"]


def test_a_rule_is_appended_and_the_oldest_gives_way(prompt: Any) -> None:
    replies = iter(["First.", "- Second\nrule.", "Third."])
    rules = Rules([prompt], llm=Scripted(lambda request: suggest(next(replies))), most=2)
    for _ in range(3):
        give(rules, prompt, ("wood", 1.0), ("wood", 0.0))
        rules.step()
    assert prompt.data == "Work.\n- Second rule.\n- Third."


@pytest.mark.parametrize(
    ("rule", "reason"),
    [
        ("x" * 401, "a rule may have 400 characters"),
        ("  - ", "empty"),
        ("Work.", "stands in the text already"),
    ],
)
def test_a_rule_that_cannot_be_used_is_refused_and_the_next_prompt_says_why(
    prompt: Any, rule: str, reason: str
) -> None:
    llm = Scripted([suggest(rule), suggest("Good.")])
    rules = Rules([prompt], llm=llm)
    give(rules, prompt, ("wood", 1.0), ("wood", 0.0))
    update = rules.step()
    assert reason in update.rejections[0].reason
    assert prompt.data == "Work."
    rules.step()
    assert reason in llm.requests[-1].messages[-1].text
    assert prompt.data == "Work.\n- Good."


def test_two_components_of_one_signature_learn_apart() -> None:
    one, two = (tg.node(f"Prompt {n}.", trainable=True, name=n) for n in ("one", "two"))

    @tg.bundle
    def ask(prompt: str, text: str) -> str:
        return f"{prompt} {text}"

    llm = Scripted(['{"suggestion": {"one": "For one.", "two": "For two."}}'])
    rules = Rules([one, two], llm=llm)
    rules.backward([(ask(one, "q"), 1.0), (ask(one, "q"), 0.0), (ask(two, "q"), 0.5)])
    update = rules.step()
    assert [change.name for change in update.changes] == ["one"]
    assert "Prompt two." not in llm.requests[0].messages[-1].text


def test_records_of_one_example_share_its_name_and_others_do_not(prompt: Any) -> None:
    outputs = [work(prompt, order).upper() for order in "aab"]
    tg.backward([(output, float(n)) for n, output in enumerate(outputs)])
    first, second, third = (record.example for record in records_of(prompt))
    assert first == second != third


def test_what_it_remembers_is_json_and_comes_back(prompt: Any) -> None:
    one = Rules([prompt], llm=Scripted(lambda request: suggest(f"Rule {prompt.version}.")))
    for _ in range(3):
        give(one, prompt, ("wood", 1.0), ("wood", 0.0), ("steel", 0.3))
        one.step()
    state = json.loads(json.dumps(one.state_dict()))
    two = Rules([prompt], llm=Scripted([]))
    two.load_state_dict(state)
    assert two.state_dict() == state
    for damaged in ({}, {**state, "runs": {"prompt": {"x": [1]}}}):
        with pytest.raises(OptimizerError, match="no state"):
            two.load_state_dict(damaged)
    assert two.state_dict() == state


def test_memory_and_prompt_stay_bounded(prompt: Any) -> None:
    llm = Scripted(lambda request: suggest(f"Rule {len(llm.requests)}."))
    rules = Rules([prompt], llm=llm, memory_size=5, budget=500)
    for n in range(20):
        give(rules, prompt, (f"order {n} " * 30, 1.0), (f"order {n} " * 30, 0.0))
        rules.step()
    assert len(rules.runs["prompt"]) == 5
    longest = max(sum(len(m.text) for m in request.messages) for request in llm.requests)
    assert longest <= 4 * 500 + 1_200  # one pair is shown whatever its length


def test_bad_input_is_refused() -> None:
    with pytest.raises(OptimizerError, match="is number"):
        Rules([tg.node(1, trainable=True)], llm=Scripted([]))
    for wrong in ({"pairs": 0}, {"most": 0}, {"longest": "many"}):
        with pytest.raises(OptimizerError, match="whole number"):
            Rules([tg.node("a", trainable=True)], llm=Scripted([]), **wrong)  # type: ignore[arg-type]
