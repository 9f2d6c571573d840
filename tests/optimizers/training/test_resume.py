"""Stopped at any moment, a training goes on to the same result and repeats nothing that was paid."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import tracegraph as tg
from optimizers import (
    AdamW,
    Budget,
    Mix,
    ModelJudge,
    OptoPrime,
    Paired,
    Partition,
    Several,
    TextGrad,
    fit,
)
from optimizers.base import Optimizer, Proposal
from optimizers.llm.several import by_judge
from tests.optimizers.training.stand_ins import Changes, Says
from tracegraph.errors import CheckpointError, ModelFailed, OptimizerError
from tracegraph.history import State
from tracegraph.history.checkpoint import checkpoints
from tracegraph.llm import (
    Budgeted,
    LanguageModel,
    Reply,
    Request,
    Scripted,
    Usage,
)


class Killed(BaseException):
    """Ends a process's work at once, as far as a process can do it to itself."""


class Ledger:
    """Counts what was asked of models, and kills at one of the questions."""

    def __init__(self, kill: int = 0, *, after: bool = False) -> None:
        self.asked: Counter[str] = Counter()
        self.kill, self.after, self.number = kill, after, 0

    def model(self, name: str, say: Any) -> LanguageModel:
        """A model that says what a function makes of the question and of how often it came."""

        def reply(request: Request) -> Reply:
            self.number += 1
            if self.number == self.kill and not self.after:
                raise Killed
            text = request.messages[-1].text
            self.asked[f"{name}: {text}"] += 1
            said = say(text, sum(self.asked.values()))
            return Reply(said, None, Usage(7, 3), 0.01, name, "stop")

        return Scripted(reply, name=name)


def suggestion(value: str) -> str:
    return f'{{"reasoning": "", "suggestion": {{"word": "{value}"}}}}'


def trained(folder: Path | None, ledger: Ledger, make: Any, **options: Any) -> dict[str, Any]:
    """A training in which the workflow, the judge and the optimizer ask models; what it came to."""
    word = tg.node("a", trainable=True, name="word")
    task = ledger.model("task", lambda text, _: f"{text}.")
    judge = ModelJudge(
        ledger.model(
            "judge", lambda text, _: f'{{"reason": "", "score": {min(10, len(text) % 11)}}}'
        ),
        "Long.",
    )

    @tg.bundle
    def answer(word: str, case: str) -> str:
        """Ask a model, twice the same."""
        return task(word).text + task(word).text + case  # type: ignore[operator]

    optimizer = make([word], ledger)
    given: dict[str, Any] = {"budget": Budget(steps=3), "tries": 2, "workers": 1, **options}
    result = fit(
        lambda case: answer(word, case), ["x", "yy", "zzz"], judge, optimizer=optimizer,
        validation=["v", "w"], store=folder, **given,
    )  # fmt: skip
    return {
        "word": word.data, "score": result.score, "history": list(map(str, result.history)),
        "spend": {**asdict(result.spend), "seconds": 0}, "error": result.error,
    }  # fmt: skip


def opto(parameters: Any, ledger: Ledger, name: str = "optimizer") -> Any:
    say = lambda text, _: suggestion("a" * (len(text) % 13))  # noqa: E731
    return OptoPrime(parameters, llm=ledger.model(name, say))


def mix(parameters: Any, ledger: Ledger) -> Any:
    return Mix([opto(parameters, ledger, "one"), opto(parameters, ledger, "two")])


def several(parameters: Any, ledger: Ledger) -> Any:
    chooses = by_judge(ledger.model("chooses", lambda text, _: "1"))
    return Several(
        [opto(parameters, ledger, "one"), opto(parameters, ledger, "two")], select=chooses
    )


@pytest.mark.parametrize("make", [opto, mix, several], ids=lambda make: make.__name__)
def test_killed_at_any_question_nothing_is_asked_twice(make: Any, tmp_path: Path) -> None:
    """Whoever asks: the workflow, its judge, an optimizer, one of several, the judge of several."""
    whole = Ledger()
    expected = trained(tmp_path / "whole", whole, make)
    plain = Ledger()
    assert expected == trained(None, plain, make)
    assert whole.asked == plain.asked  # a store is no cache: what is asked twice is asked twice
    total = sum(whole.asked.values())
    for kill in range(1, total + 1, 9 if make is opto else 17):
        folder = tmp_path / str(kill)
        first, second = Ledger(kill), Ledger()
        with pytest.raises(Killed):
            trained(folder, first, make)
        assert trained(folder, second, make) == expected
        assert first.asked + second.asked == whole.asked


