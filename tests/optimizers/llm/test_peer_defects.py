"""What other systems get wrong, and the test here that would have caught it.

Each row was found in a published system. A row names tests elsewhere, or one below.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import tracegraph as tg
from optimizers import (
    LLAMBO,
    OPRO,
    SPO,
    Crossover,
    EvoLLM,
    Exemplars,
    OptoPrime,
    Patch,
    Reflect,
    Rules,
    Several,
    TextGrad,
    by_judge,
)
from tests.architecture.test_features import exists
from tracegraph.errors import BudgetExceeded, ModelFailed
from tracegraph.llm import Budgeted, Request, Scripted

ROOT = Path(__file__).resolve().parents[3]
HERE = "tests/optimizers/llm/test_peer_defects.py"
FAMILY = "tests/optimizers/llm/test_family.py"
TRAINING = "tests/optimizers/training/test_loop.py"

CAUGHT: dict[str, list[str]] = {
    "SPO keeps the worse and refuses the better": [
        "tests/optimizers/llm/test_spo.py::test_the_better_is_kept_and_the_worse_is_not",
    ],
    "SPO's judge prefers a place": [
        "tests/optimizers/llm/test_spo.py::test_a_judge_that_prefers_a_place_counts_for_nothing",
        "tests/optimizers/llm/test_several.py::test_a_judge_sees_both_orders_and_a_place_counts_for_nothing",
    ],
    "TextGrad shows ten words of a value, and neither momentum nor memory": [
        f"{FAMILY}::test_textgrad_shows_the_whole_value_past_criticism_and_earlier_values",
    ],
    "TextGrad doubles what comes by two ways": [
        f"{FAMILY}::test_textgrad_doubles_nothing_and_merges_what_comes_by_two_ways",
    ],
    "TextGrad's gradients grow without bound": [f"{HERE}::test_no_prompt_grows_with_the_batch"],
    "TextGrad raises IndexError without tags": [
        f"{FAMILY}::test_a_reply_that_cannot_be_read_never_becomes_a_value",
    ],
    "TextGrad's prompts hold the text of an object": [
        "tests/test_openings.py::test_opening_20_one_step_updates_several_functions_with_any_backend",
    ],
    "AdalFlow makes the raw reply the prompt": [
        f"{FAMILY}::test_a_reply_that_cannot_be_read_never_becomes_a_value",
    ],
    "AdalFlow fetches a vocabulary at import": [
        "tests/llm/test_backend.py::test_importing_and_making_a_model_loads_nothing_heavy",
    ],
    "AdalFlow's own instructions end up in the prompt": [
        f"{HERE}::test_what_the_optimizer_says_never_becomes_a_value",
    ],
    "OptoPrime drops an update with TERMINATE in it": [
        f"{FAMILY}::test_the_word_terminate_and_the_word_def_are_words_like_others",
        "tests/test_openings.py::test_opening_09_terminate_inside_a_value_is_only_a_word",
    ],
    "OptoPrime reformats a text with def in it": [
        f"{FAMILY}::test_the_word_terminate_and_the_word_def_are_words_like_others",
        "tests/test_openings.py::test_opening_08_a_text_is_taken_letter_by_letter",
    ],
    "OptoPrime says nothing of prose and wrong names": [
        "tests/optimizers/llm/test_optoprime.py::test_an_unreadable_reply_changes_nothing_and_is_told",
        "tests/optimizers/llm/test_optoprime.py::test_a_foreign_name_is_told_and_changes_nothing",
    ],
    "OptoPrimeV2 cuts a value at its own tags and strips indentation": [
        "tests/test_openings.py::test_opening_10_values_survive_fences_tags_and_indentation",
    ],
    "OptoPrime's memory is off": [
        f"{HERE}::test_past_facts_are_shown_unasked_once_and_within_bounds"
    ],
    "HeapMemory keeps the wrong ones": [
        f"{FAMILY}::test_memory_keeps_the_latest",
        f"{FAMILY}::test_opro_shows_the_best_values_in_ascending_order_and_no_graph",
        f"{HERE}::test_a_memory_of_the_best_keeps_the_best",
    ],
    "Trace needs the source of a function that is not trained": [
        "tests/test_openings.py::test_opening_16_functions_of_every_kind_can_be_bundled",
    ],
    "Trace converts suggestions by calling the old type": [
        "tests/test_openings.py::test_opening_07_a_suggestion_is_never_converted_into_something_else",
    ],
    "Trace asks without feedback": [
        "tests/test_openings.py::test_opening_38_without_feedback_nothing_is_asked",
    ],
    "OpenEvolve's timeout stops nothing": [
        "tests/optimizers/training/test_evaluator.py::"
        "test_an_endless_loop_does_not_keep_the_process_from_ending",
        "tests/sandbox/test_ends.py::test_no_process_outlives_an_owner_that_is_killed",
    ],
    "GEPA resumes into another run and evaluates again": [
        f"{TRAINING}::test_a_stopped_training_goes_on_exactly_and_repeats_no_run",
    ],
    "GEPA's budget discards what was paid for": [
        f"{TRAINING}::test_a_hard_budget_ends_it_quietly_and_keeps_what_was_paid_for",
        f"{HERE}::test_what_was_paid_for_is_used_when_the_budget_ends",
        "tests/llm/test_wrappers.py::"
        "test_what_was_paid_for_is_returned_even_when_it_cost_more_than_it_should",
        "tests/llm/test_backend.py::test_a_budget_holds_over_http_with_faults_and_loses_no_reply",
    ],
    "GEPA serves validation scores from training runs": [
        "tests/optimizers/training/test_evaluator.py::"
        "test_what_is_known_is_not_run_again_and_splits_are_apart",
    ],
    "DSPy's GEPA lets two predictors of one signature share credit": [
        f"{FAMILY}::test_two_components_of_one_signature_never_share_credit",
        f"{HERE}::test_two_predictors_of_one_signature_never_share_credit",
        "tests/optimizers/llm/test_rules.py::test_two_components_of_one_signature_learn_apart",
    ],
    "litellm repeats a 400 and hides the type of an error": [
        "tests/llm/test_backend.py::"
        "test_a_refusal_has_its_status_and_only_a_passing_one_is_retried",
    ],
    "litellm's budget counts after the fact": [
        "tests/llm/test_wrappers.py::test_a_budget_holds_under_32_threads",
    ],
    "a cache repeats a bad reply for ever": [
        "tests/llm/test_tape.py::"
        "test_replies_lie_in_the_file_of_the_history_by_request_and_attempt",
        f"{TRAINING}::test_what_is_asked_twice_is_another_attempt",
    ],
}


@pytest.mark.parametrize("defect", CAUGHT, ids=str)
def test_a_test_would_have_caught_it(defect: str) -> None:
    assert [test for test in CAUGHT[defect] if not exists(test, ROOT)] == []
    assert CAUGHT[defect]


# Those that stand nowhere else


@tg.bundle
def answer(prompt: str, question: str) -> str:
    """Ask somebody."""
    return f"{prompt} {question}"


def suggest(**values: Any) -> str:
    return json.dumps({"suggestion": values})


def talking(reply: str) -> Scripted:
    """A model that criticises where it is asked for criticism, each time in other words."""
    asked = iter(range(100_000))

    def say(request: Request) -> str:
        number = next(asked)
        critic = request.messages[0].text.startswith("You criticise")
        return f"critique {number} " * 20 if critic else reply.replace("NUMBER", str(number))

    return Scripted(say)


ASKING = [OptoPrime, OPRO, TextGrad, Reflect, Patch, Crossover, Rules]


@pytest.mark.parametrize("make", ASKING, ids=lambda m: m.__name__)
def test_no_prompt_grows_with_the_batch(make: Any) -> None:
    prompt = tg.node("Be kind.", trainable=True, name="prompt")
    llm = talking(suggest(prompt="Be number NUMBER."))
    optimizer = make([prompt], llm=llm, budget=1_000)
    longest = []
    for size in (98, 98, 400):
        runs = [
            (answer(prompt, f"q{n // 2} " * 20), [n / size, f"wrong {n} " * 30])
            for n in range(size)
        ]
        optimizer.backward(runs)
        optimizer.step()
        optimizer.zero_feedback()
        longest.append(max(sum(len(m.text) for m in r.messages) for r in llm.requests))
    assert max(longest) <= 4 * 1_000 + 800  # the system's own words may come on top


@pytest.mark.parametrize(
    "make", [OptoPrime, OPRO, TextGrad, Reflect, Crossover], ids=lambda m: m.__name__
)
def test_what_the_optimizer_says_never_becomes_a_value(make: Any) -> None:
    """A model that repeats the question, or explains itself around the answer, changes just the value."""
    prompt = tg.node("Be kind.", trainable=True, name="prompt")
    llm = talking("")
    optimizer = make([prompt], llm=llm)

    def parrot(request: Request) -> str:
        if request.messages[0].text.startswith("You criticise"):
            return "too short"
        whole = "\n".join(m.text for m in request.messages)
        return f"You told me:\n{whole}\nSo here it is: {suggest(prompt='Be brief.')} Done."

    optimizer.llm = Scripted(parrot)
    optimizer.backward(answer(prompt, "Who?"), [0.0, "Say less."])
    optimizer.step()
    assert prompt.data == "Be brief."
    silent = make(
        [prompt], llm=Scripted(lambda request: "\n".join(m.text for m in request.messages))
    )
    silent.backward(answer(prompt, "Who?"), [0.0, "Say less."])
    silent.step()
    assert prompt.data == "Be brief."


def test_past_facts_are_shown_unasked_once_and_within_bounds() -> None:
    prompt = tg.node("Be kind.", trainable=True, name="prompt")
    llm = Scripted(lambda request: suggest())
    optimizer = OptoPrime([prompt], llm=llm, budget=600)
    for n in (1, 2, 1, 2, 3):
        optimizer.backward(answer(prompt, f"question {n}?"), f"Say {n}.")
        optimizer.step()
        optimizer.zero_feedback()
    last = llm.requests[-1].messages[-1].text
    assert "#Past" in last
    assert [last.count(f"-> Say {n}.") for n in (1, 2)] == [1, 1]
    for n in range(500):
        optimizer.backward(answer(prompt, f"other {n}?"), f"Say {n}.")
        optimizer.step()
        optimizer.zero_feedback()
    assert len(optimizer.memory) == 100
    assert max(len(r.messages[-1].text) for r in llm.requests) <= 4 * 600


@pytest.mark.parametrize(
    "scores", [list(range(100)), list(range(100))[::-1], [n * 37 % 100 for n in range(100)]]
)
def test_a_memory_of_the_best_keeps_the_best(scores: list[int]) -> None:
    level = tg.node(0, trainable=True, name="level")
    values = iter(range(1, 1_000))
    llm = Scripted(lambda request: suggest(level=next(values)))
    opro, crossover = (
        OPRO([level], llm=llm, history_size=5),
        Crossover([level], llm=llm, population=5),
    )
    for score in scores:
        for optimizer in (opro, crossover):
            optimizer.backward(level + 0, float(score))
            optimizer.propose()
            optimizer.zero_feedback()
        level.assign(next(values))
    assert sorted(opro.history.values()) == [95.0, 96.0, 97.0, 98.0, 99.0]
    assert [m.score for m in crossover.population] == [99.0, 98.0, 97.0, 96.0, 95.0]


def test_what_was_paid_for_is_used_when_the_budget_ends() -> None:
    prompt = tg.node("Be kind.", trainable=True, name="prompt")
    replies = [suggest(prompt="One."), suggest(prompt="Two.")]
    paid = Scripted([replies[0]] * 2)  # of four that want to ask, two may
    several = Several(OptoPrime([prompt], llm=Budgeted(paid, calls=2)), n=4)
    several.backward(answer(prompt, "q"), "wrong")
    assert several.step().usage.calls == 2
    assert prompt.data == "One."

    critiques = Scripted(["one", ModelFailed("down", status=503), "two", suggest(prompt="New.")])
    textgrad = TextGrad([prompt], llm=critiques)
    textgrad.backward([(answer(prompt, n), f"wrong {n}") for n in "ab"])
    with pytest.raises(ModelFailed):
        textgrad.step()
    textgrad.step()
    assert prompt.data == "New."
    assert len(critiques.requests) == 4  # the first critique was not asked for again

    judge = by_judge(Budgeted(Scripted(["2"]), calls=1))
    several = Several([OptoPrime([prompt], llm=Scripted([r])) for r in replies], select=judge)
    several.backward(answer(prompt, "q"), "wrong")
    several.step()
    assert prompt.data == "Two."


@pytest.mark.parametrize("make", [EvoLLM, LLAMBO], ids=lambda m: m.__name__)
def test_a_search_that_ran_out_of_money_has_its_best(make: Any) -> None:
    fast = tg.node(False, trainable=True, name="fast")
    slow = tg.node(False, trainable=True, name="slow")
    llm = Budgeted(Scripted(['{"points": [{"fast": true, "slow": false}]}']), calls=0)
    search = make([fast, slow], llm, **({"population": 2} if make is EvoLLM else {}))

    def search_on() -> None:
        for _ in range(4):
            for candidate in search.ask():
                search.tell(candidate, float(candidate.values["fast"]))

    with pytest.raises(BudgetExceeded):
        search_on()
    search.finish()
    assert search.best_score == max(trial.score for trial in search.history)


def test_two_predictors_of_one_signature_never_share_credit() -> None:
    """Neither in critiques, nor in demonstrations, nor in a problem."""
    one, two = (tg.node(f"Prompt {n}.", trainable=True, name=n) for n in ("one", "two"))
    shown = Scripted(
        lambda request: "of one" if "Prompt one." in request.messages[-1].text else "of two"
    )
    textgrad = TextGrad([one, two], llm=shown)
    textgrad.backward([(answer(one, "q"), "first is wrong"), (answer(two, "q"), "second is wrong")])
    textgrad.propose()
    asked = [request.messages[-1].text for request in shown.requests]
    assert sum("Prompt one." in a and "first is wrong" in a for a in asked) == 1
    assert not any("Prompt one." in a and "second is wrong" in a for a in asked[:2])
    assert "one: of one" in asked[-1]
    assert "two: of two" in asked[-1]

    @tg.bundle
    def use(demos: list[Any], text: str) -> str:
        return text.upper()

    first, second = (tg.node([], trainable=True, name=n) for n in ("first", "second"))
    exemplars = Exemplars(first)
    output = use(first, "alpha") + use(second, "beta")
    exemplars.backward(output, 1.0)
    exemplars.step()
    assert [demo["text"] for demo in first.data] == ["alpha"]

    lines = OptoPrime([one, two], llm=Scripted([]))
    lines.zero_feedback()
    lines.backward(answer(two, answer(one, "q")), "wrong")
    code = lines.problem().text().split("#Documentation")[0]
    assert "answer0 = answer(prompt=one, question='q')" in code
    assert "answer1 = answer(prompt=two, question=answer0)" in code


def test_spo_asks_in_both_orders_for_each_example_and_no_more() -> None:
    word = tg.node("plain", trainable=True, name="word")
    llm = Scripted(
        lambda request: (
            "A" if request.messages[0].text.startswith("Compare") else suggest(word="new")
        )
    )
    spo = SPO([word], llm=llm, requirements="Be good.")
    spo.improve(lambda x: word + x, ["a", "b", "c"])
    assert len(llm.requests) == 1 + 2 * 3
    assert word.data == "plain"  # the judge only likes the first place
