"""How many small functions the synthesiser writes: `python -m tests.benchmarks.exercises`.

Thirty functions of programming exercises, each with calls that are shown and calls that are kept back.
The list was written before the synthesiser was changed for it, and has some that it cannot write:
those need recursion or a loop with a state.
"""

from __future__ import annotations

import argparse
import inspect
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from optimizers.search import synthesized


@dataclass(frozen=True)
class Exercise:
    """A function to find again, calls that are shown, and calls that are kept back."""

    name: str
    function: Callable[..., Any]
    shown: tuple[tuple[Any, ...], ...]
    kept_back: tuple[tuple[Any, ...], ...]
    constants: tuple[Any, ...] = ()
    """Those that the words of the exercise name."""

    @property
    def names(self) -> list[str]:
        """The names of the parameters."""
        return list(inspect.signature(self.function).parameters)

    @property
    def text(self) -> str:
        """The function without a body."""
        return f"def {self.name}({', '.join(self.names)}):\n    raise NotImplementedError\n"

    def examples(self) -> list[tuple[dict[str, Any], Any]]:
        """The shown calls, as the synthesiser takes them."""
        return [
            (dict(zip(self.names, call, strict=True)), self.function(*call)) for call in self.shown
        ]

    def holds(self, text: str) -> bool:
        """Whether a text gives what is right for the calls that were kept back."""
        scope: dict[str, Any] = {}
        exec(text, scope)
        for call in self.kept_back:
            try:
                if repr(scope[self.name](*call)) != repr(self.function(*call)):
                    return False
            except Exception:
                return False
        return True


def _fibonacci(n: int) -> int:
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a


def _fizzbuzz(n: int) -> str:
    return "FizzBuzz" if n % 15 == 0 else "Fizz" if n % 3 == 0 else "Buzz" if n % 5 == 0 else str(n)


def _run_lengths(s: str) -> list[int]:
    found: list[int] = []
    for i, sign in enumerate(s):
        if i and s[i - 1] == sign:
            found[-1] += 1
        else:
            found.append(1)
    return found