def test_killed_after_any_verdict_nobody_judges_the_same_output_twice(tmp_path: Path) -> None:
    """Someone who judges by hand, or pays for it elsewhere, is asked once for each output."""
    said: Counter[str] = Counter()

    def go(folder: Path, kill: int = 0) -> list[str]:
        word = tg.node("a", trainable=True, name="word")
        asked = 0

        def guide(case: str, output: str) -> list[tg.Feedback]:
            nonlocal asked
            asked += 1
            if asked == kill:
                raise Killed
            said[f"{case}: {output}"] += 1
            return [tg.Score(len(output)), tg.Remark("longer"), tg.Preference("b", better=True)]

        optimizer = Changes([word], lambda present, count: {"word": present["word"] + "x"})
        result = fit(
            lambda case: word + case, ["x", "yy", "zzz"], guide, optimizer=optimizer, workers=1,
            budget=Budget(steps=3), tries=1, store=folder,
        )  # fmt: skip
        return list(map(str, result.history))

    expected = go(tmp_path / "whole")
    once, total = Counter(said), sum(said.values())
    for kill in range(1, total + 1, 3):
        said.clear()
        with pytest.raises(Killed):
            go(tmp_path / str(kill), kill)
        assert go(tmp_path / str(kill)) == expected
        assert said == once


# What was spent


def test_what_judges_are_paid_is_in_the_spend_and_of_runs_the_money() -> None:
    ledger = Ledger()
    spend = trained(None, ledger, opto)["spend"]
    by = Counter(dict.fromkeys(("task", "judge", "optimizer"), 0))
    for question, count in ledger.asked.items():
        by[question.split(":")[0]] += count
    assert spend["calls"] == by["judge"] + by["optimizer"]
    assert spend["tokens"] == 10 * spend["calls"]
    assert spend["dollars"] == pytest.approx(0.01 * by.total())
    assert spend["runs"] * 2 == by["task"]


@pytest.mark.parametrize("questions", [1, 2], ids=["whole", "cut off"])
def test_what_was_paid_in_a_batch_that_an_allowance_ended_is_in_the_spend(questions: int) -> None:
    word = tg.node("a", trainable=True, name="word")
    judge = Budgeted(Scripted(lambda request: Reply("5", None, Usage(1, 1), 0.5)), calls=5)

    def guide(case: str, output: str) -> float:
        for _ in range(questions):
            said = judge.ask(Request.of(output))
        return float(said.text)

    result = fit(
        lambda case: word + case, ["x", "yy", "zzz"], guide, workers=1, tries=1,
        optimizer=Says(word, "b"), budget=Budget(steps=3),
    )  # fmt: skip
    assert result.stopped.startswith("BudgetExceeded")
    assert (result.spend.calls, result.spend.dollars) == (5, 2.5)


@pytest.mark.parametrize("kill", [0, 20, 45])
def test_a_budget_of_calls_holds_over_a_kill(tmp_path: Path, kill: int) -> None:
    ledger, more = Ledger(kill), Ledger()
    budget = Budget(calls=60)
    if kill:
        with pytest.raises(Killed):
            trained(tmp_path, ledger, opto, budget=budget)
    result = trained(tmp_path, more, opto, budget=budget)
    counted = [q for book in (ledger, more) for q in book.asked.elements() if "task" not in q]
    assert len(counted) == result["spend"]["calls"]
    whole = trained(None, Ledger(), opto, budget=budget)
    assert result == whole


def test_seconds_go_on_where_a_killed_process_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 1_000.0
    monkeypatch.setattr(time, "monotonic", lambda: now)

    def go(kill: int = 0) -> Any:
        word = tg.node("a", trainable=True, name="word")
        runs = 0

        def workflow(case: str) -> Any:
            nonlocal now, runs
            runs += 1
            if runs == kill:
                raise Killed
            now += 10
            return word + case

        optimizer = Changes([word], lambda present, count: {"word": present["word"] + "x"})
        return fit(
            workflow, ["x", "yy"], lambda case, output: float(len(output)), optimizer=optimizer,
            workers=1, batch_size=2, tries=1, store=tmp_path, budget=Budget(seconds=100),
        )  # fmt: skip

    with pytest.raises(Killed):
        go(kill=7)  # in the second step, after two of its runs, which are kept
    now += 1_000_000  # nothing ran meanwhile
    result = go()
    assert result.stopped == "the budget of 100 seconds is spent"
    assert (result.spend.steps, result.spend.seconds) == (
        3,
        120,
    )  # as of one that was not killed: four runs a step


