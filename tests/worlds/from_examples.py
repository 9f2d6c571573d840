"""A world of code: a function is to be written from examples of what it should give.

The optimizer model is a synthesiser over what the problem shows: the calls with their arguments, and
for each what was wanted. It finds the shortest expression that agrees with all of them. With few
examples that is often a wrong one, so what was said before has to come again.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from random import Random
from typing import Any

import tracegraph as tg
from optimizers import OptoPrime, fit
from optimizers.demo.learning import synthesised
from optimizers.demo.reading import Reading, read
from optimizers.training.acceptance import Paired
from tests.worlds.world import Case, World

__all__ = ["FromExamples"]

_WANTED = re.compile(r"should be (-?\d+)")
_RETURN = re.compile(r"\breturn .*")
_FORMS = (
    "max({0} * {1}, {2})",
    "min({0} * {1}, {2})",
    "max({0} + {1}, {2})",
    "({0} + {1}) * {2}",
    "{0} * {2} + {1}",
)


class FromExamples(World):
    """A function of two numbers, drawn by the seed; see the module."""

    def __init__(self, seed: int, *, masked: bool = False, sabotage: float = 0.0) -> None:
        super().__init__(seed, masked=masked, sabotage=sabotage)
        random = Random(f"from examples {seed}")
        one, two = random.sample("xy", 2)
        self.hidden = random.choice(_FORMS).format(one, random.randint(2, 9), two)
        self.train, self.test = ([self._case(random) for _ in range(size)] for size in (30, 100))

        @tg.bundle(trainable=True)
        def combine(x: int, y: int) -> int:
            """Combine two numbers."""
            return -1000

        self.combine = combine
        (self.code,) = combine.parameters()

    def _case(self, random: Random) -> Case:
        x, y = random.randint(1, 60), random.randint(1, 60)
        wanted = eval(self.hidden, {"x": x, "y": y, "max": max, "min": min})
        return Case(f"{x} {y}", wanted)

    def run(self, case: Case) -> Any:
        """The workflow: one call of the function."""
        x, y = map(int, case.text.split())
        return self.combine(x, y)

    def guide(self, case: Case, output: Any) -> tuple[float, str]:
        """Whether the number is right, and what it should be."""
        if output == case.answer:
            return 1.0, ""
        return 0.0, "Wrong." if self.masked else f"It should be {case.answer}."

    def learn(self, model: Any = None, task_model: Any = None) -> float:
        """Train the function with OptoPrime."""
        fit(
            self.run, self.train, self.guide, budget=80, batch_size=2, workers=1, perfect=1.0,
            optimizer=OptoPrime([self.code], llm=model or self.ask, budget=1_250),
            acceptance=Paired(alpha=1.0), patience=8, seed=self.seed,
        )  # fmt: skip
        with tg.stop_tracing():
            right = [self.run(case).data == case.answer for case in self.test]
        return float(sum(right) / len(right))

    def improved(self, request: str, random: Random) -> dict[str, Any]:
        """The function with the shortest expression that agrees with what the request says."""
        reading = read(request)
        expression = synthesised(["x", "y"], list(_examples(reading)))
        if expression is None:
            return {}
        return {
            name: _RETURN.sub(f"return {expression}", code)
            for name, (_, code) in reading.variables.items()
        }

    def harmful(self, request: str, good: Mapping[str, Any], random: Random) -> dict[str, Any]:
        """Code that does not parse, has another signature, raises, reaches out, or is wrong."""
        (code,) = [code for _, code in read(request).variables.values()] or [""]
        bad = random.choice(
            [
                code.replace(")", "", 1),
                code.replace("x: int, ", ""),
                _RETURN.sub("return x // 0", code),
                _RETURN.sub("import os; return os.getpid()", code),
                _RETURN.sub("return 7", code),
            ]
        )
        return {"combine": bad}


def _examples(reading: Reading) -> Iterator[tuple[tuple[int, int], int]]:
    """The arguments and the wanted number of each remark, of now and of before."""
    known = [
        ({n: reading.value(s) for n, s in reading.calls[output].arguments.items()}, remark)
        for output, remark in reading.remarks
        if output in reading.calls
    ]
    for given, remark in [*known, *reading.past]:
        wanted = _WANTED.search(remark)
        if wanted and isinstance(given.get("x"), int) and isinstance(given.get("y"), int):
            yield (given["x"], given["y"]), int(wanted[1])
