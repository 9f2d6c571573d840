"""How alike two texts are, and how to choose few of many by it; no model and no vocabulary."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["covering", "likeness", "spread"]

_GRAM = 3


def likeness(one: str, other: str) -> float:
    """The share of three-letter pieces that two texts have in common, 0 to 1 (Jaccard).

    >>> likeness("the cat", "the cat"), likeness("abc", "xyz")
    (1.0, 0.0)
    """
    first, second = _pieces(one), _pieces(other)
    return len(first & second) / len(first | second)


def covering(texts: Sequence[str], wanted: Sequence[str], k: int, *, start: int = 0) -> list[int]:
    """Which `k` of some texts are together the most alike to the wanted ones.

    Greedy maximization of how alike each wanted text is to its nearest chosen one, which reaches at least
    1 - 1/e of the best possible (Nemhauser, Wolsey and Fisher, 1978). `start` chooses among further
    choices: the best `start` first ones are passed over.
    """
    like = [[likeness(text, other) for other in wanted] for text in texts]
    chosen: list[int] = []
    covered = [0.0] * len(wanted)
    for turn in range(min(k, len(texts))):
        rest = [i for i in range(len(texts)) if i not in chosen]
        gain = {i: sum(max(a, b) - b for a, b in zip(like[i], covered, strict=True)) for i in rest}
        ranked = sorted(rest, key=lambda i: (-gain[i], i))
        best = ranked[start % len(ranked) if turn == 0 else 0]
        chosen.append(best)
        covered = [max(a, b) for a, b in zip(like[best], covered, strict=True)]
    return chosen


def spread(texts: Sequence[str], k: int, *, start: int = 0) -> list[int]:
    """Which `k` of some texts are least alike, beginning with that at `start`.

    Farthest-first traversal: the two nearest of the chosen are at least half as far apart as in the best
    possible choice (Gonzalez, 1985; the Jaccard distance is a metric).
    """
    if not texts:
        return []
    chosen = [start % len(texts)]
    near = [likeness(text, texts[chosen[0]]) for text in texts]
    while len(chosen) < min(k, len(texts)):
        rest = [i for i in range(len(texts)) if i not in chosen]
        best = min(rest, key=lambda i: (near[i], i))
        chosen.append(best)
        near = [max(n, likeness(text, texts[best])) for n, text in zip(near, texts, strict=True)]
    return chosen


def _pieces(text: str) -> frozenset[str]:
    padded = f"  {text.casefold()} "
    return frozenset(padded[i : i + _GRAM] for i in range(len(padded) - _GRAM + 1))
