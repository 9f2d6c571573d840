"""Write a small pure function from examples, smallest expressions first, without a model.

Bottom-up enumeration up to observational equivalence (A. Albarghouthi, S. Gulwani and Z. Kincaid,
"Recursive program synthesis", CAV 2013): expressions are built from smaller ones and kept when their
values on the examples are new, so that of all ways to say the same only the shortest is pursued. Where
no single expression fits, a condition chooses between two that fit a part of the examples each (R. Alur,
A. Radhakrishna and A. Udupa, "Scaling enumerative program synthesis via divide and conquer", TACAS
2017). Only the operations of the table below are ever run, never a text.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from optimizers.search.decisions import decided
from optimizers.search.header import Example, Header, tidied
from optimizers.search.pool import Budget, Found, Pool
from tracegraph.errors import OptimizerError

__all__ = ["Example", "expression_for", "seeds_of", "synthesized"]

_MOST: Final = 500_000
_KEPT: Final = 60_000
_DEEPEST: Final = 14
_SIZE_OF_CHOICE: Final = 1.75  # of a choice, relative to the expressions that were tried
_SIZE_PER_EXAMPLE: Final = 2.3  # many examples justify a larger one
_SIZE_OF_MANY: Final = 2.5  # which is still no larger than this, relative to what was tried
_MANY: Final = 6
_LISTED: Final = (int, float, str)


def synthesized(
    text: str, examples: Iterable[Example], *, constants: Iterable[Any] = (), most: int = _MOST
) -> str | None:
    """The function of `text` with a body that fits all the examples; None where none was found.

    Its name, parameters and documentation stay. No text is run, neither `text` nor what is found.

    Args:
        text: Python that defines one function.
        examples: the arguments of calls by name, and what they must return. Few examples are fitted by
            many functions: keep some back, and see whether what was found fits them too.
        constants: values to build from, besides the function's own, 0, 1 and 2.
        most: how many expressions are tried before giving up.

    Raises:
        OptimizerError: `text` is not one plain function, there are no examples, or an example's
            arguments are none of its parameters.

    >>> shipping = "def shipping(weight, express):\\n    return 5"
    >>> known = [({"weight": w, "express": e}, 4 + 2 * w if e else 4) for w in (1, 3) for e in (True, False)]
    >>> print(synthesized(shipping, known, constants=[4]))
    def shipping(weight, express):
        return weight + (weight + 4) if express else 4
    """
    header = Header(text)
    known = header.checked(examples)
    found = expression_for(
        known, constants=[*constants, *header.constants], most=most, unpacked=header.unpacked
    )
    return None if found is None else header.returning(found)


def expression_for(
    examples: Iterable[Example],
    *,
    constants: Iterable[Any] = (),
    most: int = _MOST,
    unpacked: Mapping[int, str] | None = None,
) -> str | None:
    """The smallest expression that was found to fit all the examples, or None; it may use `math`.

    Args:
        examples: as for `synthesized`.
        constants: values to build from, besides 0, 1 and 2.
        most: how many expressions are tried before giving up.
        unpacked: the names for the parts of tuples that are gone through, by how many they are.

    >>> expression_for([({"x": 3}, 9), ({"x": 4}, 16)])
    'x * x'
    """
    known = list(examples)
    wanted = tuple(result for _, result in known)
    seeds = seeds_of(known, constants)
    pool = Pool(seeds, Budget(most), most=_KEPT, wanted=wanted, unpacked=unpacked)
    for value in (True, False):
        pool.leaves.append(Found(repr(value), True, 1, (value,) * len(known)))
    enough = _SIZE_PER_EXAMPLE * len(known) if len(known) >= _MANY else 0
    for size in range(2, _DEEPEST):
        pool.grow(size)
        bound = max(_SIZE_OF_CHOICE * size, min(enough, _SIZE_OF_MANY * size))
        found = pool.answer.text if pool.answer is not None else decided(pool, wanted, int(bound))
        if found or pool.full:
            return tidied(found) if found else None
    return None


def seeds_of(known: list[Example], constants: Iterable[Any]) -> list[tuple[str, list[Any]]]:
    """What expressions begin with: the parameters, constants, and parameters of one type as a list.

    Raises:
        OptimizerError: there are no examples.
    """
    if not known:
        raise OptimizerError("a function is written from examples, and there are none")
    wanted = [result for _, result in known]
    seeds: list[tuple[str, list[Any]]] = [
        (name, [arguments[name] for arguments, _ in known])
        for name in known[0][0]
        if all(name in arguments for arguments, _ in known)
    ]
    for kind in _LISTED:
        alike = [seed for seed in seeds if all(type(value) is kind for value in seed[1])]
        if len(alike) > 2:
            listed = [[*row] for row in zip(*(values for _, values in alike), strict=True)]
            seeds.append((f"[{', '.join(name for name, _ in alike)}]", listed))
    twice = [v for n, v in enumerate(wanted) if type(v) in (int, str) and v in wanted[:n]]
    texts = ("", " ") if "'" in repr(known) else ()
    for value in (*constants, 0, 1, 2, *texts, *twice):
        seeds.append((repr(value), [value] * len(known)))
    return seeds
