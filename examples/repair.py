"""Repair a function that fails some of its cases, and write another from examples; no key needed.

    python examples/repair.py                  # some seconds
    python examples/repair.py --blind          # the same search without looking at failing lines
    python examples/repair.py --by synthesise  # written anew from its cases

The function `middle` has a mistake. Each of its cases is run and recorded with the lines that it
went through; lines that failing cases run, and passing ones do not, are changed first. `Evolve` tries
such changes, made of the function's own expressions, until all cases pass. Or its body is
written anew from the cases alone, without a look at what was there.

`shipping` has no body: it is written from what it must return for six parcels, and tried on
others that were kept back.
"""

from __future__ import annotations

import argparse
from typing import Any

from rich.console import Console

import tracegraph as tg
from optimizers import Evolve
from optimizers.search import suspects, synthesized


def middle(x: int, y: int, z: int) -> int:
    """The middle one of three numbers."""
    found = z
    if y < z:
        if x < y:  # noqa: SIM114
            found = y
        elif x < z:
            found = y
    else:
        if x > y:
            found = y
        elif x > z:
            found = x
    return found


CASES = [
    ((3, 3, 5), 3), ((1, 2, 3), 2), ((3, 2, 1), 2), ((5, 5, 5), 5), ((5, 3, 4), 4), ((2, 1, 3), 2),
    ((7, 5, 6), 6), ((9, 1, 5), 5),
]  # fmt: skip


def shipping(weight: int, express: bool) -> int:
    """The price of a parcel; nobody has written it yet."""
    raise NotImplementedError


PARCELS = [(1, False), (3, False), (7, False), (1, True), (3, True), (6, True)]
KEPT_BACK = [(2, False), (9, False), (2, True), (10, True)]


def price(weight: int, express: bool) -> int:
    """What the parcels did cost."""
    return 4 + 2 * weight if express else 4


def attempt(function: Any) -> tuple[list[tuple[Any, bool]], list[str]]:
    """Run every case: the recorded outputs with whether they are right, and the failures in words."""
    runs, failures = [], []
    for numbers, wanted in CASES:
        try:
            output = function(*numbers)
        except Exception as error:  # changed code may do anything; then the case has failed
            output = tg.failed_node(error)
            said = f"raised {type(error).__name__}"
        else:
            said = f"gave {output.data!r}"
        right = output is not None and output.failure is None and output.data == wanted
        if output is not None:
            runs.append((output, right))
        if not right:
            failures.append(f"middle{numbers} {said}, not {wanted!r}")
    return runs, failures


def repair(console: Console, *, seed: int, steps: int, blind: bool = False) -> int:
    """Change `middle` until all cases pass; gives the number of candidates that were tried, or -1."""
    function: Any = tg.bundle(trainable=True, trust=True, profile=True)(middle)
    optimizer = Evolve(function, seed=seed)
    for step in range(1, steps + 1):
        (candidate,) = optimizer.ask()
        optimizer.apply(candidate)
        runs, failures = attempt(function)
        blamed = {} if blind else suspects(runs, optimizer.named_parameters)
        if step == 1:
            _show_lines(console, function, failures, blamed)
        passed = len(CASES) - len(failures)
        optimizer.tell(candidate, passed, feedback="\n".join(failures[:3]), suspects=blamed)
        if passed == len(CASES):
            optimizer.finish()
            console.print(f"\nall {passed} cases pass after {step} candidates:\n", highlight=False)
            console.print(function.parameter.data.rstrip(), highlight=False, markup=False)
            return step
    console.print(f"\nbest of {steps}: {optimizer.best_score:g} of {len(CASES)} cases pass")
    return -1


def rewrite(console: Console) -> int:
    """Write `middle` anew from its cases; gives how many texts were tried, or -1 where none fits."""
    function: Any = tg.bundle(trainable=True, trust=True)(middle)
    cases = [(dict(zip("xyz", numbers, strict=True)), wanted) for numbers, wanted in CASES]
    text = synthesized(function.parameter.data, cases)
    if text is None:
        console.print("no small function fits the cases")
        return -1
    function.parameter.assign(text, origin="optimizer")
    _, failures = attempt(function)
    console.print(
        f"\n{len(CASES) - len(failures)} of {len(CASES)} cases pass:\n\n{text}",
        highlight=False,
        markup=False,
    )
    return -1 if failures else 1


def _show_lines(
    console: Console, function: Any, failures: list[str], blamed: dict[str, dict[int, float]]
) -> None:
    """The first failures, and the text with the suspicion of each line."""
    console.print(f"{len(failures)} of {len(CASES)} cases fail, the first: {failures[0]}")
    lines = next(iter(blamed.values()), {})
    for number, line in enumerate(function.parameter.data.rstrip().splitlines(), 1):
        mark = f"{lines[number]:4.2f}" if number in lines else "    "
        console.print(f"{mark} | {line}", highlight=False, markup=False)


def write(console: Console) -> str | None:
    """Write `shipping` from its examples, and try it on those that were kept back."""
    known = [
        ({"weight": weight, "express": express}, price(weight, express))
        for weight, express in PARCELS
    ]
    function: Any = tg.bundle(trainable=True)(shipping)
    text = synthesized(function.parameter.data, known)
    console.print(
        f"\nshipping, from {len(known)} examples:\n\n{text}", highlight=False, markup=False
    )
    if text is not None:
        function.parameter.assign(text)
        right = sum(function(*parcel).data == price(*parcel) for parcel in KEPT_BACK)
        console.print(f"\nright for {right} of {len(KEPT_BACK)} parcels that were kept back")
    return text


def main(arguments: list[str] | None = None) -> int:
    """Run the example; gives the number of candidates that the repair took, or -1."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seed", type=int, default=0, help="of the search")
    parser.add_argument("--steps", type=int, default=600, help="candidates at most")
    parser.add_argument(
        "--by", choices=["evolve", "synthesise"], default="evolve", help="how `middle` is mended"
    )
    parser.add_argument("--blind", action="store_true", help="do not look at failing lines")
    options = parser.parse_args(arguments)
    console = Console()
    if options.by == "synthesise":
        tried = rewrite(console)
    else:
        tried = repair(console, seed=options.seed, steps=options.steps, blind=options.blind)
    write(console)
    return tried


if __name__ == "__main__":
    main()