EXERCISES = (
    Exercise("difference", lambda a, b: abs(a - b), ((1, 5), (7, 2), (3, 3)), ((0, 9), (-4, 4))),
    Exercise("is_even", lambda n: n % 2 == 0, ((1,), (2,), (7,), (10,)), ((0,), (-3,), (96,))),
    Exercise("largest", lambda a, b, c: max(a, b, c),
             ((1, 2, 3), (9, 2, 5), (4, 8, 1), (-1, -2, -3)), ((0, 7, 7), (5, 1, 6))),
    Exercise("sign", lambda x: (x > 0) - (x < 0), ((5,), (-3,), (0,), (9,), (-8,)), ((100,), (-1,))),
    Exercise("clamp", lambda x, low, high: max(low, min(x, high)),
             ((5, 1, 9), (0, 1, 9), (12, 1, 9), (3, 4, 8), (9, 2, 6)), ((-4, 0, 3), (7, 7, 8))),
    Exercise("factorial", lambda n: math.prod(range(1, n + 1)),
             ((1,), (3,), (4,), (5,), (0,)), ((2,), (6,), (8,))),
    Exercise("fibonacci", _fibonacci, ((0,), (1,), (2,), (5,), (7,), (9,)), ((3,), (10,))),
    Exercise("sum_of_squares", lambda xs: sum(x * x for x in xs),
             (([1, 2, 3],), ([4],), ([],), ([0, 5],)), (([2, 2],), ([-3, 1],))),
    Exercise("mean", lambda xs: sum(xs) / len(xs), (([1, 2, 3],), ([4],), ([2, 9, 1, 0],)), (([5, 6],),)),
    Exercise("vowels", lambda s: sum(c in "aeiou" for c in s),
             (("banana",), ("xyz",), ("queue",), ("",)), (("education",), ("rhythm",)), ("aeiou",)),
    Exercise("backwards", lambda s: s[::-1], (("abc",), ("",), ("xy",)), (("hello",),)),
    Exercise("palindrome", lambda s: s == s[::-1],
             (("aba",), ("ab",), ("",), ("abba",), ("abca",)), (("racecar",), ("abab",))),
    Exercise("first_word", lambda s: s.split()[0], (("a bc",), ("hello world x",), ("one",)),
             (("red fox",),)),
    Exercise("shout", lambda s: s.strip().upper() + "!", ((" abc",), ("xy ",), ("Q",)), ((" hello ",),),
             ("!",)),
    Exercise("initials", lambda s: "".join(w[0] for w in s.split()),
             (("ada lovelace",), ("x",), ("grace brewster hopper",)), (("alan mathison turing",),)),
    Exercise("second_largest", lambda xs: sorted(xs)[-2],
             (([1, 2, 3],), ([9, 4],), ([5, 8, 6, 7],)), (([10, 30, 20],),)),
    Exercise("unique", lambda xs: list(dict.fromkeys(xs)),
             (([1, 2, 1],), ([3, 3, 3],), ([],), ([2, 1, 2, 1],)), (([5, 4, 5, 6],),)),
    Exercise("flatten", lambda xss: [x for xs in xss for x in xs],
             (([[1], [2, 3]],), ([[]],), ([[4, 5], [6]],)), (([[7], [8], [9]],),)),
    Exercise("evens", lambda xs: [x for x in xs if x % 2 == 0],
             (([1, 2, 3, 4],), ([5],), ([],), ([6, 8],)), (([0, 7, 10],),)),
    Exercise("squares", lambda n: [i * i for i in range(n)], ((0,), (1,), (3,), (4,)), ((5,), (2,))),
    Exercise("occurrences", lambda xs, x: xs.count(x),
             (([1, 2, 1], 1), ([1, 2], 3), ([], 1), ([4, 4, 4], 4)), (([5, 6, 5, 5], 5),)),
    Exercise("leap", lambda year: year % 4 == 0 and (year % 100 != 0 or year % 400 == 0),
             ((2000,), (1900,), (2004,), (2001,), (1600,), (2100,), (1996,)), ((2400,), (1800,), (2023,)),
             (4, 100, 400)),
    Exercise("fahrenheit", lambda c: c * 9 / 5 + 32, ((0,), (100,), (37,), (-40,)), ((20,), (15,)),
             (9, 5, 32)),
    Exercise("fizzbuzz", _fizzbuzz, tuple((n,) for n in range(1, 16)), ((18,), (20,), (30,), (31,)),
             (3, 5, "Fizz", "Buzz")),
    Exercise("digit_sum", lambda n: sum(int(d) for d in str(n)), ((7,), (123,), (90,), (505,)),
             ((9999,), (10,))),
    Exercise("is_sorted", lambda xs: xs == sorted(xs),
             (([1, 2],), ([2, 1],), ([],), ([1, 3, 2],)), (([1, 1, 4],), ([9, 8],))),
    Exercise("longest_word", lambda words: max(words, key=len),
             ((["a", "bcd", "ef"],), (["abc", "de"],), (["x"],)), ((["hi", "there", "you"],),)),
    Exercise("dot", lambda a, b: sum(x * y for x, y in zip(a, b, strict=True)),
             (([1, 2], [3, 4]), ([5], [6]), ([], []), ([1, 0, 2], [7, 8, 9])), (([2, 2], [3, 3]),)),
    Exercise("is_prime", lambda n: n > 1 and all(n % d for d in range(2, n)),
             ((1,), (2,), (3,), (4,), (5,), (9,), (11,), (15,), (0,)), ((7,), (21,), (13,), (25,))),
    Exercise("run_lengths", _run_lengths, (("aab",), ("abb",), ("",), ("aaa",)), (("abcc",),)),
)  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--most", type=int, default=500_000, help="expressions tried for each")
    options = parser.parse_args(arguments)
    found = held = 0
    for exercise in EXERCISES:
        began = time.perf_counter()
        text = synthesized(
            exercise.text, exercise.examples(), constants=exercise.constants, most=options.most
        )
        seconds = time.perf_counter() - began
        right = text is not None and exercise.holds(text)
        found, held = found + (text is not None), held + right
        said = "-" if text is None else text.split("\n", 1)[1].strip().removeprefix("return ")
        verdict = "right" if right else "fits" if text else "none"
        print(f"{exercise.name:16}{verdict:7}{seconds:6.1f} s  {said}", flush=True)
    print(
        f"{len(EXERCISES)} functions: {held} right on what was kept back, "
        f"{found - held} only on what was shown"
    )


if __name__ == "__main__":
    main()
