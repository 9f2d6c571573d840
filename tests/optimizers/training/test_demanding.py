"""A training as a demanding user treats it: broken judges, strange data, interrupts, nesting."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

import tracegraph as tg
from optimizers import Budget, EventLoop, OptoPrime, afit, fit
from optimizers.training.guide import BadVerdict
from optimizers.training.loop import Training, TrainingStopped
from optimizers.training.options import Options
from tests.optimizers.training.stand_ins import Changes, Says, length
from tracegraph.errors import OptimizerError
from tracegraph.history import State
from tracegraph.llm import Scripted


@pytest.fixture
def word() -> Any:
    return tg.node("a", trainable=True, name="word")


def longer(word: Any) -> Changes:
    return Changes([word], lambda present, count: {"word": present["word"] + "x"})


# Judges


def broken(case: Any, output: Any) -> float:
    raise ZeroDivisionError("no reason")


@pytest.mark.parametrize(
    ("guide", "message"),
    [
        (lambda case, output: float("nan"), "NaN cannot be compared"),
        (lambda case, output: None, "gave None"),
        (lambda case, output: "good", "gave 'good'"),
        (lambda case, output: object(), "it must give a"),
        (lambda case, output: (1.0, 2.0), "one Score"),
        (lambda case, output: {}, "gave {}"),
        (lambda case, output: {"a": "much"}, "'a': 'much'"),
        (lambda case, output: [tg.Remark("good")], "one Score"),
        (broken, "raised ZeroDivisionError: no reason"),
    ],
    ids=lambda given: given if isinstance(given, str) else "",
)
def test_a_judge_that_cannot_judge_is_said_before_a_model_is_asked(
    word: Any, guide: Any, message: str
) -> None:
    model = Scripted([])
    with pytest.raises(BadVerdict) as caught:
        fit(lambda case: word + case, ["x"], guide, optimizer=OptoPrime([word], llm=model))
    assert message in str(caught.value)
    assert "'x'" in str(caught.value)  # it names the example
    assert not model.requests
    assert word.data == "a"


@pytest.mark.parametrize("make", [nullcontext, EventLoop])
def test_a_judge_may_be_async(word: Any, make: Any) -> None:
    async def guide(case: Any, output: Any) -> float:
        await asyncio.sleep(0)
        return float(len(output))

    async def workflow(case: str) -> Any:
        return word + case

    with make() as executor:
        result = fit(
            workflow, ["x", "y", "z"], guide, optimizer=Says(word, "longer"), executor=executor,
            budget=Budget(steps=1),
        )  # fmt: skip
    assert (word.data, result.score) == ("longer", 7.0)


# Data


def cases() -> Iterator[str]:
    yield from ("x", "yy", "zzz")


def test_generators_are_data(word: Any) -> None:
    again = tg.node("a", trainable=True, name="word")

    def go(held: Any, train: Any, validation: Any, anchors: Any) -> Any:
        return fit(
            lambda case: held + case, train, length, validation=validation, anchors=anchors,
            optimizer=longer(held), budget=Budget(steps=2), tries=1, workers=1,
        )  # fmt: skip

    once = go(word, cases(), cases(), (c for c in "pq"))
    assert once.history == go(again, list(cases()), list(cases()), list("pq")).history
    assert word.data == "axx"


class Odd:
    """Unhashable, equal to nothing, and nothing that JSON knows."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, text: str) -> None:
        self.text, self.itself = text, self

    def __eq__(self, other: object) -> bool:
        raise TypeError("cannot be compared")


def round_list() -> list[Any]:
    made: list[Any] = ["round"]
    made.append(made)
    return made


@pytest.mark.parametrize("make", [lambda: Odd("odd"), round_list, lambda: {1, 2}, lambda: b"\xff"])
def test_examples_of_any_kind_are_kept_apart_and_gone_on_with(make: Any, tmp_path: Path) -> None:
    def go(steps: int) -> Any:
        word = tg.node("a", trainable=True, name="word")
        return fit(
            lambda case: word + "!", [make(), make()], length, optimizer=longer(word),
            budget=Budget(steps=steps), tries=1, workers=2, store=tmp_path,
        )  # fmt: skip

    assert go(1).spend.runs == 4
    assert go(3).spend.runs == 12


@pytest.mark.parametrize(
    "output",
    [None, 3, object(), b"x", [1, object()]],
    ids=str.split("none number object bytes list"),
)
def test_outputs_of_any_kind_are_judged(word: Any, output: Any, tmp_path: Path) -> None:
    @tg.bundle
    def answer(word: str) -> Any:
        """Whatever it is."""
        return output

    seen: list[Any] = []

    def guide(case: Any, said: Any) -> float:
        seen.append(said)
        return 1.0

    result = fit(
        lambda case: answer(word), ["x"], guide,
        optimizer=longer(word), budget=Budget(steps=1), tries=1, store=tmp_path,
    )  # fmt: skip
    assert result.error is None
    assert seen[0] is output or seen[0] == output


# Time and interrupts


