"""A training that was cut off runs no example again that had ended, whatever it had come to."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tracegraph as tg
from optimizers import SPO, Budget, OptoPrime, Paired, fit
from optimizers.candidate import Candidate
from optimizers.places import Place
from optimizers.training.evaluator import Evaluator
from optimizers.training.kept_runs import KeptRun, KeptRuns
from tests.interleaving import Once
from tracegraph.history import Facts
from tracegraph.history.at_hand import AtHand
from tracegraph.llm import Request, Scripted


class Killed(BaseException):
    """Ends a process's work at once, as far as a process can do it to itself."""


def suggests(request: Request) -> str:
    """A word that the whole request decides on."""
    count = sum(map(ord, request.messages[-1].text)) % 11
    return json.dumps({"suggestion": {"word": "a" * count}})


def opto(word: Any) -> tuple[Any, Any, dict[str, Any]]:
    def guide(case: str, said: str) -> tuple[float, str]:
        return len(said) % 7 / 7, f"{said} for {case}"

    return OptoPrime([word], llm=Scripted(suggests)), guide, {"validation": ["v", "w"]}


def spo(word: Any) -> tuple[Any, Any, dict[str, Any]]:
    made = SPO(
        [word], llm=Scripted(suggests), requirements="long",
        judge=lambda case, first, second: len(first) - len(second),
    )  # fmt: skip
    return made, made.guide, {"acceptance": Paired(alpha=1)}


def trained(store: Path | None, make: Any, note: Callable[[str], None]) -> Any:
    """A training on examples of which one fails."""
    word = tg.node("a", trainable=True, name="word")
    constant = tg.node(".", name="end")

    @tg.bundle
    def answer(word: str, case: str) -> str:
        """Say it."""
        if case == "bad":
            raise ValueError(f"{word} cannot be said")
        return word + case

    def workflow(case: str) -> Any:
        note(case)
        return answer(word, case) + constant

    optimizer, guide, options = make(word)
    result = fit(
        workflow, ["x", "bad", "yy", "zzz"], guide, optimizer=optimizer, store=store,
        workers=1, budget=Budget(steps=2), tries=1, batch_size=4, **options,
    )  # fmt: skip
    return word.data, result.score, [str(e) for e in result.history], result.spend.runs


@pytest.mark.parametrize("make", [opto, spo], ids=lambda make: make.__name__)
def test_only_the_run_that_was_cut_off_is_made_again(make: Any, tmp_path: Path) -> None:
    whole: Counter[str] = Counter()
    expected = trained(None, make, lambda case: whole.update([case]))
    for kill in range(2, whole.total(), 3):
        again: Counter[str] = Counter()

        def note(case: str, again: Counter[str] = again, kill: int = kill) -> None:
            again.update([case])
            if again.total() == kill:
                raise Killed

        with pytest.raises(Killed):
            trained(tmp_path / str(kill), make, note)
        cut = again.copy()
        assert (
            trained(tmp_path / str(kill), make, lambda case, a=again: a.update([case])) == expected
        )
        assert again.total() == whole.total() + 1, (kill, cut, again - whole)


def kept(tmp_path: Path, **held: Any) -> KeptRuns:
    return KeptRuns(Facts("receipts", tmp_path), AtHand(held))


def test_runs_that_share_a_node_are_not_kept_apart(tmp_path: Path) -> None:
    """Read back one by one, they would have two nodes where they had one."""
    runs = kept(tmp_path)
    runs.begin()
    shared = tg.node("once", name="shared")
    outputs = {name: shared + name for name in "abc"}
    outputs["c"] = tg.node("c") + "c"
    for name, output in outputs.items():
        runs.keep(Place(name), None, KeptRun(output))
    assert [name for name in outputs if runs.find(Place(name), None)] == ["c"]


def test_runs_that_share_a_node_are_not_kept_when_both_end_at_once(tmp_path: Path) -> None:
    runs = kept(tmp_path)
    runs.begin()
    shared = tg.node("once", name="shared")
    first, second = shared + "a", shared + "b"
    once = Once(lambda: runs.keep(Place("b"), None, KeptRun(second)))

    class Receipts(dict[str, Any]):
        def __setitem__(self, key: str, value: Any) -> None:
            once()
            super().__setitem__(key, value)

    runs._receipts = Receipts()
    runs.keep(Place("a"), None, KeptRun(first))
    assert once.done
    assert [name for name in "ab" if runs.find(Place(name), None)] == []


def test_what_was_said_first_of_a_run_holds(tmp_path: Path) -> None:
    """A run that was given up as late may end all the same."""
    runs = kept(tmp_path)
    runs.keep(Place("a"), None, KeptRun(None, {"score": 0.0}))
    runs.keep(Place("a"), None, KeptRun("it ended"))
    found = runs.find(Place("a"), None)
    assert found is not None
    assert (found.output, found.evaluation) == (None, {"score": 0.0})


def test_a_run_that_was_too_late_is_not_waited_for_again(tmp_path: Path) -> None:
    word = tg.node("a", trainable=True, name="word")
    over, ran = threading.Event(), []

    def workflow(case: str) -> Any:
        ran.append(case)
        over.wait(60)
        return word + case

    evaluator = Evaluator(
        workflow, lambda case, said: 1.0, {"word": word}, timeout=0.05,
        receipts=Facts("receipts", tmp_path),
    )  # fmt: skip
    present = Candidate.of({"word": "a"})
    first, again = (evaluator.traced(present, {0: "x"})[0] for _ in range(2))
    over.set()
    assert first.evaluation.error == again.evaluation.error
    assert "longer than" in (first.evaluation.error or "")
    assert ran == ["x"]


def test_a_run_with_a_secret_runs_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The history takes it out, so what would be read back is another run."""
    monkeypatch.setenv("SOME_API_KEY", "a-very-secret-word")
    runs = kept(tmp_path)
    runs.begin()
    runs.keep(Place("a"), None, KeptRun(tg.node("with a-very-secret-word in it") + "!"))
    runs.keep(Place("b"), None, KeptRun(tg.node("without") + "!"))
    assert runs.find(Place("a"), None) is None
    assert runs.find(Place("b"), None) is not None
    assert b"a-very-secret" not in b"".join(
        p.read_bytes() for p in tmp_path.rglob("*") if p.is_file()
    )


def test_a_run_of_tensors_runs_again_where_there_is_no_place_for_them(tmp_path: Path) -> None:
    import torch

    weight = tg.node(torch.ones(2), trainable=True, name="weight")
    runs = kept(tmp_path, weight=weight)
    runs.begin()
    runs.keep(Place("a"), None, KeptRun(tg.node(torch.ones(2)) * 2))
    runs.keep(Place("b"), None, KeptRun(tg.node(3) * 2))
    assert [runs.find(Place(name), None) is None for name in "ab"] == [True, False]


def test_a_model_that_was_down_is_asked_again(tmp_path: Path) -> None:
    """Its failure is no result of the run."""
    from tracegraph.errors import ModelFailed

    word = tg.node("a", trainable=True, name="word")
    up: list[str] = []

    def workflow(case: str) -> Any:
        if not up:
            raise ModelFailed("not now")
        return word + case

    evaluator = Evaluator(
        workflow, lambda case, said: 1.0, {"word": word}, receipts=Facts("receipts", tmp_path)
    )
    present = Candidate.of({"word": "a"})
    assert evaluator.traced(present, {0: "x"})[0].evaluation.error is not None
    up.append("now")
    assert evaluator.traced(present, {0: "x"})[0].evaluation.error is None
