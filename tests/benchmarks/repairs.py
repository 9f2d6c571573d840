"""How often functions with two mistakes are mended: `python -m tests.benchmarks.repairs`.

Every function was written with two mistakes before any search was tried on it. A search is told, for each
candidate, how many cases pass, which cases these are, and which lines are to blame. It has mended a
function when all cases pass.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import FrameType
from typing import Any

from optimizers import Evolve
from optimizers.localisation import blamed_lines
from tracegraph.kinds import KINDS
from tracegraph.parameter import Parameter

MOST_LINES, MOST_BITS, LONGEST = 600, 200, 1_000
"""A case that runs more lines fails, and one whose variables become larger or longer."""


@dataclass(frozen=True)
class Subject:
    """A function with two mistakes, and calls with what is right."""

    name: str
    text: str
    right: Callable[..., Any]
    calls: tuple[tuple[Any, ...], ...]

    @cached_property
    def wanted(self) -> list[Any]:
        """What each call must give."""
        return [self.right(*call) for call in self.calls]

    def tried(self, text: str) -> tuple[list[float], list[tuple[set[int], bool]]]:
        """Which calls are right, and the lines that each ran."""
        scope: dict[str, Any] = {}
        exec(compile(text, "<subject>", "exec"), scope)
        ran = [run_lines(scope[self.name], call) for call in self.calls]
        right = [
            repr(result) == repr(wanted)
            for (result, _), wanted in zip(ran, self.wanted, strict=True)
        ]
        spectrum = [(lines, good) for (_, lines), good in zip(ran, right, strict=True)]
        return [float(good) for good in right], spectrum


def run_lines(function: Callable[..., Any], call: tuple[Any, ...]) -> tuple[Any, set[int]]:
    """What a call gives, or its exception, and the lines of the text that it ran."""
    lines: set[int] = set()
    count = 0

    def step(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        if frame.f_code.co_filename != "<subject>":
            return None
        if event == "line":
            lines.add(frame.f_lineno)
            count += 1
            if count > MOST_LINES or any(map(_grown, frame.f_locals.values())):
                raise TimeoutError("it runs too long")
        return step

    sys.settrace(step)
    try:
        result = function(*(list(arg) if isinstance(arg, list) else arg for arg in call))
    except Exception as error:
        result = type(error)
    finally:
        sys.settrace(None)
    return result, lines


def _grown(value: Any) -> bool:
    if isinstance(value, int):
        return value.bit_length() > MOST_BITS
    return isinstance(value, (str, list)) and len(value) > LONGEST


def _digits(n: int) -> int:
    return sum(int(d) for d in str(abs(n)))


def _grade(points: int, bonus: bool) -> str:
    points += 5 if bonus else 0
    return "A" if points >= 90 else "B" if points >= 75 else "C" if points >= 50 else "F"


def _leap(year: int) -> bool:
    return year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)


def _longest(words: list[str]) -> str:
    return max(words, key=len, default="")


def _runs(text: str) -> list[tuple[str, int]]:
    found: list[tuple[str, int]] = []
    for sign in text:
        if found and found[-1][0] == sign:
            found[-1] = (sign, found[-1][1] + 1)
        else:
            found.append((sign, 1))
    return found


SUBJECTS = (
    Subject(
        "middle",
        """def middle(x, y, z):
    found = z
    if y < z:
        if x < y:
            found = x
        elif x < z:
            found = x
    else:
        if x > y:
            found = y
        elif x > z:
            found = z
    return found
""",
        lambda x, y, z: sorted((x, y, z))[1],
        ((3, 3, 5), (1, 2, 3), (3, 2, 1), (5, 5, 5), (5, 3, 4), (2, 1, 3), (7, 5, 6), (9, 1, 5),
         (4, 9, 1), (5, 8, 2), (1, 9, 5)),
    ),
    Subject(
        "grade",
        """def grade(points, bonus):
    if bonus:
        points = points - 5
    if points >= 90:
        return 'A'
    if points >= 75:
        return 'B'
    if points >= 75:
        return 'C'
    return 'F'
""",
        _grade,
        ((95, False), (90, False), (89, False), (75, False), (74, False), (50, False), (49, False),
         (86, True), (71, True), (46, True), (84, True), (60, False)),
    ),
    Subject(
        "leap",
        """def leap(year):
    if year % 400 == 0:
        return False
    if year % 100 == 0:
        return False
    return year % 4 == 1
""",
        _leap,
        ((2000,), (1900,), (2004,), (2001,), (1600,), (2100,), (1996,), (1999,), (2400,), (2013,)),
    ),
    Subject(
        "digits",
        """def digits(n):
    total = 1
    if n < 0:
        n = n
    while n > 0:
        total = total + n % 10
        n = n // 10
    return total
""",
        _digits,
        ((0,), (7,), (10,), (123,), (-5,), (-41,), (999,), (-100,), (80,)),
    ),
    Subject(
        "longest",
        """def longest(words):
    best = ''
    for word in words:
        if len(word) < len(best):
            best = best
    return best
""",
        _longest,
        ((["a"],), (["a", "bcd", "ef"],), (["abc", "de"],), ([],), (["x", "yy", "zz"],), (["q", "w"],)),
    ),
    Subject(
        "runs",
        """def runs(text):
    found = []
    count = 1
    for i in range(len(text)):
        if i + 1 < len(text) and text[i + 1] == text[i]:
            count = count + 2
        else:
            found.append((text[i], count))
            count = 0
    return found
""",
        _runs,
        (("",), ("a",), ("aa",), ("ab",), ("aab",), ("abb",), ("aaabcc",), ("abab",)),
    ),
)  # fmt: skip


def mended(subject: Subject, seed: int, *, most: int, by_case: bool = True) -> int | None:
    """How many candidates it took until all cases pass; None where `most` were not enough."""
    parameter = Parameter(subject.text, name=subject.name, kind=KINDS["code"])
    optimizer = Evolve([parameter], seed=seed)
    for number in range(1, most + 1):
        (candidate,) = optimizer.ask()
        text = candidate.values[subject.name]
        cases, spectrum = subject.tried(text)
        if all(cases):
            return number
        told: dict[str, Any] = {"cases": cases} if by_case else {}
        blame = {subject.name: blamed_lines(text, spectrum)}
        optimizer.tell(candidate, sum(cases), suspects=blame, **told)
    return None


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seeds", type=int, default=12, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--most", type=int, default=600, help="candidates for each")
    parser.add_argument("--score-only", action="store_true", help="do not tell the cases")
    parser.add_argument("--only", nargs="*", help="names of functions")
    options = parser.parse_args(arguments)
    total = 0
    subjects = [subject for subject in SUBJECTS if subject.name in (options.only or subject.name)]
    for subject in subjects:
        began = time.perf_counter()
        found = [
            mended(subject, seed, most=options.most, by_case=not options.score_only)
            for seed in range(options.first, options.first + options.seeds)
        ]
        took = sorted(n for n in found if n is not None)
        middle = took[len(took) // 2] if took else "-"
        seconds = time.perf_counter() - began
        total += len(took)
        print(
            f"{subject.name:10}{len(took):4} of {options.seeds}, median {middle:>5}  {seconds:5.0f} s",
            flush=True,
        )
    print(f"{'all':10}{total:4} of {options.seeds * len(subjects)}")


if __name__ == "__main__":
    main()
