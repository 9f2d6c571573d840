from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

import tracegraph as tg
from optimizers import Budget, fit
from optimizers.candidate import Candidate
from optimizers.training.evaluator import Evaluator
from optimizers.training.event_loop import EventLoop
from optimizers.training.loop import TrainingStopped
from optimizers.training.processes import Processes, WorkerFailed, _Killable
from optimizers.training.threads import DaemonThreads, TooManyLost
from tests.optimizers.training import elsewhere
from tests.optimizers.training.stand_ins import HELLO, NAMES, Says, greeting, length
from tracegraph.errors import OptimizerError
from tracegraph.sandbox import Policy
from tracegraph.sandbox.pool import Code, SandboxPool

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def word() -> Any:
    return tg.node("hi", trainable=True, name="word")


def pool() -> ProcessPoolExecutor:
    return ProcessPoolExecutor(2, mp_context=get_context("spawn"))


def code() -> Code:
    return Code("def greeted(values, name):\n    return values['word'] + ' ' + name\n", "greeted")


@pytest.mark.parametrize(
    ("make", "remote"),
    [
        (lambda: Processes(2), elsewhere.greeted),
        (pool, elsewhere.greeted),
        (lambda: ThreadPoolExecutor(2), elsewhere.greeted),
        (lambda: SandboxPool(2, policy=Policy(preload=())), code()),
    ],
    ids=["Processes", "ProcessPoolExecutor", "ThreadPoolExecutor", "SandboxPool"],
)
def test_every_executor_gives_what_threads_here_give(word: Any, make: Any, remote: Any) -> None:
    here = greeting(word).scores(HELLO, NAMES)
    executor: Executor
    with make() as executor:
        there = greeting(word, executor=executor, remote=remote).scores(HELLO, NAMES)
    assert there == here
    assert [e.score for e in here] == [9.0] * 4


def gone(pid: int) -> bool:
    """Whether a process has ended; a moment may pass until the system says so."""
    for _ in range(500):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return True
        time.sleep(0.01)
    return False


def test_a_run_in_a_process_that_exceeds_its_time_is_really_ended(
    word: Any, tmp_path: Path
) -> None:
    there = tmp_path / "pid"
    with Processes(2) as executor:
        executor.submit(elsewhere.greeted, {"word": ""}, "warm").result()
        late = greeting(word, executor=executor, remote=elsewhere.slow_for_bob, timeout=5.0)
        done = late.scores(Candidate.of({"word": str(there)}), NAMES)
    assert [e.error is None for e in done] == [True, False, True, True]
    assert (done[1].error or "").startswith("TimeoutError")
    assert gone(int(there.read_text()))


def test_waiting_for_room_in_the_executor_is_not_the_run_s_time(word: Any) -> None:
    with Processes(1) as executor:
        executor.submit(elsewhere.greeted, {"word": ""}, "warm").result()
        crowded = greeting(
            word, executor=executor, remote=elsewhere.takes_a_moment, timeout=1.5, workers=4
        )
        done = crowded.scores(HELLO, NAMES)  # the last one waits for 1.5 seconds
    assert [e.error for e in done] == [None] * 4


def test_what_fails_or_dies_elsewhere_is_a_low_score_with_its_reason(word: Any) -> None:
    names = {**NAMES, 4: "Eve", 5: "Fay"}
    with Processes(1) as executor:
        there = greeting(
            word, executor=executor, remote=elsewhere.fails_for_bob, failure_score=-1.0
        )
        done = there.scores(HELLO, names)
    assert [e.score for e in done] == [9, -1, 9, 9, -1, 9]
    assert "no such name" in done[1].text
    assert "ended with code 3" in done[4].text


def test_nothing_that_cannot_be_imported_is_sent_to_a_process() -> None:
    with Processes(1) as executor:
        for function in (lambda x: x, greeted_here := (lambda x: x), 3):
            with pytest.raises(OptimizerError, match="cannot import"):
                executor.submit(function, 1)  # type: ignore[arg-type]
        with pytest.raises(WorkerFailed, match="ZeroDivisionError"):
            executor.submit(divmod, 1, 0).result()
    assert callable(greeted_here)
    with pytest.raises(RuntimeError, match="shut down"):
        executor.submit(divmod, 1, 1)


def test_an_executor_that_takes_no_call_ends_it_with_its_reason(word: Any) -> None:
    executor = ThreadPoolExecutor(1)
    executor.shutdown()
    with pytest.raises(OptimizerError, match=r"took no call.*shutdown"):
        greeting(word, executor=executor, remote=elsewhere.greeted).scores(HELLO, NAMES)


@pytest.mark.parametrize(
    "wrong", [{"remote": elsewhere.greeted}, {"executor": 4}], ids=["remote", "executor"]
)
def test_wrong_options_are_refused(word: Any, wrong: dict[str, Any]) -> None:
    with pytest.raises(OptimizerError, match="executor"):
        greeting(word, **wrong)


def test_a_training_scores_its_candidates_in_other_processes(word: Any) -> None:
    ran: list[str] = []

    def workflow(name: str) -> Any:
        ran.append(name)
        return word + " " + name

    with Processes(2) as executor:
        result = fit(
            workflow, ["Ann", "Bob", "Cem"], length, validation=["Dot"], executor=executor,
            remote=elsewhere.greeted, optimizer=Says(word, "good day"), budget=Budget(steps=1),
        )  # fmt: skip
    assert (word.data, result.baseline, result.score) == ("good day", 6.0, 12.0)
    assert sorted(ran) == ["Ann", "Bob", "Cem"]  # only the runs whose graphs are needed


