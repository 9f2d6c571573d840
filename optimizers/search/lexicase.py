"""Choose parents case by case, so that what is best on a few cases is not lost to what is fair on all.

Lexicase selection (L. Spector, "Assessment of problem modality by differential performance of lexicase
selection in genetic programming", GECCO 2012 companion): the cases are looked at in a random order, and
those that are not best on one are dropped. Equal candidates are drawn as one, so that many copies of
one mistake do not crowd out the only repair of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from optimizers.candidate import Trial

__all__ = ["lexicase"]


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
