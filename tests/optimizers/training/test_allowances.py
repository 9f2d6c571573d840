"""An allowance of calls, tokens or dollars holds over the whole training, however often it was killed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tracegraph as tg
from optimizers import Budget, OptoPrime, fit
from optimizers.training.loop import Training
from optimizers.training.options import Options
from tests.optimizers.training.allowing import CASES, WORKERS
from tracegraph.errors import BudgetExceeded, ModelFailed
from tracegraph.history import Facts
from tracegraph.llm import Budgeted, Request, Scripted
from tracegraph.llm.budgeted import Spent

ROOT = Path(__file__).resolve().parents[3]


def killed(folder: Path, calls: int) -> Any:
    done = subprocess.run(
        [sys.executable, "-m", "tests.optimizers.training.allowing", str(folder), str(calls)],
        cwd=ROOT, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_ten_kills_do_not_stretch_an_allowance(tmp_path: Path) -> None:
    whole, cut = killed(tmp_path, 25)
    assert "budget of 25 calls for 'task'" in whole["result"][2]
    assert whole["calls"]["task"] == 25  # all of it is used, and no more
    assert cut["calls"]["task"] <= 25
    assert cut["calls"]["optimizer"] <= 25
    assert cut["calls"]["task"] >= 25 - WORKERS * cut["killed"]
    assert cut["killed"] >= 5


def test_an_ample_allowance_changes_nothing(tmp_path: Path) -> None:
    whole, cut = killed(tmp_path, 1_000)
    assert cut["result"] == whole["result"]
    assert cut["killed"] >= 5
    lost = sum(cut["calls"].values()) - sum(whole["calls"].values())
    assert 0 <= lost <= cut["killed"] * WORKERS


def test_what_was_under_way_counts_and_what_was_settled_is_counted_once(tmp_path: Path) -> None:
    def go(steps: int, llm: Budgeted) -> Any:
        word = tg.node("a", trainable=True, name="word")
        return fit(
            lambda case: word + case, CASES, lambda case, said: 0.5, store=tmp_path, tries=1,
            optimizer=OptoPrime([word], llm=llm), budget=Budget(steps=steps), batch_size=2,
        )  # fmt: skip

    def model() -> Budgeted:
        return Budgeted(Scripted(lambda request: '{"suggestion": {"word": "b"}}'), calls=50)

    first = model()
    go(2, first)
    second = model()
    go(3, second)
    assert (first.spent.calls, second.spent.calls) == (2, 3)
    go(4, second)  # the same object goes on: nothing is counted twice
    assert second.spent.calls == 4


def test_a_reply_that_was_paid_is_given_though_nothing_is_left(tmp_path: Path) -> None:
    class Killed(BaseException):
        pass

    def go(kill: bool, store: Path | None) -> tuple[Any, int]:
        word = tg.node("a", trainable=True, name="word")
        llm = Scripted([] if store and not kill else ['{"suggestion": {"word": "better"}}'])

        def workflow(case: str) -> Any:
            if kill and word.data == "better":  # it was proposed, and is tried
                raise Killed
            return word + case

        model = Budgeted(llm, calls=1)
        fit(
            workflow, CASES, lambda case, said: float("better" in said), store=store, tries=1,
            optimizer=OptoPrime([word], llm=model), budget=Budget(steps=1), workers=1,
        )  # fmt: skip
        return word.data, model.spent.calls

    with pytest.raises(Killed):
        go(True, tmp_path)
    assert go(False, tmp_path) == go(False, None) == ("better", 1)


def test_a_process_that_ended_in_a_call_leaves_what_the_call_could_take(tmp_path: Path) -> None:
    def say(request: Request) -> str:
        raise ModelFailed("it timed out")

    with Facts("allowances", tmp_path) as journal:
        one = Budgeted(Scripted(say), calls=3, tokens=10_000, reply_tokens=100)
        one.go_on(Spent(calls=1, tokens=50), journal, "a/")
        steps = one.steps(Request.of("hello"))
        next(steps)  # it is asked, and the process ends: nothing more is written
        with pytest.raises(ModelFailed):
            one("hello", attempt=1)  # nobody knows whether it was paid
        again = Budgeted(Scripted(["yes", "no"]), calls=3, tokens=10_000, reply_tokens=100)
        again.go_on(Spent(calls=1, tokens=50), journal, "a/")
        assert again.spent.calls == 3
        assert again.spent.tokens > 50 + 200
        with pytest.raises(BudgetExceeded):
            again("hello")
        other = Budgeted(Scripted(["yes"]), calls=1)
        other.go_on(Spent(), journal, "b/")
        assert other("hello").text == "yes"
        steps.close()


def test_a_call_of_another_allowance_and_time_go_on(tmp_path: Path) -> None:
    now = [100.0]
    model = Budgeted(Scripted(["yes"]), seconds=60, clock=lambda: now[0])
    model.go_on(Spent(seconds=50))
    now[0] += 9
    assert model.spent.seconds == 59
    now[0] += 2
    with pytest.raises(BudgetExceeded, match="seconds"):
        model("hello")


def test_allowances_are_found_wherever_the_program_holds_them() -> None:
    word = tg.node("a", trainable=True, name="word")
    models = [Budgeted(Scripted(["x"], name=n), calls=1) for n in ("task", "judge", "optimizer")]

    class Judge:
        def __init__(self) -> None:
            self.llm = models[1]

        def __call__(self, case: str, said: str) -> float:
            return 0.0

    training = Training(
        lambda case: models[0](case).text and word + case, ["x"], Judge(),
        Options(optimizer=OptoPrime([word], llm=models[2])),
    )  # fmt: skip
    assert len(training.allowances.spent()) == 3
