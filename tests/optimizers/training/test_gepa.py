"""The adapter for GEPA, driven by the real package; the reflection model is a function of its prompt."""

from __future__ import annotations

import re
import sys
import threading
from typing import Any

import pytest

import tracegraph as tg
from optimizers import as_gepa_adapter
from tracegraph.errors import MissingExtra, OptimizerError, Rejected

gepa = pytest.importorskip("gepa", reason="the package gepa is optional: tracegraph[gepa]")

NEEDED = {"draft": "#plain", "polish": "#short"}


@tg.bundle
def write(prompt: str, text: str) -> str:
    """A stand-in for a model: it follows the marks that stand in its prompt, and no others."""
    if text == "broken":
        raise ValueError("cannot write of this")
    kind = prompt.split()[0].lower()
    return " ".join([text, *(f"{kind}:{mark}" for mark in re.findall(r"#\w+", prompt))])


class Workflow(tg.Module):
    """Two prompts that go through one function: two components of the same signature."""

    def __init__(self) -> None:
        self.draft = tg.node("Draft the letter.", trainable=True, name="draft")
        self.polish = tg.node("Polish the letter.", trainable=True, name="polish")
        self.rate = tg.node(0.5, trainable=True, name="rate")

    def forward(self, topic: Any) -> Any:
        return write(self.polish, write(self.draft, topic))


def guide(topic: str, letter: str) -> tuple[float, str]:
    lacking = [f"{k} needs {m}" for k, m in NEEDED.items() if f"{k}:{m}" not in letter]
    return 1 - len(lacking) / 2, "; ".join(lacking) or "good"


def reflect(prompt: Any) -> str:
    """Write into the component's text what the feedback in the prompt says that it needs."""
    text = prompt if isinstance(prompt, str) else str(prompt)
    present = re.findall(r"```\n(.*?)\n```", text, re.DOTALL)[0]
    needs = re.findall(rf"{present.split()[0].lower()} needs (#\w+)", text)
    return f"```\n{present} {needs[0] if needs else ''}\n```"


TOPICS = ["cats", "dogs", "rain"]


def optimized(workflow: Any, judge: Any) -> tuple[Any, Any]:
    adapter = as_gepa_adapter(workflow, judge, workers=2)
    result = gepa.optimize(
        adapter.seed_candidate, TOPICS, TOPICS, adapter=adapter, reflection_lm=reflect,
        reflection_minibatch_size=2, max_metric_calls=40,
    )  # fmt: skip
    return adapter, result


def test_gepa_improves_two_prompts_and_leaves_the_program_alone() -> None:
    workflow = Workflow()
    adapter, result = optimized(workflow, guide)
    assert result.val_aggregate_scores[0] == 0.0
    assert max(result.val_aggregate_scores) == 1.0
    assert workflow.draft.data == "Draft the letter."
    assert not workflow.draft.feedback
    adapter.assign(result.best_candidate)
    assert guide("cats", workflow("cats").data) == (1.0, "good")
    assert workflow.draft.origin == "optimizer"


def test_without_words_in_the_feedback_nothing_improves() -> None:
    _, result = optimized(Workflow(), lambda topic, letter: guide(topic, letter)[0])
    assert set(result.val_aggregate_scores) == {0.0}


def test_each_component_is_shown_its_own_use_and_not_that_of_its_twin() -> None:
    adapter = as_gepa_adapter(Workflow(), guide)
    marked = {"draft": "Draft it. #plain", "polish": "Polish it."}
    batch = adapter.evaluate(["cats"], marked, capture_traces=True)
    shown = adapter.make_reflective_dataset(marked, batch, ["draft", "polish"])
    feedback = "polish needs #short\nscore 0.5"
    assert shown == {
        "draft": [
            {
                "Inputs": {"text": "'cats'"},
                "Generated Outputs": {"write": "'cats draft:#plain'"},
                "Feedback": feedback,
            }
        ],
        "polish": [
            {
                "Inputs": {"text": "'cats draft:#plain'"},
                "Generated Outputs": {"write": "'cats draft:#plain'"},
                "Feedback": feedback,
            }
        ],
    }
    assert adapter.make_reflective_dataset(marked, batch, ["draft", "polish"]) == shown


def test_scores_are_those_of_the_candidate_also_without_traces() -> None:
    workflow = Workflow()
    adapter = as_gepa_adapter(workflow, guide)
    best = {"draft": "Draft #plain", "polish": "Polish #short"}
    recorded: list[Any] = []
    with tg.recording(observers=[recorded.append]):
        scored = adapter.evaluate(TOPICS, best)
    assert recorded == []
    assert (scored.scores, scored.trajectories) == ([1.0] * 3, None)
    assert scored.outputs[0] == "cats draft:#plain polish:#short"
    assert adapter.evaluate(TOPICS, adapter.seed_candidate).scores == [0.0] * 3


def test_a_run_that_fails_scores_low_and_says_why() -> None:
    adapter = as_gepa_adapter(Workflow(), lambda topic, letter: (-3.0, "bad"))
    seed = adapter.seed_candidate
    batch = adapter.evaluate(["broken", "cats"], seed, capture_traces=True)
    assert batch.scores == [-3.0, -3.0]  # no better than the worst that the guide gave
    first, _ = adapter.make_reflective_dataset(seed, batch, ["draft"])["draft"]
    assert "cannot write of this" in first["Feedback"]
    assert first["Inputs"] == {"text": "'broken'"}


