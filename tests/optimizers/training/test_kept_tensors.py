"""A training with tensors that was cut off runs nothing again that had ended, and draws the same numbers."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import tracegraph as tg
from optimizers import SGD, Budget, OptoPrime, Paired, Partition, fit
from optimizers.candidate import Candidate
from optimizers.places import Place
from optimizers.training import kept_runs
from optimizers.training.evaluator import Evaluator
from optimizers.training.guide import Verdict
from optimizers.training.kept_runs import KeptRun, KeptRuns
from optimizers.training.kept_tensors import KeptTensors
from tracegraph.history import Facts, State
from tracegraph.history.at_hand import AtHand
from tracegraph.llm import Request, Scripted

FEATURES = torch.arange(35.0).reshape(5, 7) / 3  # rows begin anywhere in memory


class Killed(BaseException):
    """Ends a process's work at once, as far as a process can do it to itself."""


def trained(store: Path | None, note: Callable[[str], None], *, dropped: bool = False) -> Any:
    """A prompt and a vector that move together; the run and the judge draw numbers from torch.

    With `dropped` so does the function through which torch carries gradients.
    """
    torch.manual_seed(3)
    word = tg.node("a", trainable=True, name="word")
    vector = tg.node(torch.full((7,), 0.1), trainable=True, name="vector")

    @tg.bundle
    def asked(word: str, case: int) -> str:
        """Say it."""
        return f"{word}{case}"

    @tg.bundle
    def numbers(said: str) -> Any:
        """The features of what was said."""
        return FEATURES[len(said) % 5] * 1.1

    @tg.bundle
    def worth(row: Any, vector: Any) -> Any:
        """What it is worth."""
        kept = torch.rand(7) > 0.5 if dropped else torch.ones(7)
        return (row * kept @ vector).reshape(1)

    def workflow(case: int) -> Any:
        note(f"run {case}")
        noise = 1 + torch.rand(())
        return worth(numbers(asked(word, case)), vector) * noise

    def guide(case: int, output: Any) -> list[tg.Feedback]:
        note(f"judge {case}")
        off = float(output.detach()) - 2 * case - float(torch.rand(()))
        return [tg.Score(-(off**2)), tg.Gradient(torch.tensor([2 * off])), tg.Remark(f"{case}")]

    def suggests(request: Request) -> str:
        count = sum(map(ord, request.messages[-1].text)) % 11
        return json.dumps({"suggestion": {"word": "a" * count}})

    optimizer = Partition(
        SGD([vector], lr=1e-4, momentum=0.9), OptoPrime([word], llm=Scripted(suggests))
    )
    result = fit(
        workflow, [1, 2, 3], guide, optimizer=optimizer, store=store, workers=1, tries=1,
        budget=Budget(steps=3), batch_size=3, acceptance=Paired(alpha=1), failure_score=-1e9,
    )  # fmt: skip
    return word.data, vector.data.tolist(), [str(e) for e in result.history], result.spend.runs


@pytest.mark.parametrize("place", ["run", "judge"])
def test_only_the_run_that_was_cut_off_is_made_again(place: str, tmp_path: Path) -> None:
    whole: list[str] = []
    expected = trained(None, whole.append)
    for kill in (2, 5, 9):  # in the batch, in the second run that is only scored, in the next batch
        again: list[str] = []

        def note(line: str, again: list[str] = again, kill: int = kill) -> None:
            again.append(line)
            if line.startswith(place) and sum(a.startswith(place) for a in again) == kill:
                raise Killed

        store = tmp_path / str(kill)
        with pytest.raises(Killed):
            trained(store, note)
        assert trained(store, again.append) == expected
        runs = Counter(line.startswith("run") for line in again)[True]
        assert runs == sum(line.startswith("run") for line in whole) + (place == "run"), kill
        assert not list(store.rglob("runs/*")), "the files went with the step that they belong to"


def test_a_function_of_tensors_that_draws_numbers_runs_again_on_the_same(tmp_path: Path) -> None:
    """It comes to something else when it is called again, so the run is made again from where it began."""
    whole: list[str] = []
    expected = trained(None, whole.append, dropped=True)
    again: list[str] = []
    last_of_second_batch = [at for at, line in enumerate(whole) if line.startswith("run")][8]

    def note(line: str) -> None:
        again.append(line)
        if len(again) == last_of_second_batch + 1:
            raise Killed

    with pytest.raises(Killed):
        trained(tmp_path, note, dropped=True)
    assert trained(tmp_path, again.append, dropped=True) == expected


