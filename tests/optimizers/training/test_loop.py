from __future__ import annotations

import asyncio
import io
import json
import math
import warnings
from collections.abc import Mapping
from typing import Annotated, Any

import pytest
from pydantic import Field

import tracegraph as tg
from optimizers import EvoLLM, Evolve, OptoPrime, Partition
from optimizers.training.acceptance import Paired
from optimizers.training.budget import Budget
from optimizers.training.guide import BadVerdict
from optimizers.training.loop import Training, TrainingStopped, afit, fit
from optimizers.training.options import Options
from optimizers.training.progress import Progress
from optimizers.training.result import Event
from tests.optimizers.training.stand_ins import Says
from tests.worlds.hidden_rules import HiddenRules
from tracegraph.errors import BudgetExceeded, ModelFailed, OptimizerError
from tracegraph.llm import Budgeted, Scripted


@pytest.fixture
def word() -> Any:
    return tg.node("plain", trainable=True, name="word")


def length(example: Any, output: Any) -> tuple[float, str]:
    return float(len(output)), f"make {example} longer"


def run(word: Any, *values: Any, **options: Any) -> Any:
    optimizer = Says(word, *values)
    given = {"budget": Budget(steps=len(values)), "tries": 1, "workers": 1, **options}
    return optimizer, fit(
        lambda x: word + x, ["a", "bb", "ccc"], length, optimizer=optimizer, **given
    )


def test_the_better_is_kept_and_the_worse_and_the_equal_are_refused(word: Any) -> None:
    optimizer, result = run(word, "longer word", "bad", "longer_word", "longer word")
    assert word.data == "longer word"
    kinds = [e.kind for e in result.history if e.kind in ("accepted", "rejected")]
    assert kinds == ["accepted", "rejected", "rejected", "rejected"]
    assert "scored 5" in optimizer.refused[0]
    assert "changes nothing" in optimizer.refused[2]
    assert (result.baseline, result.score) == (7.0, 13.0)


def test_a_proposal_that_was_refused_is_not_paid_for_again(word: Any) -> None:
    optimizer, result = run(word, "bad", "bad", "bad")
    assert result.spend.runs == 3 * 3 + 3
    assert "tried before" in optimizer.refused[1]


def test_one_walk_carries_the_feedback_of_the_whole_batch(word: Any) -> None:
    optimizer, _ = run(word, "longer")
    for example in ("a", "bb", "ccc"):
        assert f"make {example} longer" in optimizer.seen[0]


def test_code_and_numbers_are_candidates_as_text_is() -> None:
    number = tg.node(1, trainable=True, name="number")
    optimizer = Says(number, 5, 3)
    fit(
        lambda x: number + x, [1, 2], lambda e, o: float(o), optimizer=optimizer,
        budget=Budget(steps=2), acceptance=Paired(1.0), tries=1,
    )  # fmt: skip
    assert number.data == 5


def test_failing_is_never_better_than_the_worst_that_the_guide_gives() -> None:
    number = tg.node(1, trainable=True, name="number")

    @tg.bundle
    def divided(number: int, by: int) -> float:
        """Fails at zero."""
        return by / number

    optimizer = Says(number, 0, 2)
    fit(
        lambda by: divided(number, by), [1, 2, 3], lambda e, o: o - 100.0, optimizer=optimizer,
        budget=Budget(steps=1), tries=1,
    )  # fmt: skip
    assert number.data == 1


def test_noise_is_not_taken_for_progress(word: Any) -> None:
    from random import Random

    noise = Random(5)
    proposals = [f"word {n}" for n in range(60)]
    optimizer = Says(word, *proposals)
    result = fit(
        lambda x: word + x, list(map(str, range(40))), lambda e, o: noise.gauss(0, 1),
        optimizer=optimizer, budget=Budget(steps=60), acceptance=Paired(0.05), tries=1, workers=1,
    )  # fmt: skip
    assert sum(e.kind == "accepted" for e in result.history) <= 8  # by means alone: about 30


def test_the_best_on_the_validation_set_is_kept_in_the_end(word: Any) -> None:
    def guide(example: Any, output: Any) -> float:
        return float(len(output)) if example != "held out" else -float(len(output))

    optimizer = Says(word, "longer", "much longer")
    result = fit(
        lambda x: word + x, ["a", "b", "c"], guide, validation=["held out"], optimizer=optimizer,
        budget=Budget(steps=2), tries=1,
    )  # fmt: skip
    assert sum(e.kind == "accepted" for e in result.history) == 2
    assert word.data == "plain"
    assert result.score == result.baseline == -len("plainheld out")


