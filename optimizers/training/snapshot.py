"""The state of a training as JSON-able data, and back: all of it or nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, is_dataclass
from random import Random
from typing import TYPE_CHECKING, Any, Final

from optimizers.encoding import encoded
from optimizers.training.budget import Spend
from optimizers.training.evaluator import Evaluation
from optimizers.training.policies.policy import Entry
from optimizers.training.result import Event
from optimizers.training.round import Course
from tracegraph.errors import OptimizerError
from tracegraph.kinds import show

if TYPE_CHECKING:
    from optimizers.training.loop import Training

__all__ = ["restore", "snapshot"]

_FORMAT: Final = 2


def snapshot(training: Training) -> dict[str, Any]:
    """All that `restore` needs."""
    course = training.course
    kept = {**training.standings.kept, course.first.id: course.first}
    return {
        "format": _FORMAT,
        "options": _options(training),
        "position": course.position,
        "present": course.present.id,
        "first": course.first.id,
        "candidates": {
            name: {
                "parents": list(candidate.parents),
                "values": {n: encoded(v) for n, v in candidate.values.items()},
            }
            for name, candidate in kept.items()
        },
        "tried": sorted(training.tried),
        "entries": {
            name: [list(entry.scores), dict(entry.objectives), entry.violations]
            for name, entry in training.standings.entries.items()
        },
        "search": list(course.search),
        "counters": [
            course.idle, training.proposers.failures, course.since, course.last_score,
        ],
        "spend": asdict(training.account.spend),
        "allowances": training.allowances.spent(),
        "moved": [training.members.movers.checkpoint, training.evaluator.edition],
        "history": [
            {**asdict(event), "parents": list(event.parents)} for event in training.diary.events
        ],
        "evaluations": [
            [*key, {**asdict(e), "violated": list(e.violated)}]
            for key, e in training.evaluator.cache.items()
        ],
        "optimizers": [
            m.state_dict() for m in training.members.proposers if hasattr(m, "state_dict")
        ],
    }  # fmt: skip


def restore(training: Training, state: Mapping[str, Any], *, stored: bool) -> None:
    """Bring a training to where `snapshot` found one.

    Args:
        stored: whether the state comes from the training's own store, where its tensors are, too.

    Raises:
        OptimizerError: it is no such state, or was made with other options, examples or parameters;
            nothing has changed.
        CheckpointError: the tensors cannot be restored; nothing has changed.
    """
    if not isinstance(state, Mapping) or not isinstance(state.get("format"), int):
        raise OptimizerError(f"this is no state of a training: {show(state, 80)}")
    if state["format"] != _FORMAT:
        raise OptimizerError(
            f"this state of a training has format {state['format']} and this version reads "
            f"{_FORMAT}; go on with the version that wrote it, or start anew with resume=False"
        )
    mine, theirs = _options(training), state.get("options")
    if theirs != mine:
        had = theirs if isinstance(theirs, Mapping) else {}
        other = {n: (had.get(n), v) for n, v in mine.items() if had.get(n) != v}
        raise OptimizerError(
            "the state was made by a training with other options or examples, and only the same can "
            "go on exactly: "
            + "; ".join(
                f"{n} was {show(a, 120)} and is {show(b, 120)}" for n, (a, b) in other.items()
            )
            + "; give what it had, another store, or resume=False to start anew"
        )
    try:
        kept = {
            name: training.values.restored(data["values"], data["parents"])
            for name, data in state["candidates"].items()
        }
        present, first = kept[state["present"]], kept[state["first"]]
        entries = {
            name: Entry(kept[name], tuple(scores), objectives, violations)
            for name, (scores, objectives, violations) in state["entries"].items()
        }
        told = [(n, entries.get(n) or Entry(kept[n])) for n in state["search"] if n is not None]
        events = [
            Event(**{**e, "parents": tuple(e["parents"]), "spend": Spend(**e["spend"])})
            for e in state["history"]
        ]
        cache = {(s, c, int(n)): Evaluation.restored(e) for s, c, n, e in state["evaluations"]}
        spend = Spend(**state["spend"])
        idle, failures, since, last = state["counters"]
        course = Course(
            first, present, int(state["position"]), idle, since, last, [*state["search"]]
        )
        allowed = {way: {**spent} for way, spent in state.get("allowances", {}).items()}
        tried, (moved, edition) = set(state["tried"]), state["moved"]
        members = [m for m in training.members.proposers if hasattr(m, "state_dict")]
        pairs = list(zip(members, state["optimizers"], strict=True))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise OptimizerError(
            f"the state is damaged: {type(error).__name__} {error}; start anew with resume=False"
        ) from error
    if moved and stored:
        training.members.movers.load(moved)
    for member, own in pairs:
        member.load_state_dict(own)
    training.standings.kept, training.standings.entries = kept, entries
    training.diary.events, training.evaluator.cache = events, cache
    training.evaluator.edition, training.proposers.failures = int(edition), failures
    training.account.restore(spend)
    training.allowances.go_on(allowed, stored=stored)
    training.tried.clear()
    training.tried.update(tried)
    _replay(training, state["search"], dict(told))
    training.round.course = course
    training.values.assign(present)


def _replay(training: Training, log: list[str | None], entries: Mapping[str, Entry]) -> None:
    """Ask and tell the policy as it was asked and told, which is all of its state."""
    for number, name in enumerate(log):
        if name is None:
            training.policy.ask(Random(f"{training.options.seed}/search/{number}"))
        else:
            training.policy.tell(entries[name])


def _options(training: Training) -> dict[str, Any]:
    """What must be the same for a training to go on exactly."""
    o = training.options
    return {
        "parameters": {name: p.kind.name for name, p in training.values.parameters.items()},
        "optimizers": [type(m).__name__ for m in training.members.all],
        "search": repr(training.policy),
        "train": _fingerprint(training.train),
        "validation": None if training.validation is None else _fingerprint(training.validation),
        "anchors": _fingerprint(list(training.contest.anchors.values())),
        "batch_size": training.batch_size,
        "proposals": o.proposals,
        "tries": o.tries,
        "acceptance": _named(training.contest.acceptance),
        "racing": _named(o.racing),
        "constraints": sorted(o.constraints or {}),
        "weights": None if o.weights is None else dict(o.weights),
        "validate_every": o.validate_every,
        "perfect": o.perfect,
        "failure_score": o.failure_score,
        "seed": o.seed,
    }


def _named(part: Any) -> str:
    """A part with its options, as far as it tells them in words."""
    return repr(part) if is_dataclass(part) or part is None else type(part).__name__


def _fingerprint(examples: Any) -> str:
    """How many examples there are and, as far as they are plain data, which."""
    try:
        text = json.dumps([encoded(example) for example in examples])
    except (OptimizerError, RecursionError):  # they hold objects of the user's, or themselves
        return f"{len(examples)} examples"
    return f"{len(examples)} examples {hashlib.sha256(text.encode()).hexdigest()[:12]}"
