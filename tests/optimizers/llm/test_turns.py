"""Several proposals at once: side by side they wait for the model, and nothing else changes."""

from __future__ import annotations

import json
import signal
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest

import tracegraph as tg
from optimizers import Mix, OptoPrime, Reflect, Rules, Several, TextGrad, by_evaluation, by_judge
from optimizers.base import Proposal
from optimizers.llm.several import Choice, _independent
from optimizers.llm.turns import OfThread, aside, in_turns
from optimizers.places import Place
from tracegraph.errors import BudgetExceeded, ModelFailed, OptimizerError
from tracegraph.history import Facts
from tracegraph.llm import Ask, Budgeted, Fallback, Reply, Request, Scripted, Steps, Usage, Wrapper
from tracegraph.llm.keeping import keeping


def suggest(**values: Any) -> str:
    return json.dumps({"suggestion": values})


@pytest.fixture
def word() -> Any:
    return tg.node("a", trainable=True, name="word")


@pytest.mark.parametrize("seed", range(5))
def test_what_happens_does_not_depend_on_how_long_the_waiting_takes(seed: int) -> None:
    def told(workers: int, random: Random | None) -> list[tuple[int, int]]:
        said: list[tuple[int, int]] = []

        def job(number: int) -> int:
            for question in range(1 + number % 3):
                said.append((number, question))
                with aside():
                    time.sleep(0.0 if random is None else random.uniform(0, 0.004))
            said.append((number, -1))
            return number

        assert in_turns([lambda n=n: job(n) for n in range(6)], workers=workers) == list(range(6))
        return said

    assert told(6, Random(seed)) == told(3, Random(seed + 1)) == told(6, None)


def test_the_questions_are_under_way_together(word: Any) -> None:
    barrier = threading.Barrier(4, timeout=30)

    def together(request: Request) -> str:
        barrier.wait()
        return suggest(word="b")

    several = Several(OptoPrime([word], llm=Scripted(together)), workers=4)
    several.backward(word + "!", "Not a.")
    assert several.step().note == "4 of 4 proposals agree"


def test_no_more_are_under_way_than_there_are_workers(word: Any) -> None:
    lock, now, most = threading.Lock(), [0], [0]

    def slow(request: Request) -> str:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        time.sleep(0.01)
        with lock:
            now[0] -= 1
        return suggest(word="b")

    several = Several(OptoPrime([word], llm=Scripted(slow)), n=7, workers=3)
    several.backward(word + "!", "Not a.")
    several.step()
    assert 1 < most[0] <= 3


def delayed(answer: Callable[[Request], str], random: Random) -> Scripted:
    def said(request: Request) -> str:
        time.sleep(random.uniform(0, 0.01))
        return answer(request)

    return Scripted(said)


@pytest.mark.parametrize("make", [OptoPrime, Reflect, TextGrad, Rules])
def test_at_once_and_in_turn_come_to_the_same(make: Any) -> None:
    """The same proposals, the same memory, and as many questions, whoever is ready first."""

    def answer(request: Request) -> str:
        if '"suggestion"' not in request.messages[0].text:
            return "It is wrong."
        return suggest(one=f"one {request.attempt % 2}", two=f"two {request.attempt}")

    def run(workers: int, seed: int) -> Any:
        one, two = (tg.node(n, trainable=True, name=n) for n in ("one", "two"))
        join = tg.bundle(lambda a, b, x: f"{a} {b} {x}", name="join")
        llm = delayed(answer, Random(seed))
        several = Several(make([one, two], llm=llm), n=5, workers=workers)
        ended = []
        for turn in range(2):
            several.backward(
                [
                    (join(one, two, f"{x} {turn}"), [score, f"no {x}"])
                    for x in "abc"
                    for score in (0.0, 1.0)
                ]
            )
            ended.append(str(several.step()))
        log = [(e.messages[-1].text, e.reply.text) for e in several.optimizers[0].log]
        return ended, one.data, two.data, log, several.state_dict()

    assert run(8, 1) == run(8, 2)
    if make is not Rules:  # it shows other pairs to each that comes after the reply
        assert run(8, 3)[:3] == run(1, 4)[:3]
        assert len(run(8, 3)[3]) == len(run(1, 4)[3])