def test_what_a_proposal_cost_that_failed_is_in_the_spend() -> None:
    word = tg.node("a", trainable=True, name="word")

    class Twice(Optimizer):
        llm = Scripted([Reply("yes", None, Usage(5, 5), 0.5), ModelFailed("down", status=503)] * 3)

        def propose(self, **options: Any) -> Proposal:
            for _ in range(2):
                self.llm.ask(Request.of("well?"))
            raise AssertionError

    with pytest.warns(UserWarning, match="down"):
        result = fit(
            lambda case: word + case, ["x"], lambda case, output: 1.0, optimizer=Twice([word]),
            budget=Budget(steps=9), workers=1,
        )  # fmt: skip
    assert (result.spend.calls, result.spend.tokens, result.spend.dollars) == (3, 30, 1.5)


def test_what_a_proposal_cost_that_an_allowance_ended_is_in_the_spend() -> None:
    word = tg.node("a", trainable=True, name="word")
    answer = tg.bundle(lambda word, case: word + case, name="answer")
    critic = Scripted(lambda request: Reply("Too short.", None, Usage(5, 5), 0.5))
    result = fit(
        lambda case: answer(word, case), ["x", "yy", "zzz"], lambda case, output: (0.0, f"no {case}"),
        optimizer=TextGrad([word], llm=Budgeted(critic, calls=2)), budget=Budget(steps=9),
    )  # fmt: skip
    assert result.stopped.startswith("BudgetExceeded")
    assert (result.spend.calls, result.spend.tokens, result.spend.dollars) == (2, 20, 1.0)


# Models of a person's own


@dataclass
class Own:
    """A model of a person's own class, which derives from nothing of ours."""

    ledger: Ledger
    name: str = "own"

    def ask(self, request: Request) -> Reply:
        say = lambda text, _: suggestion("a" * (len(text) % 13))  # noqa: E731
        return self.ledger.model(self.name, say).ask(request)

    async def aask(self, request: Request) -> Reply:
        return self.ask(request)


class Raw(Changes):
    """An optimizer of a person's own that asks its model as it is."""

    def __init__(self, parameters: Any, llm: Any) -> None:
        self.llm = llm
        super().__init__(parameters, self._change)

    def _change(self, present: Any, count: int) -> dict[str, str]:
        said = self.llm.ask(Request.of(f"{present} {count}")).text
        return {"word": said[-len(said) % 9 - 9 : -2]}


@pytest.mark.parametrize(
    "make",
    [
        lambda word, own: OptoPrime(word, llm=own),
        lambda word, own: OptoPrime(word, llm=Budgeted(own, calls=99)),
        lambda word, own: Raw(word, own),
    ],
    ids=["given", "in a wrapper", "raw"],
)
def test_what_a_model_of_ones_own_class_said_is_not_asked_again(make: Any, tmp_path: Path) -> None:
    def optimizer(parameters: Any, ledger: Ledger) -> Any:
        return make(parameters, Own(ledger))

    whole = Ledger()
    expected = trained(tmp_path / "whole", whole, optimizer)
    for kill in range(1, sum(whole.asked.values()) + 1, 17):
        first, second = Ledger(kill), Ledger()
        with pytest.raises(Killed):
            trained(tmp_path / str(kill), first, optimizer)
        assert trained(tmp_path / str(kill), second, optimizer) == expected
        assert first.asked + second.asked == whole.asked


# Tensors that move


def moved(folder: Path | None, store: Any = None, kill: int = 0, kind: str = "ours") -> Any:
    """A prompt and a vector trained together, with chance that torch gives; stopped at a run."""
    torch.manual_seed(3)
    word = tg.node("a", trainable=True, name="word")
    vector = tg.node(torch.zeros(3), trainable=True, name="vector")
    mover = (
        AdamW([vector], lr=0.1)
        if kind == "ours"
        else torch.optim.Adam([vector.data], lr=0.1, amsgrad=True)
    )
    runs = 0

    @tg.bundle
    def worth(word: str, case: str, vector: Any) -> Any:
        """Grows with the word and with the vector."""
        nonlocal runs
        runs += 1
        if runs == kill:
            raise Killed
        return (vector * torch.rand(3)).sum() + float(len(word) + len(case))

    def guide(case: str, output: Any) -> list[tg.Feedback]:
        return [
            tg.Score(float(output.detach())),
            tg.Gradient(torch.tensor(-1.0)),
            tg.Remark("more"),
        ]

    optimizer = Partition(mover, Changes([word], lambda p, n: {"word": p["word"] + "ab"[n % 2]}))
    result = fit(
        lambda case: worth(word, case, vector), ["x", "yy", "zzz"], guide, optimizer=optimizer,
        workers=1, batch_size=2, tries=1, budget=Budget(steps=5),
        store=State("it", folder) if store is None and folder is not None else store,
    )  # fmt: skip
    memory = mover.state_dict()["state"][0]
    return (
        word.data, list(map(str, result.history)), [n.hex() for n in vector.data.tolist()],
        {name: [n.hex() for n in value.tolist()] if value.dim() else float(value)
         for name, value in memory.items()}, float(torch.rand(())),
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["ours", "of torch"])
def test_tensors_and_what_moves_them_go_on_to_the_last_bit(kind: str, tmp_path: Path) -> None:
    expected = moved(None, kind=kind)
    assert any(number != "0x0.0p+0" for number in expected[2])
    for kill in (2, 7, 12, 20):
        with pytest.raises(Killed):
            moved(tmp_path / str(kill), kill=kill, kind=kind)
        assert moved(tmp_path / str(kill), kind=kind) == expected


