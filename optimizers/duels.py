"""Duels: a guide that compares each output with what the present values gave for the same example.

No right answers are needed. The scores only say who of two is better, so they belong to the values that
were present when they were given: a training forgets them with every step (`relative`). Compared with
outputs that stay the same, any number of candidates have an order.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, final

from optimizers.candidate import identity
from tracegraph.errors import OptimizerError
from tracegraph.feedback import Feedback, Preference, Remark, Score
from tracegraph.forking import new_lock
from tracegraph.kinds import show
from tracegraph.parameter import Parameter
from tracegraph.recorder import current

__all__ = ["Duels", "Judge", "preferred"]

Judge = Callable[[Any, Any, Any], float]
"""``judge(example, first, second)``: above 0 if the first is better, below 0 if the second is, else 0."""


def preferred(judge: Judge, example: Any, first: Any, second: Any) -> float:
    """1 where the first output is better, -1 where the second is, 0 for a draw; asked in both orders.

    A win in one order alone counts as its half, and a judge that prefers a place comes to 0.

    >>> preferred(lambda example, a, b: len(a) - len(b), "", "longer", "short")
    1.0
    >>> preferred(lambda example, a, b: 1, "", "whatever", "stands first")
    0.0
    """
    return (_sign(judge(example, first, second)) - _sign(judge(example, second, first))) / 2


@final
class Duels:
    """A guide for `fit` that gives 1, 0.5, 0, -0.5 or -1 for a duel with the present values' output.

    What is recorded comes from the present values, and is a draw; all else comes from a candidate. On
    validation examples the opponents are the best values so far.

    Args:
        parameters: of the workflow, by name.
        judge: see `Judge`.
        reference: the output to compare with, of an example, in place of the present values' one.

    Attributes:
        relative: whether scores hold between two candidates only, so that no evaluation may be kept
            for another comparison.
        remembers: that it must see each recorded output, whatever is known of its score.
    """

    remembers = True

    def __init__(
        self,
        parameters: Mapping[str, Parameter[Any]],
        judge: Judge,
        reference: Callable[[Any], Any] | None = None,
    ) -> None:
        self._parameters, self._judge, self._reference = dict(parameters), judge, reference
        self.relative = reference is None
        self._present: str | None = ""
        self._outputs: dict[int, tuple[Any, Any]] = {}
        self._recorded: list[tuple[Any, Any]] = []
        self._lock = new_lock()

    def __deepcopy__(self, memo: dict[int, Any]) -> Duels:
        """A guide for copied parameters, which has seen no output."""
        given = self._parameters, self._judge, self._reference
        return Duels(*copy.deepcopy(given, memo))

    def __call__(self, example: Any, output: Any) -> list[Feedback]:
        """The score, and the preference in words.

        Raises:
            OptimizerError: the judge gave no number.
        """
        whose = identity({name: p.data for name, p in self._parameters.items()})
        policy = current()
        recorded = policy is None or policy.active
        with self._lock:
            if recorded and whose != self._present:
                self._present, self._outputs, self._recorded = whose, {}, []
            if self._present is None:
                self._present = whose
            if whose == self._present:
                self._outputs[id(example)] = (example, output)  # which keeps the id its own
                if recorded:
                    self._recorded.append((example, output))
                if self._reference is None:
                    return [Score(0.0)]
            known = self._outputs.get(id(example))
        if self._reference is not None:
            known = example, self._reference(example)
        if known is None:
            return [Score(1.0), Remark("with the present values the run gave no output")]
        score = preferred(self._judge, example, output, known[1])
        return [Score(score), Preference(known[1], better=score > 0)] if score else [Score(0.0)]

    @contextmanager
    def against(self, run: Callable[[], Any]) -> Iterator[None]:
        """A block in which outputs are compared with those of what `run` runs first, unrecorded."""
        present = self._present, self._outputs
        self._present, self._outputs = None, {}
        try:
            run()
            self._present = self._present or ""  # whoever failed on every example is nobody
            yield
        finally:
            self._present, self._outputs = present

    def take(self) -> list[tuple[Any, Any]]:
        """The examples that were recorded since the last call, with their outputs, in a fixed order."""
        with self._lock:
            taken, self._recorded = self._recorded, []
        return sorted(taken, key=lambda pair: show(pair[0], 2_000))


def _sign(value: Any) -> int:
    try:
        return (value > 0) - (value < 0) if value == value else int(value)
    except (TypeError, ValueError) as error:
        raise OptimizerError(
            f"the judge gave {show(value, 60)}; it must give a number: above 0 if the first is better, "
            "below 0 if the second is, 0 for neither"
        ) from error
