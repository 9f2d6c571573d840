"""Several judges as one guide, and judges that compare.

A search for candidates finds the errors of its judge: the more candidates, the more likely the one that
wins is one that the judge is wrong about. Sources: Coste, Anwar, Kirk and Krueger, "Reward Model Ensembles
Help Mitigate Overoptimization", 2023 (arXiv 2310.02743), for the worst case and for the mean less the
variance; Zheng and others, "Judging LLM-as-a-Judge", 2023 (arXiv 2306.05685), for asking in both orders.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Literal, final

from optimizers.base import collect
from optimizers.duels import Duels, preferred
from optimizers.training.guide import Guide, judge
from tracegraph.errors import OptimizerError
from tracegraph.feedback import Feedback, Preference, Score
from tracegraph.kinds import show

__all__ = ["Compare", "Ensemble", "Pairwise"]

Compare = Callable[[Any, Any, Any], float]
"""``compare(example, first, second)``: above 0 if the first is better, below 0 if the second is, 0 for
neither."""

Rule = Literal["mean", "worst", "variance"]


@final
class Ensemble:
    """One guide of several judges.

    The score is their mean, the ``"worst"`` one, or (``"variance"``) the mean less `penalty` times the
    variance between them. What the judges say in words is passed on.

    Args:
        judges: at least two guides, each giving a number on the same scale.
        rule: how their scores become one.
        penalty: of the variance, at least 0.

    >>> kind, strict = lambda e, o: 1.0, lambda e, o: (0.0, "no source is named")
    >>> Ensemble([kind, strict])("question", "answer")
    (0.0, 'no source is named')
    >>> Ensemble([kind, strict], rule="variance", penalty=0.5)("question", "answer")[0]
    0.375
    """

    def __init__(
        self, judges: Sequence[Guide], rule: Rule = "worst", *, penalty: float = 1.0
    ) -> None:
        self.judges = list(judges)
        if len(self.judges) < 2 or not all(map(callable, self.judges)):
            raise OptimizerError(
                f"an ensemble has two judges or more, each callable, got {show(judges, 80)}"
            )
        if rule not in ("mean", "worst", "variance"):
            raise OptimizerError(f"rule is 'mean', 'worst' or 'variance', got {rule!r}")
        if not (isinstance(penalty, (int, float)) and math.isfinite(penalty) and penalty >= 0):
            raise OptimizerError(f"penalty must be a finite number from 0, got {penalty!r}")
        self.rule, self.penalty = rule, penalty
        self.relative = any(getattr(one, "relative", False) for one in self.judges)
        self.remembers = any(getattr(one, "remembers", self.relative) for one in self.judges)

    def __call__(self, example: Any, output: Any) -> tuple[float, str]:
        """The score and the words of all judges.

        Raises:
            BadVerdict: one of them raised, or gave no score.
        """
        verdicts = [judge(one, example, output) for one in self.judges]
        said = dict.fromkeys(verdict.text for verdict in verdicts if verdict.text)
        return self.joined([verdict.score for verdict in verdicts]), "\n".join(said)

    def joined(self, scores: Sequence[float]) -> float:
        """The one score that several become."""
        if self.rule == "worst":
            return min(scores)
        mean = math.fsum(scores) / len(scores)
        if self.rule == "mean":
            return mean
        variance = math.fsum((score - mean) ** 2 for score in scores) / len(scores)
        return mean - self.penalty * variance


@final
class Pairwise:
    """A guide that compares each output with a reference, in both orders.

    A win counts 1, a draw 0, a loss -1; a win in one order alone counts as its half. One comparison
    per example with a fixed reference orders any number of candidates. Against the present values there
    is no order, only who of two is better: a training then forgets scores with every comparison, takes
    no ``search=`` that compares several, and finds the best on ``validation=`` by duels with the best
    until then. ``acceptance=Paired(alpha=1)`` is a plain majority of the examples.

    Args:
        compare: see `Compare`; `ModelCompares` asks a model, `PersonCompares` a person.
        reference: the output to compare with, of an example; by default the second of a pair
            (input, expected).
        present: in place of a reference, the parameters of the workflow: outputs are compared with what
            their present values gave for the same example.

    Raises:
        OptimizerError: both a reference and parameters are given, or something is not callable.

    >>> longer = Pairwise(lambda example, a, b: len(a) - len(b), reference=lambda example: "hello")
    >>> longer("greet", "good day")
    [Score('1.0'), Preference("better than 'hello'")]
    """

    def __init__(
        self,
        compare: Compare,
        reference: Callable[[Any], Any] | None = None,
        *,
        present: Any = None,
    ) -> None:
        for name, given in (("compare", compare), ("reference", reference or compare)):
            if not callable(given):
                raise OptimizerError(f"{name} must be callable, got {show(given, 80)}")
        if reference is not None and present is not None:
            raise OptimizerError("Pairwise compares with a reference or with the present values")
        self.compare, self.reference = compare, reference or _expected
        self.relative = present is not None
        self._duels = None if present is None else Duels(collect(present), compare)
        if self._duels is not None:
            self.against = self._duels.against

    def __call__(self, example: Any, output: Any) -> list[Feedback]:
        """A score, and the preference in words."""
        if self._duels is not None:
            return self._duels(example, output)
        other = self.reference(example)
        score = preferred(self.compare, example, output, other)
        if not score:
            return [Score(0.0)]
        return [Score(score), Preference(other, better=score > 0)]


def _expected(example: Any) -> Any:
    if not isinstance(example, tuple) or len(example) != 2:
        raise OptimizerError(
            f"the example {show(example, 80)} is no pair (input, expected); give Pairwise a "
            "reference=function that says what its outputs are compared with"
        )
    return example[1]