def test_validation_examples_never_reach_the_optimizer(word: Any) -> None:
    optimizer = Says(word, "longer", "much longer")
    fit(
        lambda x: word + x, ["a", "b"], length, validation=["secret"], optimizer=optimizer,
        budget=Budget(steps=2),
    )  # fmt: skip
    assert "secret" not in "".join(optimizer.seen)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train": []}, "train is empty"),
        ({"train": "text"}, "list of examples"),
        ({"validation": []}, "validation is empty"),
        ({"budget": 0}, "nothing can be done"),
        ({"budget": Budget(runs=1)}, "too small for one step"),
        ({"budget": "much"}, "budget is"),
        ({"optimizer": None}, "no parameters were found"),
        ({"optimizer": 3}, "optimizer must be"),
        ({"batch_size": 0}, "batch_size"),
        ({"tries": 0}, "tries"),
        ({"guide": None}, "guide must be callable"),
    ],
    ids=str,
)
def test_bad_input_is_refused_before_anything_runs(
    word: Any, change: dict[str, Any], message: str
) -> None:
    ran: list[Any] = []
    given = {
        "workflow": ran.append, "train": [1, 2], "guide": length, "optimizer": Says(word, "x"), **change,
    }  # fmt: skip
    with pytest.raises(OptimizerError, match=message):
        fit(**given)
    assert not ran


def test_a_guide_that_gives_nan_ends_it_before_the_optimizer_is_asked(word: Any) -> None:
    optimizer = Says(word, "x")
    with pytest.raises(BadVerdict, match="NaN"):
        fit(lambda x: word + x, ["a"], lambda e, o: math.nan, optimizer=optimizer)
    assert optimizer.seen == []
    assert word.data == "plain"


def test_a_workflow_that_gives_plain_values_is_told_so(word: Any) -> None:
    with pytest.raises(OptimizerError, match="not its \\.data"):
        fit(lambda x: (word + x).data, ["a"], length, optimizer=Says(word, "x"))


def test_what_was_achieved_is_kept_when_the_guide_breaks_later(word: Any) -> None:
    def guide(example: Any, output: Any) -> float:
        return float(len(output)) if len(output) < 12 else math.nan

    optimizer = Says(word, "longer", "a very long word")
    with pytest.warns(TrainingStopped, match="NaN"):
        result = fit(
            lambda x: word + x, ["a", "b", "c"], guide, optimizer=optimizer, budget=Budget(steps=9),
            tries=1,
        )  # fmt: skip
    assert isinstance(result.error, BadVerdict)
    assert word.data == "longer"


def test_a_model_that_is_down_is_asked_a_few_times_and_then_the_result_is_kept(word: Any) -> None:
    llm = Scripted([
        '{"suggestion": {"word": "longer"}}', *[ModelFailed("it is down", status=503)] * 9,
    ])  # fmt: skip
    optimizer = OptoPrime([word], llm=llm)
    with pytest.warns(TrainingStopped, match="down"):
        result = fit(
            lambda x: word + x, ["a", "b", "c"], length, optimizer=optimizer, budget=Budget(steps=9)
        )
    assert (word.data, len(llm.requests)) == ("longer", 4)
    assert isinstance(result.error, ModelFailed)


def test_a_hard_budget_ends_it_quietly_and_keeps_what_was_paid_for(word: Any) -> None:
    llm = Budgeted(Scripted(['{"suggestion": {"word": "longer"}}', "no"]), calls=2)
    result = fit(
        lambda x: word + x, ["a", "b", "c"], length, optimizer=OptoPrime([word], llm=llm),
        budget=Budget(steps=9),
    )  # fmt: skip
    assert (word.data, result.spend.calls) == ("longer", 2)
    assert isinstance(result.error, BudgetExceeded)