def test_a_run_that_takes_too_long_is_shown_to_every_component() -> None:
    never = threading.Event()

    def workflow(topic: str) -> Any:
        never.wait()
        return word + topic

    word = tg.node("Hi", trainable=True, name="word")
    adapter = as_gepa_adapter(workflow, guide, parameters=[word], timeout=0.05)
    batch = adapter.evaluate(["cats"], {"word": "Ho"}, capture_traces=True)
    never.set()
    (entry,) = adapter.make_reflective_dataset({"word": "Ho"}, batch, ["word"])["word"]
    assert "longer than 0.05 seconds" in entry["Feedback"]


def test_a_text_that_is_refused_is_not_run_and_the_next_reflection_hears_why() -> None:
    word = tg.node("Hi", trainable=True, name="word", constraint=lambda text: len(text) < 9)
    runs = []

    def workflow(name: str) -> Any:
        runs.append(name)
        return word + " " + name

    adapter = as_gepa_adapter(workflow, lambda n, said: -5.0, parameters=[word])
    seed = adapter.seed_candidate
    good = adapter.evaluate(["Ann"], seed, capture_traces=True)
    bad = adapter.evaluate(["Ann", "Bob"], {"word": "Good evening"}, capture_traces=True)
    assert (bad.scores, runs) == ([-5.0, -5.0], ["Ann"])
    assert len(bad.trajectories) == len(bad.outputs) == 2
    _, refused = adapter.make_reflective_dataset(seed, good, ["word"])["word"]
    assert refused["Inputs"] == {"proposed text": "Good evening"}
    assert "refused" in refused["Feedback"]
    with pytest.raises(Rejected):
        adapter.assign({"word": "Good evening"})
    resumed = as_gepa_adapter(workflow, lambda n, said: 0.0, parameters=[word])
    resumed.set_adapter_state(adapter.get_adapter_state())
    assert resumed.get_adapter_state() == adapter.get_adapter_state()
    assert refused in resumed.make_reflective_dataset(seed, good, ["word"])["word"]


def test_code_is_a_component_too() -> None:
    @tg.bundle(trainable=True, trust=True)
    def double(x: int) -> int:
        """Twice x."""
        return x + 1

    adapter = as_gepa_adapter(double, lambda x, y: float(y == 2 * x), parameters=double)
    (name,) = adapter.seed_candidate
    better = {name: adapter.seed_candidate[name].replace("x + 1", "2 * x")}
    assert adapter.evaluate([5], adapter.seed_candidate).scores == [0.0]
    assert adapter.evaluate([5], better).scores == [1.0]
    assert double(5).data == 6


def test_an_async_workflow_is_awaited() -> None:
    word = tg.node("Hi", trainable=True, name="word")

    async def workflow(name: str) -> Any:
        return word + name

    adapter = as_gepa_adapter(workflow, lambda n, said: float(len(said)), parameters=[word])
    assert adapter.evaluate(["Ann"], {"word": "Hello"}, capture_traces=True).scores == [8.0]


def test_what_is_frozen_is_no_component() -> None:
    workflow = Workflow()
    workflow.draft.freeze()
    assert list(as_gepa_adapter(workflow, guide).seed_candidate) == ["polish"]


def test_what_cannot_be_optimized_is_refused_before_anything_runs() -> None:
    rate = tg.node(0.5, trainable=True, name="rate")
    with pytest.raises(OptimizerError, match="texts and code"):
        as_gepa_adapter(lambda x: rate * x, guide, parameters=[rate])
    word = tg.node("Hi", trainable=True, name="word")
    adapter = as_gepa_adapter(lambda name: word.data + name, guide, parameters=[word])
    with pytest.raises(OptimizerError, match="plain value"):
        adapter.evaluate(["Ann"], {"word": "Ho"})
    with pytest.raises(OptimizerError, match=r"seed_candidate=adapter\.seed_candidate"):
        adapter.evaluate(["Ann"], {"wrod": "Ho"})


def test_without_the_package_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gepa.core.adapter", None)
    with pytest.raises(MissingExtra, match=r"tracegraph\[gepa\]"):
        as_gepa_adapter(Workflow(), guide)


def by_mark(topic: str, letter: str) -> tuple[dict[str, float], str]:
    """One objective for each component."""
    met = {k: float(f"{k}:{m}" in letter) for k, m in NEEDED.items()}
    return met, guide(topic, letter)[1]


@pytest.mark.parametrize("frontier", ["objective", "hybrid", "cartesian"])
def test_gepa_gets_a_score_for_each_objective(frontier: str) -> None:
    workflow = Workflow()
    adapter = as_gepa_adapter(workflow, by_mark, workers=2)
    seed = adapter.seed_candidate
    halfway = {**seed, "draft": f"{seed['draft']} #plain"}
    made = adapter.evaluate(["cats", "broken"], halfway)
    assert made.scores == [0.5, 0.0]
    assert made.objective_scores == [{"draft": 1.0, "polish": 0.0}] * 2  # nobody did worse yet
    assert adapter.evaluate(["cats"], seed).objective_scores == [{"draft": 0.0, "polish": 0.0}]
    made = adapter.evaluate(["broken"], halfway)
    assert made.objective_scores == [{"draft": 0.0, "polish": 0.0}]
    again = as_gepa_adapter(workflow, by_mark)
    again.set_adapter_state(adapter.get_adapter_state())
    assert again.evaluate(["broken"], halfway).objective_scores == made.objective_scores
    result = gepa.optimize(
        seed, TOPICS, TOPICS, adapter=adapter, reflection_lm=reflect, reflection_minibatch_size=2,
        max_metric_calls=40, frontier_type=frontier,
    )  # fmt: skip
    assert max(result.val_aggregate_scores) == 1.0
    assert result.objective_pareto_front == {"draft": 1.0, "polish": 1.0}


def test_without_objectives_gepa_gets_none() -> None:
    adapter = as_gepa_adapter(Workflow(), guide)
    assert adapter.evaluate(["cats"], adapter.seed_candidate).objective_scores is None