@pytest.mark.parametrize("limit", [{"calls": 2}, {"tokens": 900}], ids=str)
def test_a_budget_holds_and_what_was_paid_for_is_used(word: Any, limit: Any) -> None:
    paid: list[Request] = []

    def answer(request: Request) -> Reply:
        paid.append(request)
        time.sleep(0.005)
        return Reply(suggest(word="b"), usage=Usage(300, 10))

    model = Budgeted(Scripted(answer), reply_tokens=50, **limit)
    several = Several(OptoPrime([word], llm=model, max_tokens=50), n=6, workers=6)
    several.backward(word + "!", "Not a.")
    if "tokens" in limit:
        with pytest.raises(BudgetExceeded):
            several.step()
        assert paid == []  # not even one would have fitted
        return
    update = several.step()
    assert (word.data, update.usage.calls, len(paid)) == ("b", 2, 2)
    assert model.spent.calls == 2


def test_where_nobody_answers_the_first_failure_is_raised_and_the_feedback_stays(word: Any) -> None:
    def fail(request: Request) -> str:
        time.sleep(0.01 * (3 - request.attempt))
        raise ModelFailed(f"attempt {request.attempt}", status=500)

    several = Several(OptoPrime([word], llm=Scripted(fail)), n=3)
    several.backward(word + "!", "Not a.")
    with pytest.raises(ModelFailed, match="attempt 0"):
        several.step()
    assert word.feedback


