from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from random import Random
from typing import Any

import pytest

import tracegraph as tg
from optimizers.candidate import Candidate
from optimizers.training.evaluator import Evaluator
from optimizers.training.guide import BadVerdict
from tests.optimizers.training.stand_ins import HELLO, length
from tracegraph.errors import OptimizerError


@pytest.fixture
def word() -> Any:
    return tg.node("plain", trainable=True, name="word")


def numbered(count: int) -> dict[int, str]:
    return {n: "x" * n for n in range(count)}


@pytest.mark.parametrize("executor", [None, "pool"])
def test_the_order_is_that_of_the_examples_whoever_is_ready_first(word: Any, executor: Any) -> None:
    delays = Random(0)

    def workflow(text: str) -> Any:
        time.sleep(delays.random() / 200)
        return word + text

    found = []
    for workers in (1, 16):
        pool = ThreadPoolExecutor(16) if executor else None
        evaluator = Evaluator(workflow, length, {"word": word}, workers=workers, executor=pool)
        found.append([e.score for e in evaluator.scores(HELLO, numbered(20))])
    assert found[0] == found[1] == [5.0 + n for n in range(20)]
    assert word.data == "plain"


def test_graphs_are_numbered_as_if_the_runs_came_one_by_one(word: Any) -> None:
    together = threading.Barrier(4)

    @tg.bundle
    def slow(text: str, more: str) -> str:
        """Waits for the others, so that their ids mix."""
        together.wait(10)
        return text + more

    evaluator = Evaluator(
        lambda text: slow(slow(word, "a"), text), length, {"word": word}, workers=4
    )
    traced = evaluator.traced(Candidate.of({"word": "plain"}), numbered(4))
    ids = [[n.id for n in tg.Graph.of(t.output).nodes if not n.parameter] for t in traced]
    flat = [number for of_one in ids for number in of_one]
    assert flat == sorted(flat)
    for t in traced:
        assert all(i.id < n.id for n in tg.Graph.of(t.output).nodes for i in n.inputs.values())


def test_at_most_so_many_run_at_once(word: Any) -> None:
    running, most, lock = [0], [0], threading.Lock()

    def workflow(text: str) -> Any:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        time.sleep(0.01)
        with lock:
            running[0] -= 1
        return word + text

    Evaluator(workflow, length, {"word": word}, workers=3).scores(HELLO, numbered(12))
    assert most[0] == 3


def test_a_hang_is_not_waited_for_and_harms_no_other(word: Any) -> None:
    release = threading.Event()

    def workflow(text: str) -> Any:
        if len(text) == 1:
            release.wait(60)
        return word + text

    evaluator = Evaluator(
        workflow, length, {"word": word}, workers=2, timeout=1.0, failure_score=-1
    )
    began = time.monotonic()
    done = evaluator.scores(HELLO, numbered(6))
    assert time.monotonic() - began < 20
    release.set()
    assert [e.score for e in done] == [5, -1, 7, 8, 9, 10]
    assert "longer than 1 second" in done[1].text
    assert (done[1].error or "").startswith("TimeoutError")


def test_an_endless_loop_does_not_keep_the_process_from_ending() -> None:
    code = (
        "from optimizers.candidate import Candidate\n"
        "from optimizers.training.evaluator import Evaluator\n"
        "def endless(x):\n    while True: pass\n"
        "e = Evaluator(endless, lambda x, y: 1.0, {}, timeout=0.2)\n"
        "print(e.scores(Candidate.of({}), {0: 1})[0].error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert "TimeoutError" in done.stdout


def test_a_failing_example_is_a_low_score_with_its_error_as_feedback(word: Any) -> None:
    @tg.bundle
    def picky(text: str, word: str) -> str:
        """Fails on the second example."""
        if text == "x":
            raise KeyError("no such thing")
        return word + text

    evaluator = Evaluator(
        lambda text: picky(text, word), length, {"word": word}, failure_score=-5.0
    )
    done = evaluator.scores(HELLO, numbered(3))
    assert [e.score for e in done] == [5, -5, 7]
    assert "no such thing" in done[1].text
    assert (done[1].error or "").startswith("KeyError")
    traced = evaluator.traced(Candidate.of({"word": "plain"}), numbered(2))[1]
    assert traced.output is not None
    tg.backward([(traced.output, traced.messages)])
    assert "no such thing" in str(word.feedback[tg.Remark])


def test_what_is_known_is_not_run_again_and_splits_are_apart(word: Any) -> None:
    ran = []

    def workflow(text: str) -> Any:
        ran.append(text)
        return word + text

    evaluator = Evaluator(workflow, length, {"word": word})
    first = evaluator.scores(HELLO, {0: "a", 1: "b"})
    assert evaluator.scores(HELLO, {1: "b", 0: "a"}) == first[::-1]
    assert len(ran) == 2
    other = evaluator.scores(HELLO, {0: "longer"}, "validation")  # the same number, another example
    assert [e.score for e in other] == [11.0]
    evaluator.scores(Candidate.of({"word": "bye"}), {0: "a"})
    assert (len(ran), evaluator.runs) == (4, 4)
    assert evaluator.missing(HELLO, [0, 1, 2]) == 1


def test_an_async_workflow_is_awaited(word: Any) -> None:
    @tg.bundle
    async def later(text: str, word: str) -> str:
        """Sleeps a little."""
        await asyncio.sleep(0)
        return word + text

    evaluator = Evaluator(lambda text: later(text, word), length, {"word": word})
    assert [e.score for e in evaluator.scores(HELLO, numbered(3))] == [5, 6, 7]


def test_a_pair_gives_its_input_alone(word: Any) -> None:
    seen = []

    def guide(example: Any, output: Any) -> float:
        seen.append(example)
        return float(output == example[1])

    evaluator = Evaluator(lambda text: word + text, guide, {"word": word}, workers=1)
    done = evaluator.scores(HELLO, {0: (" you", "hello you"), 1: (" me", "no")})
    assert [e.score for e in done] == [1.0, 0.0]
    assert seen == [(" you", "hello you"), (" me", "no")]


def test_a_guide_without_a_score_ends_it(word: Any) -> None:
    evaluator = Evaluator(lambda text: word + text, lambda e, o: float("nan"), {"word": word})
    with pytest.raises(BadVerdict):
        evaluator.scores(HELLO, numbered(30))
    assert evaluator.runs <= 8 + 8


@pytest.mark.parametrize(
    "wrong",
    [{"workers": 0}, {"workers": 1.5}, {"timeout": 0}, {"failure_score": float("nan")},
     {"workflow": 3}, {"guide": "good"}],
    ids=str,
)  # fmt: skip
def test_wrong_options_are_refused(word: Any, wrong: dict[str, Any]) -> None:
    given = {"workflow": len, "guide": length, "parameters": {"word": word}, **wrong}
    with pytest.raises(OptimizerError, match=next(iter(wrong))):
        Evaluator(**given)


@pytest.mark.parametrize("workers", [1, 4])
def test_runs_that_are_only_scored_leave_chance_as_it_was(workers: int) -> None:
    evaluator = Evaluator(lambda text: random.random(), lambda e, o: o, {}, workers=workers)
    evaluator.apart = True
    random.seed(7)
    first = [e.score for e in evaluator.scores(Candidate.of({}), numbered(5))]
    assert random.random() == random.Random(7).random()
    assert workers > 1 or len(set(first)) == 1