@pytest.mark.parametrize("runs", range(30, 75, 7))
def test_the_budget_of_runs_is_never_exceeded(runs: int) -> None:
    world = HiddenRules(1, sizes=(40, 5, 5), sabotage=0.3)
    workflow, prompt = world.workflow()
    result = fit(
        workflow, world.train, world.guide, validation=world.validation, budget=runs,
        optimizer=OptoPrime([prompt], llm=world.ask), batch_size=5,
    )  # fmt: skip
    assert result.spend.runs == world.calls["task"] <= runs
    kept = [event.candidate for event in result.history if event.kind == "accepted"]
    validated = {event.candidate for event in result.history if event.kind == "validated"}
    assert set(kept[-1:]) <= validated  # there is always room left to validate the last one


def test_patience_and_target_end_it(word: Any) -> None:
    _, result = run(word, *["bad"] * 9, patience=2)
    assert (result.spend.steps, result.stopped) == (2, "nothing was accepted in 2 steps")
    _, result = run(word, "longer word", *["bad"] * 9, target=10)
    assert (result.spend.steps, result.stopped) == (1, "the target 10 is reached")


def test_perfect_batches_ask_nobody(word: Any) -> None:
    optimizer, result = run(word, "longer", "much longer", perfect=5.0)
    assert optimizer.seen == []
    assert result.spend.runs == 6


def test_several_candidates_are_compared_and_the_best_one_is_tested(word: Any) -> None:
    optimizer, result = run(word, "longer", "much longer", "x", proposals=3, budget=Budget(steps=1))
    assert word.data == "much longer"
    assert len(optimizer.refused) == 2
    assert sum(e.kind == "proposed" for e in result.history) == 3


def test_a_search_is_asked_and_told() -> None:
    number = tg.node(5.0, trainable=True, name="number")
    search = Evolve([number], seed=1)
    fit(
        lambda x: number * 1, [0, 1], lambda e, o: -((o - 1) ** 2), optimizer=search,
        budget=Budget(steps=40), proposals=4, acceptance=Paired(1.0), tries=1, workers=1,
    )  # fmt: skip
    assert abs(number.data - 1) < 0.2
    assert len(search.history) > 100


def test_optimizers_without_proposals_step_on_every_batch(word: Any) -> None:
    class Steps:
        def __init__(self) -> None:
            self.steps, self.parameters = 0, [tg.node(0.0, trainable=True, name="rate")]

        def zero_feedback(self) -> None:
            pass

        def step(self) -> None:
            self.steps += 1

    stepper = Steps()
    optimizer = Partition(stepper, Says(word, "longer", "longest word"))
    fit(
        lambda x: word + x + str(stepper.parameters[0]), ["a", "b", "c"], length,
        optimizer=optimizer, budget=Budget(steps=2), tries=1,
    )  # fmt: skip
    assert (stepper.steps, word.data) == (2, "longest word")


def hidden(seed: int, world: HiddenRules, **options: Any) -> tuple[Training, Any]:
    run, prompt = world.workflow()
    optimizer = OptoPrime([prompt], llm=world.ask, budget=1_250)
    given = {"budget": Budget(steps=8, runs=300), "seed": seed, "workers": 2, "validate_every": 3}
    training = Training(
        run, world.train, world.guide,
        Options(validation=world.validation, optimizer=optimizer, **{**given, **options}),
    )  # fmt: skip
    return training, prompt


def facts(result: Any) -> Any:
    return result.best, result.score, result.history, result.spend.runs, result.spend.calls


@pytest.mark.parametrize("workers", [1, 16])
def test_the_number_of_workers_changes_nothing(workers: int) -> None:
    one, _ = hidden(3, HiddenRules(3, sabotage=0.3), workers=4)
    other, _ = hidden(3, HiddenRules(3, sabotage=0.3), workers=workers)
    first, second = one.run(), other.run()
    assert facts(first) == facts(second)
    asked = [[e.messages for e in t.members.optimizer.log] for t in (one, other)]
    assert asked[0] == asked[1]


class Stopped(BaseException):
    """Ends a training as a signal would."""


class Kept:
    """A store that keeps JSON text, and stops the training after so many saves."""

    def __init__(self, stop: int = -1) -> None:
        self.text: str | None = None
        self.left = stop

    def load(self) -> Any:
        return None if self.text is None else json.loads(self.text)

    def save(self, state: Mapping[str, Any]) -> None:
        self.text = json.dumps(state)
        self.left -= 1
        if self.left == 0:
            raise Stopped