def test_a_mistake_in_a_program_is_not_taken_for_a_model_that_is_down(word: Any) -> None:
    def answer(request: Request) -> str:
        return suggest(word="b") if request.attempt else str(1 // 0)

    several = Several(OptoPrime([word], llm=Scripted(answer)), n=3)
    several.backward(word + "!", "Not a.")
    with pytest.raises(ZeroDivisionError):
        several.step()
    assert word.data == "a"


def test_the_rule_that_is_counted_is_that_of_the_proposal_that_was_taken() -> None:
    prompt = tg.node("Work.", trainable=True, name="prompt")
    work = tg.bundle(lambda prompt, order: f"{order} done", name="work")
    words = ["First.", "First.", "Last."]
    llm = Scripted(lambda request: suggest(prompt=words[request.attempt]))
    rules = Rules([prompt], llm=llm)
    several = Several(rules, n=3)
    several.backward([(work(prompt, "wood"), 1.0), (work(prompt, "wood"), 0.0)])
    several.step()
    assert prompt.data == "Work.\n- First."
    assert rules.rules == {"prompt": ["First."]}


def test_critiques_are_paid_for_once_for_all_proposals(word: Any) -> None:
    said = {"criticism": 0}

    def answer(request: Request) -> str:
        if '"suggestion"' in request.messages[0].text:
            return suggest(word=f"b{request.attempt}")
        said["criticism"] += 1
        return "Too short."

    work = tg.bundle(lambda word, x: f"{word} {x}", name="work")
    several = Several(TextGrad([word], llm=Scripted(answer)), n=4)
    several.backward([(work(word, x), "Wrong.") for x in "pq"])
    update = several.step()
    assert said["criticism"] == 2
    assert update.usage.calls == 6


def test_a_script_is_read_in_order_whoever_is_quicker(word: Any) -> None:
    overtaken = threading.Event()

    class Slow(Wrapper):
        asked = 0

        def steps(self, request: Request) -> Steps:
            self.asked += 1
            if self.asked > 1:
                overtaken.set()
            overtaken.wait(0.2)
            reply: Reply = yield Ask(self._inner, request)
            return reply

    seen: list[Any] = []

    def select(proposals: Sequence[Proposal]) -> Choice:
        seen.extend(proposal.values[word] for proposal in proposals)
        return Choice(0)

    script = Slow(Scripted([suggest(word=w) for w in "bcde"]))
    llm = Fallback(Budgeted(script, calls=4), Scripted([]))
    several = Several(OptoPrime([word], llm=llm), n=4, select=select)
    several.backward(word + "!", "Wrong.")
    several.step()
    assert seen == list("bcde")


def test_a_judge_is_asked_in_both_orders_at_once(word: Any) -> None:
    barrier = threading.Barrier(2, timeout=30)

    def judge(request: Request) -> str:
        barrier.wait()
        return "1"

    chosen = by_judge(Scripted(judge))([Proposal({word: w}) for w in "bc"])
    assert (chosen.index, chosen.usage.calls) == (0, 2)
    votes = by_judge(Scripted([ModelFailed("down", status=500), "1"]))
    assert votes([Proposal({word: w}) for w in "bc"]).usage.calls == 1


def test_jobs_see_the_values_that_their_caller_sees(word: Any) -> None:
    with tg.Overlay({word: "over"}):
        assert in_turns([lambda: word.data] * 3, workers=2) == ["over"] * 3


def test_who_gives_up_waiting_lets_nobody_go_on() -> None:
    both, released, went_on = threading.Barrier(3, timeout=30), threading.Event(), []
    here, stopped = threading.get_ident(), threading.Event()

    def job() -> None:
        with aside():
            both.wait()
            released.wait(30)
        went_on.append(1)

    def interrupt(*_: object) -> None:
        if not stopped.is_set():
            stopped.set()
            raise KeyboardInterrupt

    def stop() -> None:
        both.wait()
        while not stopped.wait(0.01):  # a signal just before Python waits does not wake it
            signal.pthread_kill(here, signal.SIGUSR1)

    before = set(threading.enumerate())
    usual = signal.signal(signal.SIGUSR1, interrupt)
    stopper = threading.Thread(target=stop)
    stopper.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            in_turns([job, job], workers=2)
        released.set()
        for thread in set(threading.enumerate()) - before:
            thread.join(30)
    finally:
        signal.signal(signal.SIGUSR1, usual)
    assert went_on == []


@pytest.mark.parametrize("place", range(3))
def test_what_is_no_outcome_of_a_job_ends_the_caller_and_the_jobs_that_wait(place: int) -> None:
    class Ended(BaseException):
        pass

    ended, began = Ended("now"), []

    def job(number: int) -> None:
        began.append(number)
        if number == place:
            raise ended

    with pytest.raises(Ended) as caught:
        in_turns([lambda n=n: job(n) for n in range(3)], workers=3)
    assert caught.value is ended
    assert began == list(range(place + 1))


def test_a_job_that_is_aside_when_another_ends_all_does_not_go_on() -> None:
    asked, gone, went_on = threading.Event(), threading.Event(), []

    def waits() -> None:
        with aside():
            asked.set()
            gone.wait(30)
        went_on.append(1)

    def ends() -> None:
        asked.wait(30)
        gone.set()
        raise SystemExit

    with pytest.raises(SystemExit):
        in_turns([waits, ends], workers=2)
    assert went_on == []


def test_an_attribute_of_a_thread_is_of_its_instance_too() -> None:
    class Box:
        mark = OfThread("none")

    one, two = Box(), Box()
    one.mark = "one"
    assert (one.mark, two.mark) == ("one", "none")
    assert in_turns([lambda: one.mark, lambda: two.mark], workers=2) == ["none", "none"]


# Groups in groups, and runs that choose


@pytest.mark.parametrize("seed", range(3))
def test_jobs_within_jobs_have_turns_of_their_own(seed: int) -> None:
    def told(random: Random | None) -> list[tuple[int, ...]]:
        said: list[tuple[int, ...]] = []

        def job(*number: int) -> int:
            for question in range(2):
                said.append((*number, question))
                with aside():
                    time.sleep(0.0 if random is None else random.uniform(0, 0.004))
            said.append((*number, -1))
            return number[-1]

        def many(number: int) -> list[int | Exception]:
            said.append((number,))
            inner = in_turns([lambda n=n: job(number, n) for n in range(3)], workers=3)
            said.append((number,))
            return inner

        jobs = [lambda: many(0), lambda: job(1), lambda: many(2)]
        assert in_turns(jobs, workers=9) == [[0, 1, 2], 1, [0, 1, 2]]
        return said

    assert told(Random(seed)) == told(Random(seed + 1)) == told(None)


def group(word: Any, llm: Scripted, workers: int) -> Several:
    inner = Several([OptoPrime([word], llm=llm), Reflect([word], llm=llm)], n=4, workers=workers)
    mix = Mix([OptoPrime([word], llm=llm), OptoPrime([word], llm=llm)])
    return Several([inner, OptoPrime([word], llm=llm), mix], workers=workers)


def test_groups_in_a_group_are_asked_beside_each_other(word: Any) -> None:
    barrier = threading.Barrier(6, timeout=60)

    def together(request: Request) -> str:
        barrier.wait()
        return suggest(word="b")

    several = group(word, Scripted(together), 8)
    several.backward(word + "!", [0.0, "Not a."])
    assert several.step().usage.calls == 6


def test_groups_in_a_group_come_to_the_same_with_any_number_of_workers(word: Any) -> None:
    def answer(request: Request) -> str:
        return suggest(word=f"{len(request.messages[-1].text) % 7} {request.attempt}")

    def run(workers: int, seed: int) -> Any:
        word = tg.node("a", trainable=True, name="word")
        several = group(word, delayed(answer, Random(seed)), workers)
        ended = []
        for turn in range(3):
            several.backward([(word + x, [turn / 3, f"no {x}"]) for x in "ab"])
            ended.append(str(several.step()))
        return ended, word.data, several.state_dict()

    assert run(8, 1) == run(8, 2) == run(2, 3) == run(1, 4)


def test_a_group_that_is_asked_twice_knows_what_it_came_to_the_first_time(word: Any) -> None:
    """Its bandit chooses by the account of the proposal before."""

    def run(workers: int) -> list[int]:
        llm = Scripted(lambda request: suggest(word="b"))
        mix = Mix([OptoPrime([word], llm=llm), OptoPrime([word], llm=llm)])
        several = Several(mix, n=4, workers=workers)
        several.backward(word + "!", [0.5, "Not a."])
        several.propose()
        return mix.bandit.pulls

    assert run(8) == run(1)
    one = OptoPrime([word], llm=Scripted([]))
    assert not _independent([Mix([one]), one])
    assert _independent([Mix([one]), OptoPrime([word], llm=Scripted([]))])


def test_runs_that_choose_are_under_way_together_and_the_choice_is_the_same(word: Any) -> None:
    barrier = threading.Barrier(6, timeout=60)
    asked = Scripted(lambda request: Reply("yes", usage=Usage(1, 1), cost=0.1))

    def workflow(wait: bool, random: Random) -> Any:
        def run(example: str) -> Any:
            barrier.wait() if wait else time.sleep(random.uniform(0, 0.01))
            if (word.data, example) == ("d", "x"):
                raise ValueError("it cannot be")
            asked("Go")
            return word + example

        return run

    def chosen(workers: int, seed: int) -> Any:
        run = workflow(workers == 6, Random(seed))
        score = {"b": 0.1, "c": 0.3, "d": 0.7}
        select = by_evaluation(
            run, ["x", "y"], lambda example, said: score[said[0]] / 3, workers=workers
        )
        return select([Proposal({word: w}) for w in "bcdc"])

    assert chosen(6, 0) == chosen(1, 1) == chosen(2, 2)
    assert chosen(6, 0).index == 1
    with pytest.raises(OptimizerError, match="workers"):
        chosen(0, 0)


def test_runs_that_choose_are_each_a_place_of_their_own(word: Any, tmp_path: Path) -> None:
    """So each gets again what it had got, whoever asks first."""

    def run(random: Random, llm: Any) -> list[str]:
        got: dict[str, str] = {}

        def workflow(example: str) -> Any:
            time.sleep(random.uniform(0, 0.01))
            got[f"{word.data} {example}"] = llm("the same question").text
            return word + example

        with Facts("replies", tmp_path) as facts, keeping(Place("here", facts)):
            by_evaluation(workflow, ["x", "y", "z"], lambda example, said: 0.5)(
                [Proposal({word: w}) for w in "bc"]
            )
        return [got[name] for name in sorted(got)]

    first = run(Random(1), Scripted(list("abcdef")))
    assert sorted(first) == list("abcdef")
    assert run(Random(2), Scripted([])) == first
