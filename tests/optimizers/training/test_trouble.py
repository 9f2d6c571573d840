"""What cannot work is said before anything is paid for; what was achieved is kept."""

from __future__ import annotations

import io
import json
import math
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tracegraph as tg
from optimizers import Budget, OptoPrime, Partition, fit
from optimizers.training.acceptance import Paired
from optimizers.training.guide import BadVerdict
from optimizers.training.loop import RunsFailed, TrainingStopped
from optimizers.training.policies.beam import Beam
from tests.optimizers.training.stand_ins import Changes, Says
from tracegraph.errors import BudgetExceeded, HistoryError, ModelFailed, OptimizerError
from tracegraph.history import Facts, State
from tracegraph.llm import Budgeted, Scripted


@pytest.fixture
def word() -> Any:
    return tg.node("plain", trainable=True, name="word")


def length(example: Any, output: Any) -> tuple[float, str]:
    return float(len(output)), f"make {example} longer"


class Counted:
    """A workflow that counts its runs."""

    def __init__(self, word: Any) -> None:
        self.word, self.runs = word, 0

    def __call__(self, text: str) -> Any:
        self.runs += 1
        return self.word + text


def longer(word: Any, steps: int = 3, **options: Any) -> tuple[Any, Counted]:
    """A training in which every proposal is one letter longer."""
    workflow = Counted(word)
    optimizer = Changes([word], lambda present, count: {"word": present["word"] + "x"})
    given: dict[str, Any] = {"budget": Budget(steps=steps), "tries": 1, "workers": 1, **options}
    train = given.pop("train", ["a", "bb", "ccc"])
    return fit(workflow, train, length, optimizer=optimizer, **given), workflow


# The store


def test_a_path_is_a_store_and_a_finished_training_costs_nothing_again(
    word: Any, tmp_path: Path
) -> None:
    first, _ = longer(word, store=tmp_path)
    assert word.data == "plainxxx"
    again = tg.node("plain", trainable=True, name="word")
    second, workflow = longer(again, store=tmp_path)
    assert workflow.runs == 0
    assert again.data == "plainxxx"
    assert (second.score, second.spend.runs) == (first.score, first.spend.runs)


def test_more_budget_goes_on_where_the_last_one_stopped(word: Any, tmp_path: Path) -> None:
    longer(word, store=tmp_path)
    again = tg.node("plain", trainable=True, name="word")
    result, workflow = longer(again, steps=5, store=tmp_path)
    assert (again.data, result.spend.steps) == ("plainxxxxx", 5)
    assert workflow.runs == 2 * 6