def kept(tmp_path: Path, **held: Any) -> KeptRuns:
    files = KeptTensors(tmp_path / "runs")
    runs = KeptRuns(Facts("receipts", tmp_path), AtHand(held), files)
    runs.begin()
    return runs


def test_a_file_that_was_changed_or_is_gone_is_not_believed(tmp_path: Path) -> None:
    runs = kept(tmp_path)
    for name in "abc":
        runs.keep(Place(name), None, KeptRun(tg.node(torch.ones(3)) * 2))
    first, second, _ = sorted((tmp_path / "runs").iterdir())
    first.write_bytes(second.read_bytes()[:-1] + b"!")
    second.unlink()
    assert sum(runs.find(Place(name), None) is not None for name in "abc") == 1


def test_a_text_without_end_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_runs, "_MOST", 1_000)
    runs = kept(tmp_path)
    runs.keep(Place("long"), None, KeptRun("a" * 2_000))
    runs.keep(Place("short"), None, KeptRun("a"))
    assert [runs.find(Place(n), None) is None for n in ("long", "short")] == [True, False]


def test_a_graph_of_many_thousand_nodes_is_kept(tmp_path: Path) -> None:
    total = tg.node(0, trainable=True, name="total")
    output: Any = total
    runs = kept(tmp_path, total=total)
    for _ in range(6_000):
        output = output + 1
    runs.keep(Place("a"), None, KeptRun(output))
    found = runs.find(Place("a"), None)
    assert found is not None
    assert found.output.data == 6_000
    assert list(found.output.backward("Less.")) == [total]


def test_a_judge_is_not_asked_twice_for_a_gradient(tmp_path: Path) -> None:
    """But for what torch follows: whoever judges may have let the feedback go back through torch."""
    runs = kept(tmp_path)
    output = torch.ones(2)
    verdict = Verdict(0.5, "", (tg.Score(0.5), tg.Gradient(torch.tensor([0.25, 1.0]))))
    runs.keep_verdict(Place("a"), output, verdict)
    found = runs.find_verdict(Place("a"), output.clone())
    assert found is not None
    assert found.messages[1].value.tolist() == [0.25, 1.0]  # type: ignore[attr-defined]
    assert runs.find_verdict(Place("a"), output * 2) is None
    followed = output.clone().requires_grad_() * 1
    runs.keep_verdict(Place("b"), followed, verdict)
    assert runs.find_verdict(Place("b"), followed) is None


def asking(tmp_path: Path) -> tuple[Evaluator, list[str], Any]:
    """An evaluator of a function that asks a model and makes a tensor, what is asked, and the receipts."""
    weight = tg.node(torch.ones(2), trainable=True, name="weight")
    asked: list[str] = []

    def replies(request: Request) -> str:
        asked.append(request.messages[-1].text)
        return str(len(asked))

    model = Scripted(replies)

    @tg.bundle
    def scaled(weight: Any, case: str) -> Any:
        """A model says by how much."""
        return weight * float(model.ask(Request.of(case)).text)

    receipts = State("it", tmp_path).journal("receipts")
    evaluator = Evaluator(
        lambda case: scaled(weight, case), lambda case, said: 1.0, {"weight": weight}, workers=1,
        receipts=receipts, tensors=KeptTensors(tmp_path / "runs"),
    )  # fmt: skip
    return evaluator, asked, receipts


def test_what_is_called_again_asks_no_model(tmp_path: Path) -> None:
    """It is given the reply that was kept."""
    evaluator, asked, _ = asking(tmp_path)
    present = Candidate.of({"weight": 1})
    first, again = (evaluator.traced(present, {0: "x", 1: "y"}) for _ in range(2))
    assert asked == ["x", "y"]
    assert [t.output.data.tolist() for t in again] == [t.output.data.tolist() for t in first]  # type: ignore[union-attr]
    (got,) = again[1].output.backward(tg.Gradient(torch.ones(2))).values()  # type: ignore[union-attr]
    assert got[tg.Gradient].value.tolist() == [2.0, 2.0]


def test_without_the_reply_that_was_kept_the_run_is_made_again_and_asks_once(
    tmp_path: Path,
) -> None:
    evaluator, asked, receipts = asking(tmp_path)
    present = Candidate.of({"weight": 1})
    evaluator.traced(present, {0: "x"})
    for name in [name for name in receipts if not name.endswith("/kept")]:
        del receipts[name]
    (again,) = evaluator.traced(present, {0: "x"})
    assert asked == ["x", "x"]
    assert again.output.data.tolist() == [2.0, 2.0]  # type: ignore[union-attr]
