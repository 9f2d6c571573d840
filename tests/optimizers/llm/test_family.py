"""What every optimizer that asks a model promises, and what each of them shows it."""

from __future__ import annotations

import copy
import json
from functools import partial
from typing import Any

import pytest

import tracegraph as tg
from optimizers import OPRO, SPO, Crossover, OptoPrime, Patch, Reflect, Rules, TextGrad, fit
from optimizers.llm.asking import ModelOptimizer
from optimizers.llm.memory import Memory
from optimizers.records import records_of
from tests.worlds.hidden_rules import HiddenRules
from tracegraph.errors import BudgetExceeded, ModelFailed, OptimizerError, UnreadableReply
from tracegraph.llm import Budgeted, Scripted

FAMILY = [OptoPrime, OPRO, TextGrad, Reflect]
NOTHING = '{"suggestion": {}}'


@tg.bundle
def answer(prompt: str, question: str) -> str:
    """Ask somebody."""
    return f"{prompt}?"


@pytest.fixture
def prompt() -> Any:
    return tg.node("Be kind.", trainable=True, name="prompt")


def suggest(**values: Any) -> str:
    return json.dumps({"reasoning": "why", "suggestion": values})


def shown(optimizer: ModelOptimizer) -> str:
    return "\n".join(m.text for m in optimizer.log[-1].messages)


# In the hidden-rule world


@pytest.mark.parametrize("make", FAMILY, ids=lambda m: m.__name__)
def test_only_what_was_said_can_be_learned(make: Any) -> None:
    accuracy = {}
    for masked in (True, False):
        world = HiddenRules(11, masked=masked, rules=8, sizes=(16, 8, 40))
        run, prompt = world.workflow()
        optimizer = make([prompt], llm=world.ask, budget=1_250)
        fit(run, world.train, world.guide, optimizer=optimizer, budget=160, batch_size=8, workers=1)
        accuracy[masked] = world.accuracy(prompt.data)
        assert world.longest <= 5_000
    assert accuracy[True] == 0.0
    assert accuracy[False] >= (0.1 if make is OPRO else 0.6)


# Every one of them


@pytest.mark.parametrize("make", [*FAMILY, Crossover, Rules], ids=lambda m: m.__name__)
@pytest.mark.parametrize(
    "reply",
    ["", "Of course! A better prompt is: Be brief & <kind>.", '{"suggestion": {"prompt": "Be',
     '{"suggestion": {"other": "x"}}', suggest(prompt=[1, 2]), "<IMPROVED>Be brief</IMPROVED>"],
)  # fmt: skip
def test_a_reply_that_cannot_be_read_never_becomes_a_value(
    make: Any, reply: str, prompt: Any
) -> None:
    optimizer = make([prompt], llm=Scripted(lambda request: reply))
    runs = [(answer(prompt, "Who?"), [score, "Say more."]) for score in (0.0, 1.0)]
    optimizer.backward(runs)
    update = optimizer.step()
    assert optimizer.log
    assert prompt.data == "Be kind."
    assert not update.changes


@pytest.mark.parametrize("make", [*FAMILY, Crossover], ids=lambda m: m.__name__)
def test_the_word_terminate_and_the_word_def_are_words_like_others(make: Any, prompt: Any) -> None:
    text = 'Say TERMINATE, "def" and <b>&amp;</b> at the end.'
    optimizer = make(
        [prompt], llm=Scripted(["critique", suggest(prompt=text)][make is not TextGrad :])
    )
    optimizer.backward(answer(prompt, "Who?"), [0.0, "Say more."])
    optimizer.step()
    assert prompt.data == text


@pytest.mark.parametrize("make", [*FAMILY, Crossover], ids=lambda m: m.__name__)
def test_a_refused_proposal_and_its_reason_reach_the_next_prompt(make: Any, prompt: Any) -> None:
    script = [suggest(prompt="Worse."), NOTHING]
    optimizer = make([prompt], llm=Scripted(["critique", *script] if make is TextGrad else script))
    optimizer.backward(answer(prompt, "Who?"), [0.0, "Say more."])
    proposal = optimizer.propose()
    optimizer.refuse(proposal, "it was tried and is worse", score=-1.0)
    optimizer.propose()
    assert "Worse." in shown(optimizer) or "it was tried and is worse" in shown(optimizer)


@pytest.mark.parametrize("make", [*FAMILY, Crossover], ids=lambda m: m.__name__)
def test_what_it_remembers_is_json_and_comes_back(make: Any, prompt: Any) -> None:
    def steps(optimizer: Any) -> None:
        for n in range(2):
            optimizer.backward(answer(prompt, f"Who {n}?"), [float(n), f"Say more {n}."])
            optimizer.settle(optimizer.propose())

    replies = iter(range(99))
    one = make([prompt], llm=Scripted(lambda request: suggest(prompt=f"v{next(replies)}")))
    steps(one)
    state = json.loads(json.dumps(one.state_dict()))
    two = make([prompt], llm=Scripted(lambda request: NOTHING))
    two.load_state_dict(state)
    assert two.state_dict() == state
    with pytest.raises(OptimizerError):
        two.load_state_dict({"nonsense": 1})
    assert two.state_dict() == state


