"""Let GEPA optimize a traced workflow: the adapter that its engine asks.

GEPA proposes texts for named components; here each is a parameter of kind text or code. A candidate
is run in an overlay, so the program itself never changes. What GEPA reflects on is read from the
graph: the operations that used a parameter, by the identity of nodes, never by name or signature.

Source: Agrawal et al., "GEPA: Reflective Prompt Evolution Can Outperform Reinforcement Learning",
2025 (arXiv 2507.19457).
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast, final

from optimizers.base import collect
from optimizers.candidate import Candidate
from optimizers.records import Record, records_of
from optimizers.training.evaluator import Call, Evaluation, Evaluator, Traced
from optimizers.training.guide import Guide
from tracegraph.errors import MissingExtra, OptimizerError, Rejected
from tracegraph.kinds import show
from tracegraph.overlay import Overlay
from tracegraph.parameter import Parameter, assign_all
from tracegraph.propagate import backward
from tracegraph.recorder import stop_tracing

if TYPE_CHECKING:
    from gepa.core.adapter import EvaluationBatch

__all__ = ["GEPAAdapter", "Trajectory", "as_gepa_adapter"]

_MOST_REFUSED = 3


def as_gepa_adapter(
    workflow: Any,
    guide: Guide,
    *,
    parameters: Any = None,
    call: Call | None = None,
    workers: int = 8,
    timeout: float | None = None,
    failure_score: float = 0.0,
) -> GEPAAdapter:
    """The adapter with which ``gepa.optimize`` improves the texts and the code of a workflow.

    Args:
        workflow: any callable that gives a node; it may be async.
        guide: judges the outputs: ``guide(example, output)`` gives a number, larger is better, or a
            number and a text; a dict of numbers, by objective, is what GEPA's frontiers of objectives
            take. A run that failed counts as the least of each.
        parameters: what to optimize; by default what the workflow holds. Only those of kind text or
            code are taken, and none that is frozen.
        call: ``call(workflow, example)``; by default the workflow gets the first of a pair
            (input, expected), or the whole example.
        workers: how many examples run at once.
        timeout: seconds that one example may take.
        failure_score: the score of a run that failed; never more than the worst that the guide gave.

    Raises:
        MissingExtra: the package gepa is not installed.
        OptimizerError: there is no text or code to optimize.

    >>> import tracegraph as tg
    >>> word = tg.node("Hi", trainable=True, name="word")
    >>> adapter = as_gepa_adapter(lambda name: word + " " + name, lambda name, said: len(said),
    ...                           parameters=[word])
    >>> adapter.seed_candidate, adapter.evaluate(["Ann"], {"word": "Good day"}).scores
    ({'word': 'Hi'}, [12.0])
    """
    _gepa()
    found = {
        name: p
        for name, p in collect(workflow if parameters is None else parameters).items()
        if p.trainable and p.kind.name in ("text", "code")
    }
    if not found:
        raise OptimizerError(
            "GEPA changes texts and code, and there is none that may change among the parameters; make "
            "one with node('...', trainable=True), or pass parameters="
        )
    evaluator = Evaluator(
        workflow, guide, found, call=call, workers=workers, timeout=timeout,
        failure_score=failure_score,
    )  # fmt: skip
    return GEPAAdapter(evaluator, found)


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One run of a candidate, and the overlay in which its graph's parameters have their values."""

    example: Any
    run: Traced
    overlay: Overlay


