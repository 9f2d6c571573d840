"""What a run keeps comes back: steps, parameters, graphs, prompts, money."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import tracegraph as tg
from optimizers import Evolve, OptoPrime, fit
from optimizers.training.budget import Budget
from tests.interleaving import Once, elsewhere
from tracegraph.errors import HistoryError, NoSuchRun
from tracegraph.events import observe
from tracegraph.history import HistoryWarning, State
from tracegraph.history import capture as capture_module
from tracegraph.history.capture import capture
from tracegraph.history.kept_graph import KeptGraph
from tracegraph.llm import Scripted

ROOT = Path(__file__).resolve().parents[2]


def asked(replies: list[str]) -> tuple[Any, OptoPrime]:
    prompt = tg.node("Say hello.", trainable=True, name="prompt")
    return prompt, OptoPrime([prompt], llm=Scripted(replies))


def test_a_step_of_an_optimizer_is_kept_by_itself(tmp_path: Path) -> None:
    prompt, optimizer = asked(
        ['{"reasoning": "why", "suggestion": {"prompt": "Say hi."}}', "what?"]
    )
    with tg.run("auto", store=tmp_path, config={"lr": 0.1}, seed=7) as run:
        for said in ("too long", "still too long"):
            answer = prompt.upper()
            optimizer.backward([(answer, (said, 0.25))])
            optimizer.step()
    kept = tg.History(tmp_path).run("auto")
    assert kept.id == run.id
    assert (kept.status, kept.about["config"], kept.about["seeds"]["seed"]) == (
        "done", {"lr": 0.1}, 7,
    )  # fmt: skip
    first, second = kept.steps
    assert (first.number, first.optimizer, first.status, first.score) == (
        1,
        "OptoPrime",
        "done",
        0.25,
    )
    assert (first.changes, first.rejections, second.changes, second.rejections) == (1, 0, 0, 1)
    assert first.calls == 1
    details = kept.details(1)
    assert {(f["kind"], f["text"]) for f in details["feedback"]} == {
        ("Remark", "too long"), ("Score", "0.25"),
    }  # fmt: skip
    assert details["reasoning"] == "why"
    assert details["changes"] == ["prompt"]
    (exchange,) = details["exchanges"]
    assert exchange["reply"].startswith('{"reasoning"')
    assert "too long" in exchange["prompt"][-1][1]
    (exchange,) = kept.details(2)["exchanges"]
    assert exchange["reply"] == "what?"
    assert kept.details(2)["rejections"][0]["reason"]
    values = [kept.parameters(n)["prompt"].value for n in (0, 1, 2)]
    assert values == ["Say hello.", "Say hi.", "Say hi."]
    assert [v.origin for v in kept.versions("prompt")] == ["person", "optimizer"]
    (difference,) = kept.diff(0)
    assert "-Say hello." in difference.text
    assert "+Say hi." in difference.text


def test_a_failed_step_is_kept_with_its_error(tmp_path: Path) -> None:
    prompt, optimizer = asked([])
    optimizer.backward(prompt.upper(), "no")
    with pytest.raises(tg.TracegraphError), tg.run("fails", store=tmp_path):
        optimizer.step()
    kept = tg.History(tmp_path).run()
    assert kept.status == "failed"
    assert kept.error
    assert [s.status for s in kept.steps] == ["failed"]
    assert "NotRecorded" in kept.details(1)["error"]


def test_a_person_completes_a_step_that_was_kept(tmp_path: Path) -> None:
    prompt, optimizer = asked(['{"suggestion": {"prompt": "Say hi."}}'])
    with tg.run("both", store=tmp_path) as run:
        optimizer.backward(prompt.upper(), "too long")
        number = run.step(update=optimizer.step(), score=0.5, note="mine", feedback="more")
    (step,) = tg.History(tmp_path).run().steps
    assert (number, step.score, step.note, step.changes) == (1, 0.5, "mine", 1)
    texts = [f["text"] for f in tg.History(tmp_path).run().details(1)["feedback"]]
    assert texts == ["too long", "more"]


def test_a_step_by_hand_keeps_what_was_before_its_update(tmp_path: Path) -> None:
    prompt, optimizer = asked(['{"suggestion": {"prompt": "Say hi."}}'])
    with tg.run("hand", store=tmp_path, automatic=False) as run:
        answer = prompt.upper()
        optimizer.backward(answer, "too long")
        problem = optimizer.problem()
        run.step(answer, update=optimizer.step(), problem=problem, seconds=1.5)
    kept = tg.History(tmp_path).run()
    assert [kept.parameters(n)["prompt"].value for n in (0, 1)] == ["Say hello.", "Say hi."]
    assert "too long" in kept.details(1)["problem"]
    assert kept.steps[0].seconds == 1.5


def test_values_of_every_kind_come_back(tmp_path: Path) -> None:
    values = {
        "text": "a\nb", "number": 0.1, "whole": 2**70, "choice": True, "list": [1, "a", None],
        "tuple": (1, 2.5), "array": numpy.arange(6.0).reshape(2, 3),
        "tensor": torch.tensor([1.5, -0.0, float("nan")], dtype=torch.bfloat16),
    }  # fmt: skip
    parameters = {name: tg.node(v, trainable=True, name=name) for name, v in values.items()}
    with tg.run("kinds", store=tmp_path) as run:
        run.step(parameters=parameters)
    kept = tg.History(tmp_path).run().parameters()
    assert kept.keys() == values.keys()
    for name, value in values.items():
        back = kept[name].value
        assert type(back) is type(value)
        if name == "tensor":
            assert torch.equal(back.view(torch.int16), value.view(torch.int16))
        elif name == "array":
            assert back.tolist() == value.tolist()
        else:
            assert back == value


def test_a_large_tensor_is_kept_as_its_statistics(tmp_path: Path) -> None:
    weight = tg.node(torch.ones(100), trainable=True, name="weight")
    with tg.run("large", store=tmp_path, largest_tensor=10) as run:
        run.step(parameters={"weight": weight})
    kept = tg.History(tmp_path).run().parameters()["weight"]
    assert not kept.whole
    assert "mean 1" in kept.value
    assert not (tmp_path / "tensors").exists()


def test_a_tensor_changed_in_place_later_is_kept_as_it_was(tmp_path: Path) -> None:
    weight = tg.node(torch.zeros(2), trainable=True, name="weight")
    with tg.run("in place", store=tmp_path) as run:
        for _ in range(3):
            run.step(parameters={"weight": weight})
            weight._data.detach().add_(1)
            weight.bump()
    kept = tg.History(tmp_path).run()
    assert [kept.parameters(n)["weight"].value.tolist() for n in (1, 2, 3)] == [
        [0, 0], [1, 1], [2, 2],
    ]  # fmt: skip


def test_the_same_graph_is_kept_once(tmp_path: Path) -> None:
    x = tg.node(1, trainable=True, name="x")
    with tg.run("loop", store=tmp_path) as run:
        for number in range(5):
            x.assign(number)
            run.step((x + 1) * 2)
    kept = tg.History(tmp_path).run()
    with tg.History(tmp_path)._reading() as connection:
        assert connection.execute("SELECT count(DISTINCT graph) FROM steps").fetchone() == (1,)
    graph = kept.graph(5)
    assert [n.value for n in graph.nodes if n.op == "multiply"] == ["10"]
    assert graph.nodes[0].version == 5
    assert "multiply" in graph.to_text()
    assert graph.to_svg().startswith("<svg")


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=12))
def test_a_captured_graph_is_the_graph(pairs: list[tuple[int, int]]) -> None:
    nodes: list[Any] = [tg.node(1, trainable=True, name="x"), tg.node(2, name="y")]
    for one, other in pairs:
        nodes.append(nodes[one % len(nodes)] + nodes[other % len(nodes)])
    captured = capture([nodes[-1]])
    kept = KeptGraph.read(captured.structure, _json(captured.shown), "")
    graph = tg.Graph.of(nodes[-1])
    assert [n.label for n in kept.nodes] == [n.label for n in graph.nodes]
    assert [n.value for n in kept.nodes] == [n.preview for n in graph.nodes]
    order = {n.id: i for i, n in enumerate(graph.nodes)}
    assert [[(s, name) for s, name, _ in n.inputs] for n in kept.nodes] == [
        [(order[s.id], name) for name, s in zip(n._names, n._inputs, strict=True)]
        for n in graph.nodes
    ]


def _json(data: Any) -> Any:
    import json

    return json.loads(json.dumps(data))


def test_failures_and_captured_inputs_are_kept(tmp_path: Path) -> None:
    hidden = tg.node("key", name="hidden")

    @tg.bundle()
    def broken(x: str) -> str:
        return x + hidden.data + str(1 // 0)

    with pytest.raises(ZeroDivisionError) as raised:
        broken("a")
    node = tg.failed_node(raised.value)
    assert node is not None
    with tg.run("broken", store=tmp_path) as run:
        run.step(node)
    last = tg.History(tmp_path).run().graph(1).nodes[-1]
    assert "ZeroDivisionError" in (last.failure or "")
    assert [captured for _, _, captured in last.inputs].count(True) == 1


def test_a_run_that_does_not_exist_names_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="there is no history"):
        tg.History(tmp_path)
    for name in ("first", "second", "7"):
        with tg.run(name, store=tmp_path):
            pass
    history = tg.History(tmp_path)
    with pytest.raises(NoSuchRun, match="did you mean 'second'"):
        history.run("secnd")
    with pytest.raises(NoSuchRun):
        history.run(99)
    assert history.run("7").id == 3
    assert history.run("2").name == "second"
    assert history.run().name == "7"
    with pytest.raises(HistoryError, match="has no step 4; it has none"):
        history.run("first").details(4)


def test_pruning_deletes_what_only_old_runs_used(tmp_path: Path) -> None:
    for number in range(3):
        with tg.run(f"run {number}", store=tmp_path) as run:
            weight = tg.node(torch.full((3,), number), trainable=True, name="weight")
            run.step(tg.node(f"only {number} " * 50) + "shared", parameters={"weight": weight})
    for file in (tmp_path / "tensors").iterdir():
        os.utime(file, (0, 0))
    history = tg.History(tmp_path)
    assert history.prune(history.runs()[:2], dry=True)[0] == 2
    assert len(history.runs()) == 3
    count, _ = history.prune(history.runs()[:2])
    assert count == 2
    (left,) = tg.History(tmp_path).runs()
    assert left.parameters()["weight"].value.tolist() == [2, 2, 2]
    assert len(list((tmp_path / "tensors").iterdir())) == 1
    with history._reading() as connection:
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        used = connection.execute("SELECT count(*) FROM blobs").fetchone()[0]
    assert used == 4  # what it ran with, its graph, its values, its parameter


def test_candidates_and_events_are_kept(tmp_path: Path) -> None:
    with tg.run("search", store=tmp_path) as run:
        observe("candidate", id="a", score=0.1)
        observe("candidate", id="b", parents=["a"], score=None, status="waiting")
        run.candidate("b", parents=["a"], score=0.9, status="best", values={"x": 1})
        observe("paused", why="night")
        run.log("note", error=ValueError("x"))
    kept = tg.History(tmp_path).run()
    a, b = kept.candidates
    assert (a.id, b.parents, b.score, b.status, b.details) == (
        "a", ("a",), 0.9, "best", {"values": {"x": 1}},
    )  # fmt: skip
    with tg.run("later", store=tmp_path) as run:
        run.candidate("a", score=0.5, scores={"right": 1, "short": 0.25}, status="new", note="x")
        run.candidate("a", parents=["z"], status="tried")
    (a,) = tg.History(tmp_path).run().candidates
    assert (a.parents, a.score, a.status) == (("z",), 0.5, "tried")
    assert (a.details["note"], a.scores) == ("x", {"right": 1.0, "short": 0.25})
    assert [(e.kind, dict(e.facts)) for e in kept.events] == [
        ("paused", {"why": "night"}), ("note", {"error": "ValueError: x"}),
    ]  # fmt: skip


@given(st.lists(st.tuples(*[st.integers(0, 4)] * 2), max_size=12))
@settings(max_examples=25)
def test_the_front_is_what_nothing_is_better_than(points: list[tuple[int, int]]) -> None:
    with TemporaryDirectory() as folder:
        with tg.run("front", store=folder) as run:
            for number, (right, short) in enumerate(points):
                run.candidate(str(number), scores={"right": right, "short": short})
            run.candidate("unknown", scores={"right": 9})
        front = [int(c.id) for c in tg.History(folder).run().front(["right", "short"])]
    better = [
        {
            i
            for i, (right, short) in enumerate(points)
            if (right >= own[0] and short >= own[1]) and (right, short) != own
        }
        for own in points
    ]
    assert front == [i for i in range(len(points)) if not better[i]]


def test_two_runs_in_two_threads_do_not_mix(tmp_path: Path) -> None:
    def work(name: str) -> None:
        x = tg.node(0.5, trainable=True, name="x")
        optimizer = Evolve([x], seed=1)
        with tg.run(name, store=tmp_path):
            for _ in range(5):
                y = x * 2
                optimizer.backward(y, 1.0)
                optimizer.step()

    threads = [threading.Thread(target=work, args=(name,)) for name in ("one", "two")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    history = tg.History(tmp_path)
    assert [len(history.run(name).steps) for name in ("one", "two")] == [5, 5]


def test_a_step_in_another_thread_belongs_to_the_only_open_run(tmp_path: Path) -> None:
    prompt, optimizer = asked(['{"suggestion": {"prompt": "Say hi."}}'])
    with tg.run("outer", store=tmp_path):
        optimizer.backward(prompt.upper(), "too long")
        thread = threading.Thread(target=optimizer.step)
        thread.start()
        thread.join()
    assert len(tg.History(tmp_path).run().steps) == 1


PROGRAM = """
import tracegraph as tg
from optimizers import OptoPrime
from tracegraph.llm import Scripted
prompt = tg.node("Say hello.", trainable=True, name="prompt")
optimizer = OptoPrime([prompt], llm=Scripted(['{"suggestion": {"prompt": "Say hi."}}']))
optimizer.backward(prompt.upper(), "too long")
optimizer.step()
"""


@pytest.mark.parametrize(
    ("there", "environment", "kept"),
    [(True, {}, 1), (False, {}, 0), (True, {"TRACEGRAPH_HISTORY": "off"}, 0)],
)
def test_a_directory_is_enough(
    tmp_path: Path, there: bool, environment: dict[str, str], kept: int
) -> None:
    if there:
        (tmp_path / ".tracegraph").mkdir()
    (tmp_path / "train.py").write_text(PROGRAM)
    subprocess.run(
        [sys.executable, "-W", "error", "train.py"], cwd=tmp_path, check=True, timeout=60,
        env={**os.environ, **environment, "PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert (tmp_path / ".tracegraph" / "history.sqlite").exists() == bool(kept)
    if kept:
        run = tg.History(tmp_path).run("train")
        assert (run.status, len(run.steps)) == ("done", 1)


def test_a_package_that_is_run_gives_the_run_its_name(tmp_path: Path) -> None:
    for folder in ("desk", ".tracegraph"):
        (tmp_path / folder).mkdir()
    (tmp_path / "desk" / "__main__.py").write_text(PROGRAM)
    subprocess.run(
        [sys.executable, "-W", "error", "-m", "desk"], cwd=tmp_path, check=True, timeout=60,
        env={**os.environ, "PYTHONPATH": str(ROOT)}, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert tg.History(tmp_path).run().name == "desk"


def test_what_keeping_breaks_does_not_break_the_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompt, optimizer = asked(['{"suggestion": {"prompt": "Say hi."}}'] * 2)

    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("broken")

    from tracegraph.history import live

    monkeypatch.setattr(live, "capture", broken)
    assert capture_module.capture is not broken
    optimizer.backward(prompt.upper(), "too long")
    with tg.run("broken", store=tmp_path), pytest.warns(HistoryWarning, match="broken"):
        update = optimizer.step()
    assert update
    assert prompt.data == "Say hi."


def test_a_run_is_begun_once(tmp_path: Path) -> None:
    run = tg.run("once", store=tmp_path)
    with pytest.raises(HistoryError, match="was not begun"):
        run.step()
    with run:
        pass
    with pytest.raises(HistoryError, match="begun before"), run:
        pass
    with pytest.raises(HistoryError, match="name is a text"):
        tg.run("  ")


def test_a_training_is_kept_step_by_step(tmp_path: Path) -> None:
    word = tg.node("a", trainable=True, name="word")
    replies = [f'{{"suggestion": {{"word": "{value}"}}}}' for value in ("aaaa", "bb", "aaaaaaaa")]
    optimizer = OptoPrime([word], llm=Scripted(replies))
    with tg.run("training", store=tmp_path):
        result = fit(
            lambda x: word + x, ["x", "yy"], lambda x, output: (float(len(output)), "longer"),
            optimizer=optimizer, budget=Budget(steps=3), tries=1, workers=1,
            store=State("training", tmp_path),
        )  # fmt: skip
    kept = tg.History(tmp_path).run("training")
    events = [e for e in result.history if e.kind in ("accepted", "rejected")]
    assert [s.note for s in kept.steps] == [str(e) for e in events]
    assert [s.calls for s in kept.steps] == [1, 1, 1]
    assert [s.optimizer for s in kept.steps] == ["OptoPrime"] * 3
    assert [v.value for v in kept.versions("word")] == ["a", "aaaa", "aaaaaaaa"]
    assert kept.details(1)["changes"] == ["word"]
    assert kept.details(2)["rejections"][0]["reason"]
    assert {f["text"] for f in kept.details(1)["feedback"]} >= {"longer"}
    assert kept.graph(1).nodes
    assert {c.status for c in kept.candidates} >= {"accepted", "rejected"}
    assert [e.facts["event"] for e in kept.events if e.kind == "training"] == [
        e.kind for e in result.history
    ]


def test_a_training_goes_on_from_its_state(tmp_path: Path) -> None:
    def trained(steps: int, replies: list[str], store: Any) -> Any:
        word = tg.node("a", trainable=True, name="word")
        optimizer = OptoPrime([word], llm=Scripted(replies))
        result = fit(
            lambda x: word + x, ["x", "yy"], lambda x, output: (float(len(output)), "longer"),
            optimizer=optimizer, budget=Budget(steps=steps), tries=1, workers=1, store=store,
        )  # fmt: skip
        return word.data, [str(e) for e in result.history]

    replies = [f'{{"suggestion": {{"word": "{value}"}}}}' for value in ("aaaa", "aaaaaaaa")]
    whole = trained(2, replies, None)
    first = trained(1, replies[:1], State("halves", tmp_path))
    assert first != whole
    assert trained(2, replies[1:], State("halves", tmp_path))[0] == whole[0]


def test_of_a_very_long_problem_the_beginning_is_kept(tmp_path: Path) -> None:
    with tg.run("long", store=tmp_path) as run:
        run.step(problem="x" * 3_000_000)
    kept = tg.History(tmp_path).run("long").details(1)["problem"]
    assert 1_000_000 < len(kept) < 1_000_100
    assert kept.endswith("(+2,000,000 characters)")


def test_steps_of_one_optimizer_in_two_threads_are_both_kept(tmp_path: Path) -> None:
    prompt = tg.node("Say hello.", trainable=True, name="prompt")
    once = Once(lambda: optimizer.step())

    def reply(request: Any) -> str:
        once()
        return '{"suggestion": {}}'

    optimizer = OptoPrime([prompt], llm=Scripted(reply))
    with tg.run("two", store=tmp_path):
        optimizer.backward(prompt.upper(), "too long")
        optimizer.step()
    assert once.done
    assert [s.status for s in tg.History(tmp_path).run("two").steps] == ["done", "done"]


def test_a_step_is_completed_though_another_thread_made_one_meanwhile(tmp_path: Path) -> None:
    (first, one), (second, two) = (asked(['{"suggestion": {"prompt": "Hi."}}']) for _ in range(2))
    with tg.run("two", store=tmp_path) as run:
        one.backward(first.upper(), "too long")
        update = one.step()
        two.backward(second.upper(), "too long")
        elsewhere(two.step)
        assert run.step(update=update, score=0.5) == 1
    assert [s.score for s in tg.History(tmp_path).run("two").steps] == [0.5, None]


def test_two_parameters_of_one_name_get_two_names_in_two_threads(tmp_path: Path) -> None:
    with tg.run("names", store=tmp_path) as run:
        parameters = [tg.node("a", trainable=True, name="same") for _ in range(2)]
        once = Once(lambda: names.append(run._name("same", parameters[1])))
        names: list[str] = []

        class Named(dict[Any, Any]):
            def setdefault(self, key: Any, default: Any = None) -> Any:
                once()
                return super().setdefault(key, default)

            def __setitem__(self, key: Any, value: Any) -> None:
                once()
                super().__setitem__(key, value)

        run._named = Named()
        names.append(run._name("same", parameters[0]))
    assert sorted(names) == ["same", "same_2"]