def test_a_run_whose_graph_is_needed_has_its_time_too(word: Any) -> None:
    release = threading.Event()
    with Processes(1) as executor:
        there = Evaluator(
            lambda name: release.wait(60) and word, length, {"word": word}, timeout=0.2,
            executor=executor, remote=elsewhere.greeted,
        )  # fmt: skip
        done = there.traced(Candidate.of({"word": "hi"}), {0: "Ann"})
    release.set()
    assert (done[0].evaluation.error or "").startswith("TimeoutError")


# Threads


def test_only_so_many_threads_may_be_lost(word: Any) -> None:
    release = threading.Event()
    stuck = Evaluator(
        lambda name: release.wait(60) and word, length, {"word": word}, timeout=0.05, workers=2,
        executor=DaemonThreads(lost=3),
    )  # fmt: skip
    with pytest.raises(TooManyLost, match=r"[34] runs exceeded their time"):
        stuck.scores(HELLO, dict(enumerate("abcdefgh")))
    assert stuck.runs <= 5
    release.set()


def test_too_many_lost_threads_end_a_training_and_keep_what_was_achieved(word: Any) -> None:
    release = threading.Event()

    def workflow(name: str) -> Any:
        if word.data == "very long":
            release.wait(60)
        return word + " " + name

    with pytest.warns(TrainingStopped, match="cannot be ended"):
        result = fit(
            workflow, ["Ann", "Bob", "Cem"], length, timeout=0.5, workers=1, tries=1,
            optimizer=Says(word, "good day", "very long"), budget=Budget(steps=5),
            executor=DaemonThreads(lost=2),
        )  # fmt: skip
    release.set()
    assert isinstance(result.error, TooManyLost)
    assert word.data == "good day"


# An event loop


def test_tasks_of_one_loop_run_side_by_side(word: Any) -> None:
    together, threads = 0, set()
    most = 0

    @tg.bundle
    async def greet(word: str, name: str) -> str:
        """Waits a moment."""
        nonlocal together, most
        threads.add(threading.get_ident())
        together += 1
        most = max(most, together)
        await asyncio.sleep(0.02)
        together -= 1
        return f"{word} {name}"

    with EventLoop() as loop:
        there = Evaluator(
            lambda name: greet(word, name), length, {"word": word}, executor=loop, workers=3
        )
        done = there.scores(HELLO, NAMES)
        traced = there.traced(Candidate.of({"word": "hi"}), NAMES)
    assert [e.score for e in done] == [9.0] * 4
    assert [t.evaluation.score for t in traced] == [6.0] * 4
    assert (most, len(threads)) == (3, 1)
    for t in traced:
        assert t.output is not None
        assert word in tg.Graph.of(t.output).parameters


def test_a_task_that_exceeds_its_time_is_cancelled(word: Any) -> None:
    ended: list[str] = []

    async def greet(name: str) -> Any:
        try:
            await asyncio.sleep(60 if name == "Bob" else 0)
        except asyncio.CancelledError:
            ended.append(name)
            raise
        return word + " " + name

    with EventLoop() as loop:
        there = Evaluator(greet, length, {"word": word}, executor=loop, timeout=0.5)
        done = there.scores(HELLO, NAMES)
    assert [e.score for e in done] == [9, 0, 9, 9]
    assert ended == ["Bob"]


def test_candidates_side_by_side_in_one_loop_do_not_see_each_other(word: Any) -> None:
    async def greet(name: str) -> Any:
        first = word.data
        await asyncio.sleep(0.01)
        assert word.data == first
        return word + " " + name

    with EventLoop() as loop:
        there = Evaluator(greet, length, {"word": word}, executor=loop)
        found = {}

        def score(text: str) -> None:
            found[text] = there.scores(Candidate.of({"word": text}), NAMES)

        threads = [threading.Thread(target=score, args=("x" * n,)) for n in (1, 2, 3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert {t: e[0].score for t, e in found.items()} == {"x": 5, "xx": 6, "xxx": 7}
    assert word.data == "hi"


def test_a_worker_ends_with_its_program_whatever_it_is_doing(tmp_path: Path) -> None:
    there = tmp_path / "pid"
    program = (
        "import sys\n"
        "from optimizers.training.processes import Processes\n"
        "from tests.optimizers.training.elsewhere import slow_for_bob\n"
        f"Processes(1).submit(slow_for_bob, {{'word': {str(there)!r}}}, 'Bob').result()"
    )
    with subprocess.Popen([sys.executable, "-c", program], cwd=ROOT) as killed:
        for _ in range(3_000):
            if there.exists() and there.read_text():
                break
            time.sleep(0.01)
        killed.kill()
    assert gone(int(there.read_text()))


def test_a_call_that_is_given_up_as_it_ends_kills_no_process_of_another_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between the answer and the result that all can see, the process is everybody's again."""
    answered = _Killable.set_result

    def cancelled(self: Any, result: Any) -> None:
        self.cancel()
        answered(self, result)

    with Processes(1) as executor:
        with monkeypatch.context() as patched:
            patched.setattr(_Killable, "set_result", cancelled)
            assert executor.submit(os.path.join, "a", "b").result() == "a/b"
        assert executor.submit(os.path.join, "b", "c").result() == "b/c"


def test_calls_may_be_handed_over_while_processes_are_shut_down(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    executor = Processes(1)
    start, shut = threading.Thread.start, threading.Thread(target=executor.shutdown)

    def starting(self: threading.Thread) -> None:
        if self is not shut and not shut.ident:
            start(shut)
            shut.join(0.05)  # it waits for this call, or would have failed by now
        start(self)

    failed: list[Any] = []
    monkeypatch.setattr(threading, "excepthook", failed.append)
    monkeypatch.setattr(threading.Thread, "start", starting)
    future = executor.submit(os.path.join, "a", "b")
    shut.join()
    assert future.result() == "a/b"
    assert failed == []
