"""Ask for candidates, tell their scores, keep the best, go on after a stop: what every search has.

A search, whether it asks a model or not, only says how the next candidates are made. It can be
used in two ways. *Ask and tell*: evaluate the candidates yourself, side by side if you like. *Step by
step*: run the workflow, carry a score back, call `step`. The same scores give the same candidates
either way, in whatever order the scores of a brood come.
"""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Final

from optimizers.base import Optimizer, Proposal, Update, Usage
from optimizers.candidate import Candidate, Trial, identity
from optimizers.encoding import decoded, encoded
from optimizers.localisation import Suspects, suspects
from tracegraph.errors import OptimizerError, Rejected
from tracegraph.feedback import Preference, Ranking, Remark, Score
from tracegraph.forking import new_lock
from tracegraph.kinds import is_tensor, show
from tracegraph.parameter import Parameter

__all__ = ["AskTell"]

_FORMAT: Final = 1
_writing = new_lock()
"""Held while a candidate, or a score of one, is written down: threads may ask and tell."""


class AskTell(Optimizer):
    """An optimizer that tries candidates; derive from it and say how the next ones are made.

    Args:
        parameters: of any kind, see `Optimizer`.
        seed: the only source of chance; the same seed and scores give the same candidates.
        minimize: whether a smaller score is better; by default a larger one is.

    Raises:
        OptimizerError: an option cannot be used; the message says which.
    """

    def __init__(self, parameters: Any, *, seed: int = 0, minimize: bool = False) -> None:
        super().__init__(parameters)
        if not isinstance(seed, int) or isinstance(seed, bool):
            raise OptimizerError(f"seed must be a whole number, got {show(seed, 40)}")
        self.seed = seed
        self.minimize = minimize
        self._trials: dict[str, Trial] = {}
        self._waiting: list[Candidate] = []
        self._made = 0
        self._current: str | None = None
        self._root = self._admitted(self._present_values())
        self._waiting.append(self._root)

    # Ask and tell

    def ask(self, n: int = 1) -> list[Candidate]:
        """The next `n` candidates to evaluate; the first ever are the values as they are now.

        There are fewer, or none, when no candidate can be found that was not asked before.

        Raises:
            OptimizerError: `n` is not a positive number.
        """
        if not isinstance(n, int) or n < 1:
            raise OptimizerError(f"ask(n) gives n candidates, at least one, got n={show(n, 40)}")
        asked: list[Candidate] = []
        while len(asked) < n:
            candidate = self._next()
            if candidate is None:
                break
            if self._took(candidate):  # else another thread was faster
                asked.append(candidate)
        return asked

    def _took(self, candidate: Candidate) -> bool:
        """Whether a candidate was still waiting; it is no longer."""
        try:
            self._waiting.remove(candidate)
        except ValueError:
            return False
        return True

    def tell(
        self,
        candidate: Candidate,
        score: float | Score | None,
        feedback: str = "",
        *,
        suspects: Suspects | None = None,
        cases: Mapping[str, float] | Sequence[float] | None = None,
    ) -> None:
        """Say how a candidate did.

        Args:
            candidate: one that was asked. Told more than once, the mean of its scores counts.
            score: a number; larger is better, unless the search minimizes; ``None`` when the evaluation
                failed: it then counts less than every score.
            feedback: words to keep beside the score.
            suspects: which lines of its code are to blame, as `optimizers.search.suspects` finds them
                in traces; who edits code begins there.
            cases: how well it did on each of several cases, larger is better also where the search minimizes,
                by name or in an order that stays. What is best on a few cases can then become a parent
                although its score is not.

        Raises:
            UnknownFeedback: the score is NaN or no number; nothing is told.
            OptimizerError: the candidate is none of this search, or a case is no number.
        """
        value = (
            None if score is None else (score if isinstance(score, Score) else Score(score)).mean
        )
        if not isinstance(candidate, Candidate) or candidate.id not in self._trials:
            raise OptimizerError(
                f"{show(candidate, 80)} is no candidate of this search; tell() takes what "
                "ask() gave"
            )
        blamed = {name: dict(lines) for name, lines in (suspects or {}).items()}
        by_case = None if cases is None else _by_name(cases)
        with _writing:
            trial = self._trials[candidate.id]
            self._trials[candidate.id] = Trial(
                trial.candidate,
                (*trial.scores, value),
                "\n".join(part for part in (trial.feedback, feedback) if part),
                blamed or trial.suspects,
                trial.cases if by_case is None else by_case,
            )
        self._took(trial.candidate)

    @property
    def history(self) -> list[Trial]:
        """The candidates that were told, in the order that they were made."""
        return [trial for trial in list(self._trials.values()) if trial.scores]

    @property
    def best(self) -> Candidate:
        """The candidate of the best mean score; among equals the one made first.

        Raises:
            OptimizerError: no candidate has a score yet.
        """
        return self._best().candidate

    @property
    def best_score(self) -> float:
        """The mean score of `best`."""
        return self._best().score

    @property
    def current(self) -> Candidate | None:
        """The candidate that was applied last, or ``None``."""
        return None if self._current is None else self._trials[self._current].candidate

    def apply(self, candidate: Candidate) -> Update:
        """Put a candidate's values into the parameters, all or none.

        Raises:
            OptimizerError: the candidate is none of this search.
            Rejected: a parameter does not take its value any more; nothing has changed.
        """
        if candidate.id not in self._trials:
            raise OptimizerError(f"{show(candidate, 80)} is no candidate of this search")
        update = self.settle(Proposal(self._values(candidate)))
        for rejection in update.rejections:
            raise Rejected(
                parameter=self.named_parameters[rejection.name],
                reason=f"{rejection.name}: {rejection.reason}; nothing has changed",
            )
        self._current = candidate.id
        return update

    def finish(self) -> Update:
        """Put the best candidate's values into the parameters.

        Raises:
            OptimizerError: no candidate has a score yet.
        """
        best = self._best()
        update = self.apply(best.candidate)
        return Update(update.changes, note=f"the best of {len(self.history)}: {best.score:g}")

    # Step by step

    def step(self, *, bypassing: bool = False, **options: Any) -> Update:
        """Take the score that arrived for the present values, then assign the next candidate.

        A failed call counts as the worst score: carry its exception back from its node. When no new
        candidate can be found the values stay; `finish` assigns the best ones.

        Raises:
            OptimizerError: words arrived and no score; nothing has changed.
        """
        kept = {name: copy.copy(getattr(self, name)) for name in self._moving}
        update = super().step(bypassing=bypassing, **options)
        if bypassing:
            for name, value in kept.items():
                setattr(self, name, value)
        return update

    def propose(self, **options: Any) -> Proposal:
        """Tell the score that arrived, and give the next candidate."""
        score, words = self._arrived()
        present = self._admitted(self._present_values())
        self.tell(present, score, words, suspects=self._blamed())
        candidate = self._next()
        if candidate is None:
            note = "every candidate that could be found was tried; call finish()"
            return Proposal({}, usage=self.paid(), note=note)
        self._current = candidate.id
        told = "failed" if score is None else f"scored {score:g}"
        note = f"candidate {present.number} {told}; next is candidate {candidate.number}"
        return Proposal(self._values(candidate), usage=self.paid(), note=note)

    def _arrived(self) -> tuple[float | None, str]:
        """The score of the present values, ``None`` for a failure, and the words beside it."""
        merged: dict[type, Any] = {}
        outputs: dict[int, Any] = {}
        for parameter in self.parameters:
            arrived = parameter.feedback
            outputs |= arrived.outputs
            for kind in (Score, Remark, Preference, Ranking):
                if kind in arrived:
                    message = arrived[kind]
                    merged[kind] = merged[kind].merge(message) if kind in merged else message
        score: Score | None = merged.pop(Score, None)
        words = "\n".join(str(message) for message in merged.values())
        scored = score.outputs if score is not None else {}
        if any(
            node.failure is not None and number not in scored for number, node in outputs.items()
        ):
            return None, words
        if score is None:
            said = f": {show(words, 120)}" if words else ""
            raise OptimizerError(
                f"{type(self).__name__} needs a score (a number, larger is better) for each run, "
                f"and none arrived{said}; give one by backward(output, 0.7), or several as "
                "backward(output, [0.7, 'in words'])"
            )
        return score.mean, words

    def _blamed(self) -> Suspects:
        """Which lines of code the runs that failed, or scored less than others, are to blame for."""
        outputs: dict[int, Any] = {}
        scores: dict[int, float] = {}
        for parameter in self.parameters:
            arrived = parameter.feedback
            outputs |= arrived.outputs
            message = arrived.get(Score)
            for number, said in message.outputs.items() if message is not None else ():
                scores[number] = said[0][1] * (-1 if self.minimize else 1)
        top = max(scores.values(), default=0.0)
        runs = [
            (node, node.failure is None and scores.get(number, top) >= top)
            for number, node in outputs.items()
        ]
        return {} if all(good for _, good in runs) else suspects(runs, self.named_parameters)

    # Going on after a stop

    def state_dict(self) -> dict[str, Any]:
        """All that is needed to go on exactly as if nothing had stopped, as JSON-able data."""
        return {
            "format": _FORMAT,
            "search": type(self).__name__,
            "options": self._options(),
            "made": self._made,
            "root": self._root.id,
            "current": self._current,
            "waiting": [candidate.id for candidate in self._waiting],
            "trials": [
                {
                    "id": trial.candidate.id,
                    "values": {name: encoded(v) for name, v in trial.candidate.values.items()},
                    "parents": list(trial.candidate.parents),
                    "step": trial.candidate.step,
                    "number": trial.candidate.number,
                    "scores": [encoded(score) for score in trial.scores],
                    "feedback": trial.feedback,
                    "suspects": {
                        name: sorted(lines.items()) for name, lines in trial.suspects.items()
                    },
                    "cases": {name: encoded(score) for name, score in trial.cases.items()},
                }
                for trial in list(self._trials.values())
            ],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave. The parameters stay; ``apply(current)`` sets them.

        Raises:
            OptimizerError: the state is none, is damaged, or was made with other options or
                parameters; nothing has changed.
            Rejected: it holds a value that a parameter does not take; nothing has changed.
        """
        if not isinstance(state, Mapping) or state.get("format") != _FORMAT:
            raise OptimizerError(
                f"this is no state of a search (format {_FORMAT}): {show(state, 80)}"
            )
        mine = {"search": type(self).__name__, "options": self._options()}
        theirs = {"search": state.get("search"), "options": state.get("options")}
        if mine != theirs:
            raise OptimizerError(
                f"the state was made by {show(theirs, 300)} and this is {show(mine, 300)}; make "
                "the search with the same options and parameters to go on exactly"
            )
        try:
            trials = {trial.candidate.id: trial for trial in map(self._restored, state["trials"])}
            waiting = [trials[name].candidate for name in state["waiting"]]
            root, made, current = (
                trials[state["root"]].candidate,
                int(state["made"]),
                state["current"],
            )
            if current is not None:
                trials[current]
        except (KeyError, TypeError, AttributeError) as error:
            raise OptimizerError(f"the state is damaged: {type(error).__name__} {error}") from error
        self._trials, self._waiting, self._made = trials, waiting, made
        self._root, self._current = root, current

    def _restored(self, entry: Mapping[str, Any]) -> Trial:
        values = {}
        for name, parameter in self.named_parameters.items():
            values[name] = parameter.check(decoded(entry["values"][name], parameter.initial))
        if identity(values) != entry["id"]:
            raise OptimizerError(f"the state is damaged: candidate {entry['id']} has other values")
        candidate = Candidate(
            entry["id"], values, tuple(entry["parents"]), float(entry["step"]), int(entry["number"])
        )
        scores = tuple(decoded(score, None) for score in entry["scores"])
        blamed = {name: dict(lines) for name, lines in entry.get("suspects", {}).items()}
        cases = {name: decoded(score, None) for name, score in entry.get("cases", {}).items()}
        return Trial(candidate, scores, str(entry["feedback"]), blamed, cases)

    def _options(self) -> dict[str, Any]:
        """The options that a state must have been made with."""
        return {
            "parameters": {name: p.kind.name for name, p in self.named_parameters.items()},
            "seed": self.seed,
            "minimize": self.minimize,
        }

    # Making candidates

    _moving: ClassVar[tuple[str, ...]] = ("_trials", "_waiting", "_made", "_current")
    """The attributes that a step changes."""

    @abstractmethod
    def _refill(self, ranked: list[Trial]) -> None:
        """Put new candidates into `_waiting`, made by `_admitted`; none where none can be found.

        `ranked` are the trials that have a score, the best first.
        """

    def _next(self) -> Candidate | None:
        """The candidate that is asked next; it stays the next until it is asked or told."""
        if not self._waiting:
            self._refill(self._ranked())
        return next(iter(self._waiting), None)

    def paid(self) -> Usage:
        """What was paid for candidates since this was asked last; nothing where no model is asked."""
        return Usage()

    def _admitted(
        self,
        values: Mapping[str, Any],
        parents: tuple[str, ...] = (),
        step: float = 0.0,
    ) -> Candidate:
        """The candidate of these values, made now if there was none."""
        name = identity(values)
        if name not in self._trials:
            kept = {key: self._copied(self.named_parameters[key], v) for key, v in values.items()}
            with _writing:
                if name not in self._trials:
                    candidate = Candidate(name, kept, parents, step, self._made)
                    self._trials[name] = Trial(candidate)
                    self._made += 1
        return self._trials[name].candidate

    def _present_values(self) -> dict[str, Any]:
        return {name: p._data for name, p in self.named_parameters.items()}

    def _values(self, candidate: Candidate) -> dict[Parameter[Any], Any]:
        """A candidate's values for the parameters that may change, copied."""
        return {
            p: self._copied(p, candidate.values[name])
            for name, p in self.named_parameters.items()
            if p.trainable
        }

    def _copied(self, parameter: Parameter[Any], value: Any) -> Any:
        made = parameter.kind.copy(value)
        return made.requires_grad_(value.requires_grad) if is_tensor(value) else made

    def _ranked(self) -> list[Trial]:
        """The trials with a score and no failure, the best first; of equals the newest first.

        Newer equals come first so that a search can drift where scores do not differ.
        """
        told = [t for t in self.history if not t.failed]
        return sorted(told, key=lambda t: (self._fitness(t), t.candidate.number), reverse=True)

    def _fitness(self, trial: Trial) -> float:
        return -trial.score if self.minimize else trial.score

    def _best(self) -> Trial:
        told = [t for t in self.history if not t.failed]
        if not told:
            failures = len(self.history)
            raise OptimizerError(
                "no candidate has a score yet"
                + (f" ({failures} failed)" if failures else "")
                + ": ask(), evaluate and tell(), or run the workflow, backward(output, score), "
                "step()"
            )
        return max(told, key=lambda t: (self._fitness(t), -t.candidate.number))


def _by_name(cases: Mapping[str, float] | Sequence[float]) -> dict[str, float]:
    if not isinstance(cases, Mapping):
        cases = {str(number): score for number, score in enumerate(cases)}
    for name, score in cases.items():
        if not isinstance(score, int | float) or math.isnan(score):
            raise OptimizerError(
                f"cases= takes a number for each case, got {show(score, 40)} for {name!r}"
            )
    return {str(name): float(score) for name, score in cases.items()}