# Repairs


@pytest.mark.parametrize(
    "make",
    [*FAMILY, Crossover, Rules, Patch, partial(SPO, requirements="short")],
    ids=lambda m: getattr(m, "__name__", "SPO"),
)
def test_a_copy_asks_the_same_model_and_owns_all_else(make: Any, prompt: Any) -> None:
    model = Budgeted(Scripted(lambda request: suggest(prompt="Be brief.")), calls=20)
    optimizer = make([prompt], llm=model)
    optimizer.backward([(answer(prompt, "Who?"), [score, "Say less."]) for score in (0.0, 1.0)])
    optimizer.step()
    assert optimizer.log
    remembered, asked = optimizer.state_dict(), dict(optimizer.asked)
    twin = copy.deepcopy(optimizer)
    (own,) = twin.parameters
    assert type(twin) is type(optimizer)
    assert twin.llm is optimizer.llm
    assert own is not prompt
    assert (own.data, twin.state_dict()) == (prompt.data, remembered)
    for number in range(3):
        runs = [(answer(own, f"What {number}?"), [score, "Be loud."]) for score in (0.0, 1.0)]
        twin.backward(runs)
        twin.step()
    assert len(twin.log) > len(optimizer.log)
    assert (optimizer.state_dict(), dict(optimizer.asked)) == (remembered, asked)
    assert not prompt.feedback


def test_a_repair_shows_the_model_its_error_and_what_it_wrote(prompt: Any) -> None:
    llm = Scripted(["not JSON", suggest(prompt=5), suggest(prompt="Better.")])
    optimizer = OptoPrime([prompt], llm=llm, repairs=2)
    optimizer.backward(answer(prompt, "Who?"), "Say more.")
    update = optimizer.step()
    assert (prompt.data, update.usage.calls) == ("Better.", 3)
    second, third = (request.messages for request in llm.requests[1:])
    assert second[-2].text == "not JSON"
    assert "no JSON object" in second[-1].text
    assert "expects text" in third[-1].text


def test_repairs_are_bounded_and_the_reason_goes_on(prompt: Any) -> None:
    llm = Scripted(lambda request: "never JSON")
    optimizer = OptoPrime([prompt], llm=llm, repairs=2)
    optimizer.backward(answer(prompt, "Who?"), "Say more.")
    assert not optimizer.step()
    assert len(llm.requests) == 3
    assert "no JSON object" in optimizer.rejected[0].reason
    strict = OptoPrime([prompt], llm=llm, repairs=1, ignore_extraction_error=False)
    with pytest.raises(UnreadableReply):
        strict.step()
    for wrong in (3, -1, "many"):
        with pytest.raises(OptimizerError, match="repairs"):
            OptoPrime([prompt], llm=llm, repairs=wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "error", [ModelFailed("down", status=500), BudgetExceeded("over")], ids=repr
)
def test_where_no_repair_can_be_had_the_first_reply_and_its_cost_are_told(
    prompt: Any, error: Exception
) -> None:
    optimizer = OptoPrime([prompt], llm=Scripted(["not JSON", error]), repairs=2)
    optimizer.backward(answer(prompt, "Who?"), "Say more.")
    update = optimizer.step()
    assert update.usage.calls == 1
    assert "no JSON object" in update.rejections[0].reason
    optimizer = OptoPrime([prompt], llm=Scripted([error]), repairs=2)
    optimizer.backward(answer(prompt, "Who?"), "Say more.")
    with pytest.raises(type(error)):
        optimizer.step()
    assert prompt.feedback


# Memory


def test_facts_are_kept_once_and_the_prompt_stays_bounded(prompt: Any) -> None:
    optimizer = OptoPrime([prompt], llm=Scripted(lambda request: NOTHING), budget=700)
    for n in range(120):
        optimizer.backward(answer(prompt, f"What is {n % 60}?"), f"Say {n % 60}.")
        optimizer.step()
        optimizer.zero_feedback()
        assert len(shown(optimizer)) <= 4 * 700
    text = shown(optimizer)
    assert text.count("question='What is 58?' -> Say 58.") == 1
    assert len(optimizer.memory) == 60


def test_memory_keeps_the_latest() -> None:
    memory = Memory(5)
    memory.add(f"fact {n}" for n in range(100))
    assert memory.state_dict() == [f"fact {n}" for n in range(95, 100)]
    assert memory.lines(room=15) == ["fact 98", "fact 99"][1:]
    assert memory.lines(room=100, without=["fact 97"]) == [
        "fact 95",
        "fact 96",
        "fact 98",
        "fact 99",
    ]
    with pytest.raises(OptimizerError):
        Memory(-1)


# OPRO