def test_starting_anew_pays_again_and_overwrites(word: Any, tmp_path: Path) -> None:
    longer(word, store=tmp_path)
    again = tg.node("plain", trainable=True, name="word")
    result, workflow = longer(again, steps=1, store=tmp_path, resume=False)
    assert (again.data, workflow.runs, result.spend.runs) == ("plainx", 6, 6)
    third = tg.node("plain", trainable=True, name="word")
    assert longer(third, steps=1, store=tmp_path)[1].runs == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 2}, "batch_size was 3 and is 2"),
        ({"train": ["a", "bb", "other"]}, "train was '3 examples"),
        ({"seed": 7}, "seed was 0 and is 7"),
        ({"search": Beam(2)}, r"search was 'Greedy\(\)' and is 'Beam\(width=2\)'"),
        ({"acceptance": Paired(0.1)}, r"acceptance was 'Paired\(alpha=0.25\)'"),
        ({"weights": {"a": 1.0}}, "weights was None"),
        ({"validation": ["x"]}, "validation was None and is '1 examples"),
    ],
    ids=str,
)
def test_what_another_training_left_is_refused_and_named(
    word: Any, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    longer(word, store=tmp_path)
    with pytest.raises(OptimizerError, match=message) as caught:
        longer(tg.node("plain", trainable=True, name="word"), store=tmp_path, **change)
    assert "resume=False" in str(caught.value)


def test_a_state_of_another_version_is_refused_before_anything_runs(
    word: Any, tmp_path: Path
) -> None:
    State("training", tmp_path).save({"format": 1, "options": {}})
    workflow = Counted(word)
    with pytest.raises(OptimizerError, match="format 1 and this version reads 2"):
        fit(workflow, ["a"], length, optimizer=Says(word, "x"), store=tmp_path)
    assert workflow.runs == 0
    assert State("training", tmp_path).load() == {"format": 1, "options": {}}


def test_a_damaged_state_is_refused_and_left_as_it_is(word: Any, tmp_path: Path) -> None:
    longer(word, store=tmp_path)
    store = State("training", tmp_path)
    state = store.load()
    for missing in ("present", "candidates", "search", "counters"):
        store.save({name: value for name, value in state.items() if name != missing})
        again = tg.node("plain", trainable=True, name="word")
        with pytest.raises(OptimizerError, match=f"damaged: KeyError '{missing}'"):
            longer(again, store=tmp_path)
        assert again.data == "plain"


def test_a_history_of_a_later_version_is_refused(word: Any, tmp_path: Path) -> None:
    path = tmp_path / "history.sqlite"
    Facts("x", tmp_path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version=99")
    connection.close()
    with pytest.raises(HistoryError, match="schema version 99"):
        longer(word, store=tmp_path)
    assert word.data == "plain"


def test_two_trainings_never_share_a_store(word: Any, tmp_path: Path) -> None:
    program = (
        "import sys; from tracegraph.history import State\n"
        f"with State('training', {str(tmp_path)!r}).hold():\n"
        "    print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        with pytest.raises(HistoryError, match=r"'training'.*in use by another run"):
            longer(word, store=tmp_path)
        assert word.data == "plain"
        longer(word, store=State("another name", tmp_path))
        other.kill()
    longer(word, store=tmp_path)


def test_a_store_that_breaks_later_ends_it_with_what_was_achieved(word: Any) -> None:
    class Breaks:
        saves = 0

        def load(self) -> None:
            return None

        def save(self, state: Any) -> None:
            json.dumps(state)
            self.saves += 1
            if self.saves == 4:
                raise HistoryError("the disk is full")

    with pytest.warns(TrainingStopped, match="the disk is full"):
        result, _ = longer(word, steps=9, store=Breaks())
    assert isinstance(result.error, HistoryError)
    assert word.data == "plainxx"


def test_a_training_whose_every_run_fails_says_so(word: Any) -> None:
    with pytest.warns(RunsFailed, match=r"the last raised TypeError: .*dict") as said:
        result, workflow = longer(word, train=[{"word": "a"}, {"word": "b"}])
    assert said[0].filename == __file__  # where fit was called
    assert workflow.runs > 0
    assert "no run of the workflow came to its end" in result.stopped


def test_one_run_that_does_not_fail_is_enough(word: Any) -> None:
    result, _ = longer(word, train=["a", {"word": "b"}], batch_size=2)
    assert result.stopped == "the budget of 3 steps is spent"


def test_what_cannot_be_kept_exactly_is_refused(word: Any, tmp_path: Path) -> None:
    class Steps:
        parameters: list[Any] = []

        def zero_feedback(self) -> None:
            pass

        def step(self) -> None:
            pass

    workflow = Counted(word)
    with pytest.raises(OptimizerError, match="cannot keep the state of Steps"):
        fit(workflow, ["a"], length, optimizer=Partition(Steps(), Says(word, "x")), store=tmp_path)
    assert workflow.runs == 0


def test_facts_are_forgotten_one_by_one(tmp_path: Path) -> None:
    facts = Facts("x", tmp_path)
    facts["a"] = 1
    del facts["a"]
    assert dict(facts) == {}
    with pytest.raises(KeyError):
        del facts["a"]
    facts.close()


# Models, guides, listeners


def test_a_model_that_is_down_from_the_start_says_so_and_changes_nothing(word: Any) -> None:
    llm = Scripted([ModelFailed("no connection", status=503)] * 9)
    with pytest.warns(TrainingStopped, match="no connection"):
        result = fit(
            lambda x: word + x, ["a", "b"], length, optimizer=OptoPrime([word], llm=llm),
            budget=Budget(steps=9),
        )  # fmt: skip
    assert isinstance(result.error, ModelFailed)
    assert (word.data, len(llm.requests)) == ("plain", 3)


@pytest.mark.parametrize("good", [0, 6])
def test_a_workflow_whose_model_is_down_asks_no_optimizer(word: Any, good: int) -> None:
    model = Scripted([*["fine"] * good, *[ModelFailed("no connection", status=503)] * 9])

    @tg.bundle
    def answer(word: str, text: str) -> str:
        """Ask the model."""
        return model(word + text).text + word

    optimizer = Says(word, "longer", "longer still")

    def go() -> Any:
        return fit(
            lambda text: answer(word, text), ["a", "b", "c"], length, optimizer=optimizer,
            budget=Budget(steps=9), tries=1,
        )  # fmt: skip

    if good:
        with pytest.warns(TrainingStopped, match="no connection"):
            assert isinstance(go().error, ModelFailed)
        assert (word.data, len(optimizer.seen)) == ("longer", 1)
    else:
        with pytest.raises(ModelFailed, match="no connection"):
            go()
        assert optimizer.seen == []


def test_a_spent_allowance_of_the_workflow_or_of_the_judge_ends_it_quietly(word: Any) -> None:
    for at in ("workflow", "judge"):
        word.assign("plain")
        model = Budgeted(Scripted(lambda request: "fine"), calls=7)

        @tg.bundle
        def answer(word: str, text: str, at: str = at, model: Any = model) -> str:
            """Ask the model."""
            return word + text + (model("Go").text if at == "workflow" else "")

        def guide(example: Any, output: str, at: str = at, model: Any = model) -> float:
            return float(len(output)) + (model("Go").text == "" if at == "judge" else 0)

        result = fit(
            lambda text, answer=answer: answer(word, text), ["a", "b", "c"], guide,
            optimizer=Says(word, "longer", "longer still"), budget=Budget(steps=9), tries=1,
        )  # fmt: skip
        assert isinstance(result.error, BudgetExceeded)
        assert word.data == "longer"


def test_a_guide_that_breaks_on_a_candidate_alone_keeps_the_best(word: Any) -> None:
    def guide(example: Any, output: str) -> float:
        return math.inf if "xxx" in output else float(len(output))

    workflow = Counted(word)
    optimizer = Changes([word], lambda present, count: {"word": present["word"] + "x"})
    with pytest.warns(TrainingStopped, match="must give a finite number"):
        result = fit(
            workflow, ["a", "b", "c"], guide, optimizer=optimizer, search=Beam(2), tries=1,
            validation=["v"], budget=Budget(steps=9),
        )  # fmt: skip
    assert isinstance(result.error, BadVerdict)
    assert word.data == result.best.values["word"] == "plainxx"
    assert result.history[-1].kind == "finished"


def test_a_listener_that_raises_passes_through_and_the_best_values_are_there(word: Any) -> None:
    def listener(event: Any) -> None:
        if event.step == 3:
            raise ZeroDivisionError("in the listener")

    with pytest.raises(ZeroDivisionError, match="in the listener") as caught:
        longer(word, steps=5, on=[listener])
    assert word.data == "plainxx"
    assert "best values" in caught.value.__notes__[0]


def test_a_training_that_fails_leaves_the_terminal_as_it_was(
    word: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with pytest.raises(ZeroDivisionError):
        longer(word, progress=True, on=[lambda event: 1 / (2 - event.step)])
    hidden, shown = "\x1b[?25l", "\x1b[?25h"
    assert stream.getvalue().count(hidden) == stream.getvalue().count(shown) == 1
    assert "candidates" in stream.getvalue()


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        (0, "runs=0"), (-3, "runs=-3"), (Budget(runs=2), "too small for one step: it takes 8"),
        (math.nan, "budget is"),
    ],
    ids=str,
)  # fmt: skip
def test_a_budget_for_nothing_is_refused(word: Any, budget: Any, message: str) -> None:
    with pytest.raises(OptimizerError, match=message):
        longer(word, budget=budget, validation=["v"])
    assert word.data == "plain"


def test_a_search_that_compares_on_all_examples_says_what_one_step_takes(word: Any) -> None:
    with pytest.raises(OptimizerError, match="it takes 12"):
        longer(word, budget=11, search=Beam(2))
    result, _ = longer(word, budget=12, search=Beam(2))
    assert result.spend.runs <= 12
