"""Merge: put together what two candidates changed of one ancestor, component by component; no model needed.

Source: Agrawal et al., "GEPA: Reflective Prompt Evolution Can Outperform Reinforcement Learning", 2025 (arXiv
2507.19457), the system-aware merge: of two candidates on the Pareto front, none an ancestor of
the other, with a common ancestor that is worse than both, the child takes of each component the side that
changed it; where both did, that of the better candidate.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Final, final

from optimizers.base import Optimizer, Proposal, Update
from optimizers.candidate import Candidate, identity
from optimizers.encoding import decoded, encoded
from optimizers.records import score_of
from tracegraph.errors import OptimizerError
from tracegraph.kinds import show

__all__ = ["Merge", "merged"]

_MOST: Final = 200


@dataclass(frozen=True, slots=True)
class _Known:
    """A candidate and its scores, one for each example or one in all."""

    candidate: Candidate
    scores: tuple[float, ...]

    @property
    def mean(self) -> float:
        return fmean(self.scores)


def merged(
    ancestor: Mapping[str, Any], better: Mapping[str, Any], other: Mapping[str, Any]
) -> dict[str, Any]:
    """Of each component the side that changed it; where both did, that of `better`.

    >>> merged({"a": 1, "b": 1, "c": 1}, {"a": 2, "b": 1, "c": 2}, {"a": 1, "b": 3, "c": 3})
    {'a': 2, 'b': 3, 'c': 2}
    """
    return {
        name: other[name] if _equal(name, ancestor, better) else better[name] for name in ancestor
    }


@final
class Merge(Optimizer):
    """Proposes the merge of two candidates that it has seen; it sees those that are stepped, or told.

    Candidates are told apart by the hash of their values. A merge is proposed once. Used in a `Mix`, it is
    told every candidate of the others.

    Args:
        parameters: of any kind, two at least.
        pool: how many candidates, the best ones, may be merged where scores are not by example.

    >>> import tracegraph as tg
    >>> one, two = (tg.node(0, trainable=True, name=n) for n in ("one", "two"))
    >>> merge = Merge([one, two])
    >>> root = merge.watch({"one": 0, "two": 0}, 0.0)
    >>> _ = merge.watch({"one": 1, "two": 0}, 0.5, root), merge.watch({"one": 0, "two": 1}, 0.4, root)
    >>> _ = merge.backward(one + two, 0.0)
    >>> print(merge.step())
    one: 0 -> 1
    two: 0 -> 1
    """

    def __init__(self, parameters: Any, *, pool: int = 10) -> None:
        super().__init__(parameters)
        if len(self.named_parameters) < 2:
            raise OptimizerError(
                f"Merge puts components together and got one, {next(iter(self.named_parameters))!r}"
            )
        if not isinstance(pool, int) or pool < 2:
            raise OptimizerError(f"pool must be a whole number from 2, got {show(pool, 40)}")
        self.pool = pool
        self._known: dict[str, _Known] = {}
        self._tried: dict[str, tuple[str, ...]] = {}  # each merge, and its parents
        self._present: Candidate | None = None

    def watch(
        self, values: Mapping[str, Any], scores: float | Sequence[float], *parents: Candidate
    ) -> Candidate:
        """Take note of values that were tried; gives their candidate.

        Args:
            values: by name, of every parameter.
            scores: one number, or one for each example, in the same order every time. Larger is better.
            *parents: the candidates that they were made from, as far as they are known.

        Raises:
            OptimizerError: a name is missing or unknown, or there is no score.
        """
        if values.keys() != self.named_parameters.keys():
            raise OptimizerError(
                f"watch needs a value for each of {', '.join(self.named_parameters)}, got "
                f"{show(list(values), 120)}"
            )
        given = (float(scores),) if isinstance(scores, int | float) else tuple(map(float, scores))
        if not given or any(score != score for score in given):
            raise OptimizerError(f"scores are numbers, at least one, got {show(scores, 80)}")
        name = identity(values)
        known = self._known.pop(name, None)
        own = tuple(parent.id for parent in parents if parent.id != name)
        copied = {n: self.named_parameters[n].kind.copy(v) for n, v in values.items()}
        candidate = known.candidate if known else Candidate.of(copied, own)
        self._known[name] = _Known(candidate, given)
        while len(self._known) > _MOST:
            del self._known[next(iter(self._known))]
        return candidate

    def seen(self, values: Mapping[str, Any], score: float, *, present: bool = False) -> None:
        """Take note of values that were made from the present ones, or that are the present ones now."""
        candidate = self.watch(values, score, *self._parents(values))
        if present:
            self._present = candidate

    def propose(self, **options: Any) -> Proposal:
        """Take note of the present values and their score, and propose the most promising merge."""
        present = {name: p.data for name, p in self.named_parameters.items()}
        score = score_of(self.parameters)
        if score is not None:
            self.seen(present, score, present=True)
        found = self._best_merge()
        if found is None:
            return Proposal({}, note=f"nothing to merge among {len(self._known)} candidates")
        values, first, second = found
        self._tried[identity(values)] = (first.candidate.id, second.candidate.id)
        note = f"merged {first.candidate.id} ({first.mean:.3g}) and {second.candidate.id} ({second.mean:.3g})"
        changed = {
            p: p.kind.copy(values[name]) for name, p in self.named_parameters.items() if p.trainable
        }
        return Proposal(changed, note=note)

    def settle(self, proposal: Proposal, *, bypassing: bool = False) -> Update:
        """Assign; a merge that is only looked at may be proposed again."""
        update = super().settle(proposal, bypassing=bypassing)
        if bypassing:
            self._tried.pop(identity(self._proposed(proposal)), None)
        return update

    def refuse(self, proposal: Proposal, reason: str, *, score: float | None = None) -> None:
        """Take note of a merge that was tried and not kept."""
        if score is not None:
            self.seen(self._proposed(proposal), score)

    def state_dict(self) -> dict[str, Any]:
        """The candidates with their scores and parents, and which merges were tried."""
        return {
            "known": [
                [{n: encoded(v) for n, v in k.candidate.values.items()}, list(k.scores),
                 list(k.candidate.parents)]
                for k in self._known.values()
            ],
            "tried": {name: list(parents) for name, parents in self._tried.items()},
            "present": None if self._present is None else self._present.id,
        }  # fmt: skip

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Remember what `state_dict` gave."""
        try:
            known = {}
            for values, scores, parents in state["known"]:
                own = {n: decoded(values[n], p.initial) for n, p in self.named_parameters.items()}
                candidate = Candidate.of(own, tuple(parents))
                known[candidate.id] = _Known(candidate, tuple(map(float, scores)))
            tried = {str(n): tuple(map(str, p)) for n, p in state["tried"].items()}
            present = state["present"]
            found = None if present is None else known[present].candidate
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise OptimizerError(f"this is no state of Merge: {show(state, 80)}") from error
        self._known, self._tried, self._present = known, tried, found

    def _proposed(self, proposal: Proposal) -> dict[str, Any]:
        return {n: proposal.values.get(p, p.data) for n, p in self.named_parameters.items()}

    def _parents(self, values: Mapping[str, Any]) -> list[Candidate]:
        """What values were made from: the two that were merged, else the values before."""
        merged_from = self._tried.get(identity(values))
        if merged_from is not None:
            return [self._known[i].candidate for i in merged_from if i in self._known]
        return [] if self._present is None else [self._present]

    def _front(self) -> list[_Known]:
        """Those that are best on some example, or the best ones where scores are not by example."""
        widths = {len(known.scores) for known in self._known.values()}
        if len(widths) == 1 and widths != {1}:
            best = [
                max(column)
                for column in zip(*(k.scores for k in self._known.values()), strict=True)
            ]
            found = [
                k for k in self._known.values()
                if any(s >= b for s, b in zip(k.scores, best, strict=True))
            ]  # fmt: skip
        else:
            found = list(self._known.values())
        return sorted(found, key=lambda k: (-k.mean, k.candidate.id))[: self.pool]

    def _best_merge(self) -> tuple[dict[str, Any], _Known, _Known] | None:
        """The untried merge whose parents score best, and these parents."""
        pairs = sorted(
            itertools.combinations(self._front(), 2),
            key=lambda pair: -(pair[0].mean + pair[1].mean),
        )
        for first, second in pairs:
            behind = self._ancestors(first), self._ancestors(second)
            if first.candidate.id in behind[1] or second.candidate.id in behind[0]:
                continue
            common = [self._known[i] for i in behind[0] & behind[1] if i in self._known]
            worse = [k for k in common if k.mean < min(first.mean, second.mean)]
            for ancestor in sorted(worse, key=lambda k: (-k.mean, k.candidate.id)):
                values = merged(
                    ancestor.candidate.values, first.candidate.values, second.candidate.values
                )
                name = identity(values)
                if name not in self._tried and name not in self._known:
                    return values, first, second
        return None

    def _ancestors(self, known: _Known) -> set[str]:
        found: set[str] = set()
        todo = list(known.candidate.parents)
        while todo:
            name = todo.pop()
            if name not in found:
                found.add(name)
                todo += self._known[name].candidate.parents if name in self._known else ()
        return found


def _equal(name: str, one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    return identity({name: one[name]}) == identity({name: other[name]})
