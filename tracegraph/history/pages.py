"""A kept run as a page to click through: its steps, and the candidates and curves of the whole run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

from tracegraph.errors import HistoryError
from tracegraph.history.display import duration, model
from tracegraph.history.kept_graph import KeptGraph
from tracegraph.history.reading import KeptCandidate, KeptRun, KeptStep
from tracegraph.kinds import show
from tracegraph.view import (
    Candidate,
    Curve,
    Entry,
    Exchange,
    Frame,
    Page,
    Picture,
    Rejection,
    Version,
    fold,
    fronts,
    lineage,
    paused_collector,
    write_html,
)

__all__ = ["page", "report"]

_STEPS = 400  # of a longer run, so many are shown, evenly taken
_CANDIDATES = 2_000  # and so many candidates: the best
_REASONS = ("reason", "note", "error", "why")


def report(run: KeptRun, path: str | Path) -> Path:
    """Write `page` to a file that ends in .html, whole or not at all; gives its path."""
    return write_html(page(run), path)


@paused_collector()
def page(run: KeptRun, step: int | None = None) -> Page:
    """The steps of a run in order, or one of them, for `tracegraph.view.write_html`.

    With the steps come the candidates of its searches, if any: who descends from whom, the Pareto
    front where they have several objectives, and curves of scores and spend. Of a run of more than 400
    steps, 400 are shown, the first and the last among them.

    Raises:
        HistoryError: neither a step nor a candidate was kept, or the run has no such step.
    """
    every = run.steps
    if step is not None:
        chosen = [s for s in every if s.number == step]
        if not chosen:
            raise HistoryError(
                f"run {run.id} ({run.name!r}) has no step {step}; it has {len(every)} steps"
            )
        return Page(_title(run), tuple(_frame(run, kept) for kept in chosen))
    candidates = run.candidates
    if not every and not candidates:
        raise HistoryError(
            f"run {run.id} ({run.name!r}) kept neither a step nor a candidate, so there is nothing "
            "to show"
        )
    frames = tuple(_frame(run, kept) for kept in _evenly(every))
    if run.error and frames:
        note = "\n".join(filter(None, (frames[-1].note, f"The run ended here: {run.error}")))
        frames = (*frames[:-1], replace(frames[-1], note=note))
    if not candidates:
        return Page(_title(run), frames)
    made, named = _candidates(_best(candidates))
    scattered = fronts(made) if named else []
    return Page(
        _title(run), frames, lineage(made), tuple(_curves(every, candidates)), tuple(scattered)
    )


def _title(run: KeptRun) -> str:
    return run.name if run.status == "done" else f"{run.name} ({run.status})"


def _evenly(steps: Sequence[KeptStep]) -> list[KeptStep]:
    """Steps with a graph, or all where none has one; of many, some, the first and the last with them."""
    chosen = [step for step in steps if step.nodes] or list(steps)
    if len(chosen) <= _STEPS:
        return chosen
    last = len(chosen) - 1
    return [chosen[round(at * last / (_STEPS - 1))] for at in range(_STEPS)]


def _best(candidates: Sequence[KeptCandidate]) -> list[KeptCandidate]:
    if len(candidates) <= _CANDIDATES:
        return list(candidates)
    ranked = sorted(candidates, key=lambda c: float("-inf") if c.score is None else c.score)
    kept = {c.id for c in ranked[-_CANDIDATES:]}
    return [c for c in candidates if c.id in kept]


def _candidates(kept: Sequence[KeptCandidate]) -> tuple[list[Candidate], bool]:
    """Candidates with scores by name, and whether these are of objectives that the program named.

    Else they are of examples, as far as they can be compared: a search may try what it does not
    keep on others, and on fewer or more, than the rest.
    """
    named = [_numbers(one.details.get("scores")) for one in kept]
    if any(named):
        return [_candidate(one, scores) for one, scores in zip(kept, named, strict=True)], True
    examples = [_numbers(one.details.get("examples")) for one in kept]
    most = Counter(len(scores) for scores in examples if scores).most_common(1)
    return [
        _candidate(one, scores if most and len(scores) == most[0][0] else {})
        for one, scores in zip(kept, examples, strict=True)
    ], False


def _candidate(kept: KeptCandidate, scores: Mapping[str, float]) -> Candidate:
    said = kept.details
    values = said.get("values")
    return Candidate(
        id=kept.id,
        parents=kept.parents,
        step=kept.step or 0,
        score=kept.score,
        status=kept.status or "",
        note=next((str(said[name]) for name in _REASONS if said.get(name)), ""),
        scores=scores,
        values={
            str(name): value if isinstance(value, str) else show(value)
            for name, value in (values.items() if isinstance(values, Mapping) else ())
        },
    )


def _numbers(scores: Any) -> dict[str, float]:
    """Scores by name; those of a list by the number of their example."""
    if isinstance(scores, (list, tuple)):
        scores = {f"example {number}": score for number, score in enumerate(scores, 1)}
    if not isinstance(scores, Mapping):
        return {}
    return {
        str(name): float(score)
        for name, score in scores.items()
        if isinstance(score, (int, float)) and not isinstance(score, bool)
    }


def _curves(steps: Sequence[KeptStep], candidates: Sequence[KeptCandidate]) -> list[Curve]:
    met = [(float(number), c.score) for number, c in enumerate(candidates) if c.score is not None]
    best = accumulate((score for _, score in met), max)
    dollars = accumulate(step.cost or 0.0 for step in steps)
    tokens = accumulate(float((s.tokens_in or 0) + (s.tokens_out or 0)) for s in steps)
    numbers = [float(step.number) for step in steps]
    curves = [
        Curve(
            "Best score by candidate", tuple((at, b) for (at, _), b in zip(met, best, strict=True))
        ),
        Curve("Score", tuple((float(s.number), s.score) for s in steps if s.score is not None)),
        Curve("Spend", tuple(zip(numbers, dollars, strict=True)), "$"),
        Curve("Tokens", tuple(zip(numbers, tokens, strict=True))),
    ]
    return [curve for curve in curves if any(y for _, y in curve.points)]


def _frame(run: KeptRun, step: KeptStep) -> Frame:
    said = run.details(step.number)
    tokens = (step.tokens_in or 0) + (step.tokens_out or 0)
    facts = {
        "optimizer": step.optimizer or "",
        "status": step.status,
        "time": "" if step.seconds is None else duration(step.seconds),
        "tokens": f"{tokens:,}" if tokens else "",
    }
    graph = run.graph(step.number) if step.nodes else None
    return Frame(
        picture=Picture(()) if graph is None else fold(graph.picture(_given(said))),
        details={} if graph is None else _details(graph, said),
        title=f"step {step.number}",
        note="\n".join(filter(None, (step.note, said.get("reasoning"), said.get("error")))),
        parameters={
            name: Version(
                number=kept.version,
                text=kept.value if isinstance(kept.value, str) else show(kept.value),
                kind=kept.kind,
                origin=kept.origin,
                trusted=kept.trusted,
            )
            for name, kept in run.parameters(step.number).items()
        },
        rejections=tuple(
            Rejection(parameter=r["name"], reason=r["reason"], proposal=_proposal(r))
            for r in said.get("rejections", ())
        ),
        exchanges=tuple(_exchange(e) for e in said.get("exchanges", ())),
        score=step.score,
        cost=step.cost,
        facts={name: fact for name, fact in facts.items() if fact},
    )


def _details(graph: KeptGraph, said: Mapping[str, Any]) -> dict[int, tuple[Entry, ...]]:
    """What there is to say of each node, and the feedback that was given at it."""
    told = graph.details()
    for number, text in _given(said).items():
        if number in told:
            told[number] += (Entry("Feedback given here", "text", text),)
    return told


def _given(said: Mapping[str, Any]) -> dict[int, str]:
    """By the number of a node the feedback that was given at it, each text once."""
    given: dict[int, dict[str, None]] = {}
    for entry in said.get("feedback") or ():
        if isinstance(entry, Mapping) and isinstance(entry.get("output"), int):
            given.setdefault(entry["output"], {})[str(entry.get("text", ""))] = None
    return {number: "\n".join(texts) for number, texts in given.items()}


def _proposal(rejection: Mapping[str, Any]) -> str:
    value = rejection.get("value")
    return "" if value in (None, "None") else str(value)  # a reply that could not be read


def _exchange(kept: dict[str, Any]) -> Exchange:
    prompt = "\n\n".join(f"{role}: {text}" for role, text in kept.get("prompt", ()))
    return Exchange(prompt=prompt, reply=str(kept.get("reply", "")), model=model(kept.get("model")))
