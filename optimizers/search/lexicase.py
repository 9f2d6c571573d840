"""Choose parents case by case, so that what is best on a few cases is not lost to what is fair on all.

Lexicase selection (L. Spector, "Assessment of problem modality by differential performance of lexicase
selection in genetic programming", GECCO 2012 companion): the cases are looked at in a random order, and
those that are not best on one are dropped. Equal candidates are drawn as one, so that many copies of
one mistake do not crowd out the only repair of another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from random import Random

from optimizers.candidate import Trial

__all__ = ["complementary", "lexicase"]


def lexicase(trials: Sequence[Trial], random: Random) -> Trial:
    """One of the trials, which have `cases`; of those that did the same on every case any.

    A trial that was not told a case stays in question when that case is looked at.

    >>> from optimizers.candidate import Candidate
    >>> trials = [Trial(Candidate.of({"x": n}), cases={"a": n, "b": -n}) for n in (1, 2, 3)]
    >>> {lexicase(trials, Random(seed)).candidate.values["x"] for seed in range(20)}
    {1, 3}
    """
    left = list(trials)
    names = list({name: None for trial in trials for name in trial.cases})
    random.shuffle(names)
    for name in names:
        if len(left) == 1:
            break
        best = max((trial.cases[name] for trial in left if name in trial.cases), default=None)
        if best is not None:
            left = [trial for trial in left if trial.cases.get(name, best) == best]
    if random.random() < 0.5:
        return min(left, key=lambda trial: trial.candidate.number)
    return random.choice(left)


def complementary(
    trials: Mapping[str, Trial], told: Sequence[Trial]
) -> list[tuple[Trial, Trial, Trial]]:
    """Pairs of the trials `told` that were made from one other, each better than it where the other is not.

    Each pair stands behind what it was made from. Either may be worse than that on other cases: half a
    repair often breaks what was right by chance.

    >>> from optimizers.candidate import Candidate
    >>> first = Trial(Candidate.of({"x": 0}), cases={"a": 0, "b": 0, "c": 1})
    >>> made = [Trial(Candidate.of({"x": n}, (first.candidate.id,)), cases={"a": n % 2, "b": n // 2, "c": 0})
    ...         for n in (1, 2, 3)]
    >>> pairs = complementary({first.candidate.id: first}, made)
    >>> [(one.candidate.values["x"], two.candidate.values["x"]) for _, one, two in pairs]
    [(1, 2)]
    """
    gained: dict[str, list[tuple[Trial, set[str]]]] = {}
    for trial in told:
        parent, *others = trial.candidate.parents or ("",)
        if others or parent not in trials:
            continue
        before = trials[parent].cases
        better = {n for n, score in trial.cases.items() if n in before and score > before[n]}
        if better:
            gained.setdefault(parent, []).append((trial, better))
    return [
        (trials[parent], one, two)
        for parent, children in gained.items()
        for (one, mine), (two, yours) in combinations(children, 2)
        if mine - yours and yours - mine
    ]