@final
class GEPAAdapter:
    """What GEPA asks of a workflow; made by `as_gepa_adapter`."""

    propose_new_texts = None  # GEPA's own reflection writes the proposals

    def __init__(self, evaluator: Evaluator, parameters: Mapping[str, Parameter[Any]]) -> None:
        self.parameters = dict(parameters)
        self._evaluator = evaluator
        self._worst = evaluator.failure_score
        self._least: dict[str, float] = {}
        self._refused: dict[str, dict[str, str]] = {}

    @property
    def seed_candidate(self) -> dict[str, str]:
        """The present texts by name, for ``gepa.optimize(seed_candidate=...)``."""
        return {name: parameter.data for name, parameter in self.parameters.items()}

    def assign(self, candidate: Mapping[str, str]) -> None:
        """Give the parameters the texts of a candidate, such as the best; all or none.

        Raises:
            Rejected: a parameter does not take its text; nothing has changed.
            OptimizerError: the candidate is of other components; nothing has changed.
        """
        assign_all(
            (parameter, value, "optimizer", False)
            for parameter, value in self._values(candidate).items()
            if value != parameter.data
        )

    def evaluate(
        self, batch: Sequence[Any], candidate: Mapping[str, str], capture_traces: bool = False
    ) -> EvaluationBatch[Trajectory, Any]:
        """Run a candidate on examples; a run that fails, or a text that is refused, scores low.

        Raises:
            BadVerdict: the guide raised, or gave no score.
            OptimizerError: the workflow gives plain values, or the candidate is of other components.
        """
        made = _gepa().EvaluationBatch
        try:
            overlay = Overlay(self._values(candidate))
        except Rejected as refused:
            self._remember(candidate, refused)
            overlay = Overlay({})
            lost = Evaluation(self._worst, str(refused), f"Rejected: {refused}")
            runs = [Traced(lost, None, ()) for _ in batch]
        else:
            runs = self._run(batch, candidate, overlay, capture_traces)
        told = [run.evaluation for run in runs if run.evaluation.error is None]
        self._worst = min([self._worst, *(evaluation.score for evaluation in told)])
        for name, value in (pair for e in told for pair in e.objectives.items()):
            self._least[name] = min(value, self._least.get(name, value))
        return made(
            [run.evaluation.error or cast(Any, run.output).data for run in runs],
            [self._worst if run.evaluation.error else run.evaluation.score for run in runs],
            [Trajectory(example, run, overlay) for example, run in zip(batch, runs, strict=True)]
            if capture_traces
            else None,
            objective_scores=[
                dict(self._least if run.evaluation.error else run.evaluation.objectives)
                for run in runs
            ]
            if self._least
            else None,
        )

    def _run(
        self, batch: Sequence[Any], candidate: Mapping[str, str], overlay: Overlay, keep: bool
    ) -> list[Traced]:
        with overlay, nullcontext() if keep else stop_tracing():
            runs = self._evaluator.traced(Candidate.of(candidate), dict(enumerate(batch)))
        if any(run.output is None and run.evaluation.error is None for run in runs):
            raise OptimizerError(
                "the workflow gave a plain value, not a node: feedback cannot find its way back; record "
                "what it does with @bundle, and return the node, not its .data"
            )
        return runs

    def make_reflective_dataset(
        self,
        candidate: Mapping[str, str],
        eval_batch: EvaluationBatch[Trajectory, Any],
        components_to_update: Sequence[str],
    ) -> dict[str, list[dict[str, Any]]]:
        """What happened around each component: inputs, outputs, and the feedback on the result."""
        trajectories = eval_batch.trajectories or []
        shown: dict[str, list[dict[str, Any]]] = {name: [] for name in components_to_update}
        reached = [t for t in trajectories if t.run.output is not None]
        if reached:
            with reached[0].overlay:
                backward((t.run.output, said) for t in reached for said in t.run.messages)
                for name in components_to_update:
                    shown[name] = [_shown(r) for r in records_of(self.parameters[name])]
        lost = [t for t in trajectories if t.run.output is None]
        for name, records in shown.items():
            records += [
                _entry({"example": show(t.example, 1_000)}, "nothing", t.run.evaluation.text)
                for t in lost
            ]
            records += [
                _entry({"proposed text": text}, "it was not run", f"this text is refused: {reason}")
                for text, reason in self._refused.get(name, {}).items()
            ]
        return shown

    def get_adapter_state(self) -> dict[str, Any]:
        """What GEPA keeps of this adapter beside its own state; plain JSON."""
        refused = {name: dict(texts) for name, texts in self._refused.items()}
        return {"worst": self._worst, "least": dict(self._least), "refused": refused}

    def set_adapter_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `get_adapter_state` gave."""
        self._worst = float(state.get("worst", self._worst))
        self._least = dict(state.get("least", {}))
        self._refused = {name: dict(t) for name, t in state.get("refused", {}).items()}

    def _values(self, candidate: Mapping[str, str]) -> dict[Parameter[Any], Any]:
        if candidate.keys() != self.parameters.keys():
            raise OptimizerError(
                f"the candidate has the components {sorted(candidate)}, the workflow "
                f"{sorted(self.parameters)}; start GEPA with seed_candidate=adapter.seed_candidate"
            )
        return {p: p.read(candidate[name]) for name, p in self.parameters.items()}

    def _remember(self, candidate: Mapping[str, str], refused: Rejected) -> None:
        """Keep the last texts that were refused: the next reflection is shown why."""
        for name, parameter in self.parameters.items():
            if parameter is refused.parameter:
                texts = self._refused.setdefault(name, {})
                texts[candidate[name]] = refused.reason
                for text in list(texts)[:-_MOST_REFUSED]:
                    del texts[text]


def _shown(record: Record) -> dict[str, Any]:
    said = "\n".join(record.remarks)
    scored = "" if record.score is None else f"score {record.score:g}"
    feedback = "\n".join(filter(None, (said, scored)))
    return _entry(dict(record.inputs), {record.operation: record.output}, feedback)


def _entry(inputs: Mapping[str, str], outputs: Any, feedback: str) -> dict[str, Any]:
    return {"Inputs": dict(inputs), "Generated Outputs": outputs, "Feedback": feedback}


def _gepa() -> Any:
    try:
        return importlib.import_module("gepa.core.adapter")
    except ImportError as error:
        raise MissingExtra(
            "as_gepa_adapter() needs the package gepa: pip install 'tracegraph[gepa]'"
        ) from error
