"""What the stand-in can do with what it has read: follow rules, find rules, find an expression.

All of it is plain search over the facts at hand, bounded, and the same every time. It is no measure
of what a language model can do.
"""

from __future__ import annotations

import itertools
import operator
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random

__all__ = ["NOTHING", "followed", "induced", "refuted", "rules_of", "synthesised", "written"]

NOTHING = "unknown"
"""The answer where no rule applies."""

_RULE = re.compile(r'"([a-z]+)" means "([a-z]+)"')
_LONGEST = 3
_OPERATIONS: tuple[tuple[str, Callable[[int, int], int]], ...] = (
    ("{} * {}", operator.mul),
    ("{} + {}", operator.add),
    ("{} - {}", operator.sub),
    ("max({}, {})", max),
    ("min({}, {})", min),
)


def rules_of(prompt: str) -> dict[str, str]:
    """The rules that stand in a prompt.

    >>> rules_of('Answer. "sun" means "day"')
    {'sun': 'day'}
    """
    return dict(_RULE.findall(prompt))


def written(opening: str, rules: Mapping[str, str]) -> str:
    """A prompt that opens with `opening` and states rules, a line each."""
    return "\n".join([opening, *(f'"{word}" means "{label}"' for word, label in rules.items())])


def followed(prompt: str, text: str) -> str:
    """What follows from the rules of a prompt: the first rule whose word stands in the text."""
    words = set(re.findall(r"[a-z]+", text))
    return next((label for word, label in rules_of(prompt).items() if word in words), NOTHING)


def refuted(word: str, label: str, facts: Sequence[tuple[str, str]]) -> bool:
    """Whether a fact (a text and its right answer) contradicts a rule."""
    return any(word in text.split() and answer != label for text, answer in facts)


def induced(facts: Sequence[tuple[str, str]]) -> list[tuple[str, str]]:
    """Rules that explain the facts: the certain ones first, then in the order of the facts.

    >>> induced([("red sun", "day"), ("old sun", "day"), ("red moon", "night")])
    [('sun', 'day'), ('moon', 'night')]
    """
    labels: dict[str, set[str]] = defaultdict(set)
    texts: dict[str, list[set[str]]] = defaultdict(list)
    for text, label in facts:
        texts[label].append(set(text.split()))
        for word in text.split():
            labels[word].add(label)
    found: list[tuple[int, int, str, str]] = []
    for label, of_label in texts.items():
        shared = set.intersection(*of_label)
        possible = sorted(word for word in shared if labels[word] == {label})
        if possible:
            guess = Random(f"{label} {possible}").choice(possible)
            found.append((len(possible), len(found), guess, label))
    return [(word, label) for _, _, word, label in sorted(found)]


def synthesised(
    names: Sequence[str], examples: Sequence[tuple[Sequence[int], int]], *, constants: int = 9
) -> str | None:
    """The shortest expression over the arguments that gives every wanted number, or ``None``.

    Expressions have at most three operands, which are arguments and the numbers from 1 to
    `constants`, and the operations + - * max min. Of expressions that give the same on all examples
    only the first is kept (observational equivalence; Udupa et al., "TRANSIT", PLDI 2013).

    >>> synthesised(["x"], [((1,), 6), ((2,), 9), ((4,), 15)])
    '3 * (x + 1)'
    """
    if not examples:
        return None
    wanted = tuple(value for _, value in examples)
    levels: list[list[tuple[tuple[int, ...], str]]] = [[]]
    seen: set[tuple[int, ...]] = set()
    for size in range(1, _LONGEST + 1):
        level: list[tuple[tuple[int, ...], str]] = []
        for values, text in _terms(names, examples, constants, levels, size):
            if values == wanted:
                return text
            if values not in seen:
                seen.add(values)
                level.append((values, text))
        levels.append(level)
    return None


def _terms(
    names: Sequence[str],
    examples: Sequence[tuple[Sequence[int], int]],
    constants: int,
    levels: Sequence[Sequence[tuple[tuple[int, ...], str]]],
    size: int,
) -> Iterator[tuple[tuple[int, ...], str]]:
    """All expressions of `size` operands, from the shorter ones."""
    if size == 1:
        for place, name in enumerate(names):
            yield tuple(given[place] for given, _ in examples), name
        for number in range(1, constants + 1):
            yield (number,) * len(examples), str(number)
        return
    for left in range(1, size):
        pairs = itertools.product(levels[left], levels[size - left])
        for (ours, one), (theirs, other) in pairs:
            for form, operation in _OPERATIONS:
                values = tuple(map(operation, ours, theirs))
                yield values, form.format(*_bracketed(form, one, other))


def _bracketed(form: str, one: str, other: str) -> tuple[str, str]:
    """The operands, in brackets where the operation would bind them otherwise."""
    if form.startswith("m"):
        return one, other
    loose = "*" in form or "-" in form
    return (
        f"({one})" if "*" in form and re.search(r" [+-] ", one) else one,
        f"({other})" if loose and re.search(r" [+-] ", other) else other,
    )