def test_an_interrupt_returns_what_was_achieved_and_goes_on_from_there(
    word: Any, tmp_path: Path
) -> None:
    def go(held: Any, at: str = "") -> Any:
        def workflow(case: str) -> Any:
            if held.data == at:  # a candidate that is only scored
                raise KeyboardInterrupt
            return held + case

        return fit(
            workflow, list(cases()), length, optimizer=longer(held), budget=Budget(steps=5), tries=1,
            workers=1, validation=["v"], store=tmp_path,
        )  # fmt: skip

    with pytest.warns(TrainingStopped, match="KeyboardInterrupt"):
        result = go(word, "axxx")
    assert isinstance(result.error, KeyboardInterrupt)
    assert result.stopped == "KeyboardInterrupt"
    assert word.data == result.best.values["word"] == "axx"
    assert result.history[-1].kind == "finished"
    later = tg.node("a", trainable=True, name="word")
    assert go(later).best.values["word"] == later.data == "axxxxx"


def test_an_interrupt_before_anything_was_achieved_passes_through(word: Any) -> None:
    def workflow(case: str) -> Any:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(workflow, ["x"], length, optimizer=longer(word))
    assert word.data == "a"


def test_a_cancelled_training_ends_at_once_and_keeps_the_best(word: Any) -> None:
    ended: list[str] = []
    hanging = threading.Event()

    async def workflow(case: str) -> Any:
        if word.data == "axx":
            hanging.set()
            try:
                await asyncio.Event().wait()  # for ever
            finally:
                ended.append(case)
        return word + case

    async def main() -> None:
        with EventLoop() as loop:
            training = afit(
                workflow, list(cases()), length, optimizer=longer(word), executor=loop, tries=1,
                budget=Budget(steps=9), validation=["v"],
            )  # fmt: skip
            task = asyncio.create_task(training)
            assert await asyncio.to_thread(hanging.wait, 20)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(asyncio.wait_for(main(), 40))
    assert ended
    assert word.data == "ax"


def test_a_training_that_is_stopped_from_another_thread_says_so(word: Any) -> None:
    release, hanging = threading.Event(), threading.Event()

    def workflow(case: str) -> Any:
        if word.data == "axx":
            hanging.set()
            release.wait(60)
        return word + case

    training = Training(
        workflow, list(cases()), length,
        Options(optimizer=longer(word), budget=Budget(steps=9), tries=1, workers=1),
    )  # fmt: skip

    def end() -> None:
        hanging.wait(20)
        training.stop()

    stop = threading.Thread(target=end)
    stop.start()
    result = training.run()
    release.set()
    assert (result.stopped, result.error, word.data) == ("it was asked to stop", None, "ax")


# Nesting, and side by side


def tuned(start: str, cue: str, steps: int = 2, **options: Any) -> Any:
    """A training of its own."""
    inner = tg.node(start, trainable=True, name="word")
    return fit(
        lambda case: inner + case, [cue, cue * 2], length, optimizer=longer(inner), tries=1,
        budget=Budget(steps=steps), **options,
    )  # fmt: skip


@pytest.mark.parametrize("workers", [1, 4])
def test_a_training_within_a_run_of_another_one(word: Any, workers: int) -> None:
    alone = tuned("b", "x")

    @tg.bundle
    def searched(word: str, case: str) -> str:
        """Trains a word of its own; opaque, and for candidates not recorded."""
        found = tuned("b", case)
        assert found.best == alone.best
        return word + str(found.best.values["word"])

    result = fit(
        lambda case: searched(word, case), ["x", "y"], length, optimizer=longer(word), tries=1,
        budget=Budget(steps=2), workers=workers,
    )  # fmt: skip
    assert (word.data, result.score) == ("axx", len("axx" + "bxx"))


def test_a_training_where_nothing_is_recorded_records_all_the_same() -> None:
    with tg.stop_tracing():
        assert tuned("b", "x").best == tuned("b", "y").best
        assert tg.node(1).data == 1
        assert (tg.node(1) + 1).inputs == {}


def test_trainings_in_threads_do_not_see_each_other(tmp_path: Path) -> None:
    expected = {start: tuned(start, "x", 4).history for start in "pqr"}
    found: dict[str, Any] = {}

    def go(start: str) -> None:
        store = State(start, tmp_path)
        found[start] = tuned(start, "x", 4, store=store).history

    threads = [threading.Thread(target=go, args=(start,)) for start in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == expected


def test_two_threads_never_train_in_one_store(tmp_path: Path) -> None:
    inside, release = threading.Event(), threading.Event()
    word = tg.node("a", trainable=True, name="word")

    def workflow(case: str) -> Any:
        inside.set()
        release.wait(20)
        return word + case

    first = threading.Thread(
        target=fit, args=(workflow, ["x"], length),
        kwargs={"optimizer": longer(word), "budget": Budget(steps=1), "store": tmp_path},
    )  # fmt: skip
    first.start()
    assert inside.wait(20)
    from tracegraph.errors import HistoryError

    with pytest.raises(HistoryError, match="in use by another run"):
        tuned("b", "x", store=tmp_path)
    release.set()
    first.join()


def test_a_workflow_without_parameters_is_refused_before_it_runs() -> None:
    ran: list[Any] = []
    with pytest.raises(OptimizerError, match="no parameters were found in the workflow"):
        fit(ran.append, ["x"], length)
    assert not ran


def test_who_may_ask_for_several_stops_asking_when_the_budget_is_spent(word: Any) -> None:
    llm = Scripted(lambda request: f'{{"suggestion": {{"word": "a{request.attempt}"}}}}')
    result = fit(
        lambda case: word + case, ["x"], lambda case, output: (0.0, "no"), tries=1, proposals=3,
        optimizer=OptoPrime([word], llm=llm), budget=Budget(calls=2),
    )  # fmt: skip
    assert (result.spend.steps, result.spend.calls) == (1, 2)
