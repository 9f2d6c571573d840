"""A kept run as a page to click through: one frame for each step that was kept with a graph."""

from __future__ import annotations

from typing import Any

from tracegraph.errors import HistoryError
from tracegraph.history.reading import KeptRun, KeptStep
from tracegraph.kinds import show
from tracegraph.view import Exchange, Frame, Page, Rejection, Version

__all__ = ["page"]


def page(run: KeptRun, step: int | None = None) -> Page:
    """The steps of a run in order, or one of them, for `tracegraph.view.write_html`.

    Raises:
        HistoryError: no step was kept with a graph, or the run has no such step.
    """
    steps = [s for s in run.steps if (s.nodes if step is None else s.number == step)]
    if step is not None and not steps:
        raise HistoryError(
            f"run {run.id} ({run.name!r}) has no step {step}; it has {len(run.steps)} steps"
        )
    if not steps:
        raise HistoryError(f"no step of run {run.id} ({run.name!r}) was kept with a graph")
    return Page(run.name, tuple(_frame(run, kept) for kept in steps))


def _frame(run: KeptRun, step: KeptStep) -> Frame:
    said = run.details(step.number)
    tokens = (step.tokens_in or 0) + (step.tokens_out or 0)
    facts = {
        "optimizer": step.optimizer or "",
        "status": step.status,
        "time": "" if step.seconds is None else f"{step.seconds:.3g} s",
        "tokens": f"{tokens:,}" if tokens else "",
    }
    return Frame(
        picture=run.graph(step.number).picture(),
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
            Rejection(parameter=r["name"], reason=r["reason"], proposal=str(r.get("value", "")))
            for r in said.get("rejections", ())
        ),
        exchanges=tuple(_exchange(e) for e in said.get("exchanges", ())),
        score=step.score,
        cost=step.cost,
        facts={name: fact for name, fact in facts.items() if fact},
    )


def _exchange(kept: dict[str, Any]) -> Exchange:
    prompt = "\n\n".join(f"{role}: {text}" for role, text in kept.get("prompt", ()))
    return Exchange(
        prompt=prompt, reply=str(kept.get("reply", "")), model=str(kept.get("model", ""))
    )