class Cut:
    """A state whose process ends just before, or just after, one of its saves."""

    def __init__(self, folder: Path, at: int, *, before: bool) -> None:
        self._state, self.left, self.before = State("it", folder), at, before
        self.load, self.journal = self._state.load, self._state.journal
        self.folder, self.hold = self._state.folder, self._state.hold

    def save(self, state: Any) -> None:
        self.left -= 1
        if not self.left and self.before:
            raise Killed
        self._state.save(state)
        if not self.left:
            raise Killed


@pytest.mark.parametrize("before", [True, False])
def test_a_state_and_its_tensors_belong_together_wherever_a_save_is_cut(
    before: bool, tmp_path: Path
) -> None:
    expected = moved(None)
    for at in (1, 2, 3, 5):
        folder = tmp_path / str(at)
        with pytest.raises(Killed):
            moved(folder, Cut(folder, at, before=before))
        assert moved(folder) == expected
        assert len(checkpoints(State("it", folder).folder())) <= 2


def test_a_training_begun_anew_leaves_nothing_of_the_old_one(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        moved(tmp_path, kill=15)
    State("it", tmp_path).save(None)  # as resume=False does
    assert moved(tmp_path) == moved(None)


def test_tensors_that_are_gone_are_said_and_nothing_changes(tmp_path: Path) -> None:
    with pytest.raises(Killed):
        moved(tmp_path, kill=15)
    for lost in checkpoints(State("it", tmp_path).folder()):
        (lost / "MANIFEST.json").unlink()
    state = State("it", tmp_path).load()
    with pytest.raises(CheckpointError, match=r"no MANIFEST\.json"):
        moved(tmp_path)
    assert State("it", tmp_path).load() == state


def test_a_store_without_a_place_for_files_is_refused_where_tensors_move() -> None:
    class Plain:
        def load(self) -> None:
            return None

        def save(self, state: Any) -> None:
            raise AssertionError

    with pytest.raises(
        OptimizerError, match=r"no folder\(\) for the tensors and the state of AdamW"
    ):
        moved(None, Plain())


def test_what_moves_moves_after_the_comparison() -> None:
    """A candidate is compared with the present values under the same tensors, so it wins by itself."""
    word = tg.node("a", trainable=True, name="word")
    vector = tg.node(torch.zeros(()), trainable=True, name="vector")

    @tg.bundle
    def worth(word: str, vector: Any) -> Any:
        """The word is worth nothing, the vector all."""
        return vector * 1.0

    def guide(case: str, output: Any) -> list[tg.Feedback]:
        return [tg.Score(float(output.detach())), tg.Gradient(torch.tensor(-1.0))]

    result = fit(
        lambda case: worth(word, vector), ["x", "yy"], guide, workers=1, tries=1,
        optimizer=Partition(AdamW([vector], lr=0.1), Says(word, "b", "c", "d")),
        budget=Budget(steps=3),
    )  # fmt: skip
    assert word.data == "a"
    assert float(vector.data.detach()) > 0.2
    assert all(e.before == e.score for e in result.history if e.kind == "rejected")


def test_what_was_known_of_other_tensors_is_found_out_again() -> None:
    """Each step compares its candidate on the anchors with the present values as they are by then."""
    word = tg.node("a", trainable=True, name="word")
    vector = tg.node(torch.zeros(()), trainable=True, name="vector")
    anchored: list[str] = []

    @tg.bundle
    def worth(word: str, vector: Any, case: str) -> Any:
        """Another word is better, but for the anchor."""
        if case == "anchor":
            anchored.append(word)
        return vector * 0.0 + float((word == "a") == (case == "anchor"))

    def guide(case: str, output: Any) -> list[tg.Feedback]:
        return [tg.Score(float(output.detach())), tg.Gradient(torch.tensor(-1.0))]

    fit(
        lambda case: worth(word, vector, case), ["x", "yy"], guide, workers=1, tries=1,
        optimizer=Partition(AdamW([vector], lr=0.1), Says(word, "b", "c")), anchors=["anchor"],
        acceptance=Paired(alpha=1), budget=Budget(steps=2),
    )  # fmt: skip
    assert anchored == ["a", "b", "a", "c"]