def test_opro_shows_the_best_values_in_ascending_order_and_no_graph() -> None:
    rate = tg.node(0, trainable=True, name="rate")
    turns = iter([5, 2, 9, 1])
    llm = Scripted(lambda request: suggest(rate=next(turns)))
    opro = OPRO([rate], llm=llm, history_size=3)
    for score in (0.0, 0.5, 0.2, 0.9):
        opro.backward(answer(rate, "q"), score)
        opro.step()
    text = shown(opro)
    order = [text.index(f"score {score}:") for score in ("0.2", "0.5", "0.9")]
    assert order == sorted(order)
    assert "score 0:" not in text
    assert "answer(" not in text
    assert "(number) rate = 9" in text


# TextGrad


def test_textgrad_asks_once_for_each_edge_and_not_for_operators(prompt: Any) -> None:
    llm = Scripted(["first critique", suggest(prompt="Better.")])
    textgrad = TextGrad([prompt], llm=llm)
    output = answer(prompt + "!", "Who?").upper() + ""
    textgrad.backward(output, "Too short.")
    textgrad.step()
    assert prompt.data == "Better."
    assert len(llm.requests) == 2
    assert "Too short." in llm.requests[0].messages[1].text
    assert "prompt: first critique" in llm.requests[1].messages[1].text


def test_textgrad_doubles_nothing_and_merges_what_comes_by_two_ways(prompt: Any) -> None:
    llm = Scripted([suggest(prompt="Better.")])
    textgrad = TextGrad([prompt], llm=llm)
    textgrad.backward(prompt + prompt + prompt, "Too long.")
    textgrad.step()
    assert llm.requests[0].messages[1].text.count("Too long.") == 1


def test_textgrad_criticises_a_value_once_that_is_given_twice(prompt: Any) -> None:
    llm = Scripted(["critique", NOTHING])
    textgrad = TextGrad([prompt], llm=llm)
    textgrad.backward(answer(prompt, prompt), "wrong")
    textgrad.propose()
    assert len(llm.requests) == 2


def test_textgrad_shows_the_whole_value_past_criticism_and_earlier_values() -> None:
    text = " ".join(f"word{n}" for n in range(100))
    prompt = tg.node(text, trainable=True, name="prompt")
    replies = iter(["critique one", suggest(prompt="second value"), "critique two", NOTHING])
    textgrad = TextGrad([prompt], llm=Scripted(lambda request: next(replies)))
    textgrad.backward(answer(prompt, "one"), "wrong one")
    textgrad.step()
    assert text in shown(textgrad)
    textgrad.backward(answer(prompt, "two"), "wrong two")
    textgrad.step()
    asked = shown(textgrad)
    assert "critique one" in asked
    assert "critique two" in asked
    assert "word50" in asked  # momentum: the value before


def test_textgrad_pays_for_a_critique_once(prompt: Any) -> None:
    replies = iter(["critique", suggest(prompt="A"), suggest(prompt="B")])
    llm = Scripted(lambda request: next(replies))
    textgrad = TextGrad([prompt], llm=llm)
    textgrad.backward(answer(prompt, "one"), "wrong")
    first, second = textgrad.propose(), textgrad.propose()
    assert (first.usage.calls, second.usage.calls) == (2, 1)


def test_textgrad_criticises_nothing_that_was_not_criticised(prompt: Any) -> None:
    llm = Scripted(lambda request: suggest(prompt="x") if len(llm.requests) > 1 else "critique")
    textgrad = TextGrad([prompt], llm=llm)
    textgrad.backward([(answer(prompt, "one"), 1.0), (answer(prompt, "two"), [0.0, "wrong"])])
    textgrad.propose()
    assert len(llm.requests) == 2


# Reflect


def test_two_components_of_one_signature_never_share_credit() -> None:
    one, two = (tg.node(f"prompt {n}", trainable=True, name=n) for n in ("one", "two"))
    result = answer(two, answer(one, "the question"))
    tg.backward([(result, "feedback on the end")])
    (of_one,), (of_two,) = records_of(one), records_of(two)
    assert of_one.inputs == (("question", "'the question'"),)
    assert of_two.inputs == (("question", "'prompt one?'"),)
    assert of_one.output != of_two.output
    apart = answer(one, "alone")
    for parameter in (one, two):
        parameter.zero_feedback()
    tg.backward([(apart, "about one alone")])
    assert records_of(two) == []


def test_reflect_changes_one_component_at_a_time_in_turn() -> None:
    one, two = (tg.node(f"prompt {n}", trainable=True, name=n) for n in ("one", "two"))
    llm = Scripted(lambda request: suggest(one="new one", two="new two"))
    reflect = Reflect([one, two], llm=llm)
    changed = []
    for _ in range(2):
        reflect.backward(answer(two, answer(one, "q")), "more")
        changed += [change.name for change in reflect.step().changes]
    assert changed == ["one", "two"]
    assert "(text) two" not in llm.requests[0].messages[1].text