@pytest.mark.parametrize("stop", [1, 2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize("seed", [0, 4])
def test_a_stopped_training_goes_on_exactly_and_repeats_no_run(seed: int, stop: int) -> None:
    whole_world, cut_world = HiddenRules(seed, sabotage=0.3), HiddenRules(seed, sabotage=0.3)
    whole, prompt = hidden(seed, whole_world)
    expected = whole.run()
    store = Kept(stop)
    first, _ = hidden(seed, cut_world, store=store)
    with pytest.raises(Stopped):
        first.run()
    second, resumed = hidden(seed, cut_world, store=store)
    assert facts(second.run()) == facts(expected)
    assert resumed.data == prompt.data
    assert cut_world.calls == whole_world.calls


def test_a_state_comes_back_whole() -> None:
    one, _ = hidden(0, HiddenRules(0, sabotage=0.3))
    one.run()
    state = json.loads(json.dumps(one.state_dict()))
    other, _ = hidden(0, HiddenRules(0))
    other.load_state_dict(state)
    assert other.state_dict() == state


def test_a_state_of_something_else_is_refused(word: Any) -> None:
    _, result = run(word, "longer")
    for state in (
        {},
        {"format": 9},
        {**result.state, "options": {}},
        {**result.state, "present": "x"},
    ):
        with pytest.raises(OptimizerError, match="state"):
            run(tg.node("plain", trainable=True, name="word"), "longer", state=state)


def test_listeners_hear_everything_in_order(word: Any) -> None:
    heard: list[Event] = []
    _, result = run(word, "longer", "bad", on=[heard.append])
    assert tuple(heard) == result.history
    assert [e.kind for e in heard] == [
        "started", "proposed", "accepted", "proposed", "rejected", "finished",
    ]  # fmt: skip


def test_progress_writes_plain_lines_where_there_is_no_terminal(word: Any) -> None:
    stream = io.StringIO()
    run(word, "longer", on=[Progress(stream)])
    lines = stream.getvalue().splitlines()
    assert lines[1].startswith("step 1 accepted 8.000 (before 7.000)")
    assert "\x1b" not in stream.getvalue()


def test_progress_on_a_terminal_is_one_live_line(word: Any) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    run(word, "longer [bold]", on=[Progress(stream)])
    assert "step 1 accepted" in stream.getvalue()


def test_it_can_be_awaited_while_other_tasks_go_on(word: Any) -> None:
    async def main() -> tuple[Any, int]:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        beside = asyncio.create_task(tick())
        result = await afit(
            lambda x: word + x, ["a", "b", "c"], length, optimizer=Says(word, "longer"),
            budget=Budget(steps=1),
        )  # fmt: skip
        beside.cancel()
        return result, ticks

    result, ticks = asyncio.run(main())
    assert (word.data, result.spend.steps) == ("longer", 1)
    assert ticks > 2


def test_what_is_asked_twice_is_another_attempt(word: Any) -> None:
    attempts: list[int] = []

    scripted = Scripted(lambda request: attempts.append(request.attempt) or "nothing to see")  # type: ignore[func-returns-value]
    optimizer = OptoPrime([word], llm=scripted, memory_size=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit(lambda x: word + x, ["a"], length, optimizer=optimizer, budget=Budget(steps=2), tries=2)
    assert len(set(attempts)) > 1


def bounded() -> Any:
    within = Annotated[float, Field(ge=0, le=9)]
    return tg.node(1.0, trainable=True, name="number", constraint=within)


def asked(*replies: Any) -> tuple[Any, Any]:
    """A search that asks its model for the mean of each brood, and how `fit` went with it."""
    number = bounded()
    search = EvoLLM(
        [number], Scripted([*replies, *['{"mean": {"number": 900}}'] * 20]), population=2
    )
    return search, fit(
        lambda x: number * 1, [1, 2], lambda example, output: output,
        optimizer=search, budget=Budget(steps=6), tries=1,
    )  # fmt: skip


def test_what_an_optimizer_that_is_asked_pays_is_in_the_spend() -> None:
    search, result = asked()
    assert search.usage.calls > 0
    assert result.spend.calls == search.usage.calls
    assert result.spend.tokens == search.usage.tokens_in + search.usage.tokens_out


def test_an_optimizer_that_is_asked_may_lose_its_model_for_a_while() -> None:
    search, result = asked(ModelFailed("busy", status=503))
    assert "the model failed: busy" in "\n".join(map(str, result.history))
    assert search.usage.calls > 0
    assert result.error is None
