from __future__ import annotations

import ast
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tracegraph as tg
from optimizers import Evolve
from optimizers.search import Variation, suspects
from optimizers.search.code import crossed_code, varied_code
from optimizers.search.mutate import mutated
from tracegraph.definitions import members_of

HUNT = '''
import math

def near(board, square, *, reach: int = 1) -> list:
    """What lies around."""
    row, column = square
    return [board[row + i] for i in range(-reach, reach + 1) if row + i >= 0]

def choose(board, square, bonus=2):
    """How promising a shot is."""
    row, column = square
    seen = near(board, square)
    best = 0
    for other in seen:
        if other == "hit" and row > 2:
            best = best + bonus
        else:
            continue
    label = f"{row}:{column}"
    if best is None:
        return math.inf
    return -(row * 8 + column) + sum(x for x in seen if x) + len(label)
'''
COUNT = '''
def count(n):
    """Count."""
    for i in range(n):
        yield i + 1
'''
WAIT = """
async def wait(x):
    value = await x
    return value + 1
"""


@pytest.mark.parametrize("text", [HUNT, COUNT, WAIT], ids=["function", "generator", "coroutine"])
@given(seed=st.integers(0, 10**6))
@settings(max_examples=40)
def test_variations_compile_and_keep_what_callers_rely_on(text: str, seed: int) -> None:
    varied = varied_code(text, Random(seed))
    assert varied != text
    before, after = ast.parse(text), ast.parse(varied)
    defined = [item for item in before.body if hasattr(item, "args")]
    still = [item for item in after.body if hasattr(item, "args")]
    assert [item.name for item in still] == [item.name for item in defined]  # type: ignore[attr-defined]
    for old, new in zip(defined, still, strict=True):
        assert ast.dump(new.args) == ast.dump(old.args)  # type: ignore[attr-defined]
        assert ast.get_docstring(new) == ast.get_docstring(old)  # type: ignore[arg-type]
    scopes: tuple[dict[str, object], dict[str, object]] = ({}, {})
    exec(compile(text, "before", "exec"), scopes[0])
    exec(compile(varied, "after", "exec"), scopes[1])
    for item in defined:
        flags = [scope[item.name].__code__.co_flags & 0x2A0 for scope in scopes]  # type: ignore[attr-defined]
        assert flags[0] == flags[1]


@given(seed=st.integers(0, 10**6))
@settings(max_examples=60)
def test_names_of_a_comprehension_do_not_leave_it(seed: int) -> None:
    varied = ast.parse(
        varied_code("def f(n):\n    k = [x for x in n if x > 2]\n    return k", Random(seed))
    )
    inside = {
        id(name)
        for scope in ast.walk(varied)
        if isinstance(scope, ast.ListComp)
        for name in ast.walk(scope)
    }
    outside = [n for n in ast.walk(varied) if isinstance(n, ast.Name) and id(n) not in inside]
    assert all(name.id != "x" for name in outside)


def test_the_same_chance_gives_the_same_variation() -> None:
    assert [varied_code(HUNT, Random(i)) for i in range(30)] == [
        varied_code(HUNT, Random(i)) for i in range(30)
    ]


def test_every_sort_of_edit_happens() -> None:
    found = "\n".join(varied_code(HUNT, Random(i)) for i in range(800))
    for piece in ("or row > 2", "not ", "<= 2", "row + 8", " if ", "is not None", "pass"):
        assert piece in found, piece


def test_given_expressions_come_in() -> None:
    found = [
        varied_code("def f(x):\n    return x + 1", Random(i), ["x * x", "x > 3"])
        for i in range(200)
    ]
    assert any("x * x" in text for text in found)
    assert any("if x > 3" in text for text in found)
    with pytest.raises(ValueError, match="takes Python expressions"):
        varied_code("def f(x):\n    return x", Random(0), ["x +"])


def test_growth_has_a_limit() -> None:
    text, random = "def f(x):\n    return x + 1 - x", Random(0)
    for _ in range(300):
        text = varied_code(text, random, limit=60)
    assert sum(1 for _ in ast.walk(ast.parse(text))) <= 60


def test_a_text_that_cannot_vary_stays() -> None:
    assert varied_code("import math", Random(0)) == "import math"


@tg.bundle(trainable=True, trust=True)
def twice(x: int) -> int:
    """Two times x."""
    return x + 2


def test_a_bundle_runs_its_variations() -> None:
    parameter = twice.parameters()[0]
    results = set()
    for i in range(60):
        parameter.assign(mutated(parameter, parameter.initial, Variation(Random(i))))
        try:
            results.add(twice(5).data)
        except tg.ExecutionError:
            continue
    parameter.assign(parameter.initial)
    assert 10 in results
    assert len(results) > 4


CLASS = """
class Fleet:
    \"\"\"Ships.\"\"\"

    SIZE = 4
    names: list = [1, 2]

    def __init__(self, count):
        self.count = count

    def room(self, wide):
        if wide > self.SIZE:
            return self.count * 2
        return self.count + 1

    @property
    def free(self):
        return self.SIZE - self.count

    class Deck:
        def area(self, x, y):
            return x * y
"""
MODULE = "import math\n\nRATE = 3\n\ndef price(x):\n    return x * RATE\n" + CLASS


@pytest.mark.parametrize("text", [CLASS, MODULE], ids=["class", "module"])
def test_every_method_and_value_of_a_class_or_module_is_varied_and_the_rest_stays(
    text: str,
) -> None:
    kept, changed = members_of(ast.parse(text).body), set()
    wholes = (ast.Module, ast.ClassDef)
    for seed in range(120):
        varied = ast.parse(varied_code(text, Random(seed)))
        assert {n: m.signature for n, m in members_of(varied.body).items()} == {
            n: m.signature for n, m in kept.items()
        }
        before, after = _named(ast.parse(text)), _named(varied)
        assert before.keys() == after.keys()
        changed |= {name for name in before if before[name] != after[name]}
    wanted = {"SIZE", "names", "__init__", "room", "free", "area"}
    assert changed == wanted | ({"RATE", "price"} if text is MODULE else set())
    assert isinstance(varied, wholes)


def _named(tree: ast.AST) -> dict[str, str]:
    """Every function and every value that is set, by name."""
    found = {}
    for item in ast.walk(tree):
        if isinstance(item, ast.FunctionDef):
            found[item.name] = ast.dump(item)
        elif isinstance(item, ast.Assign) and isinstance(item.targets[0], ast.Name):
            found[item.targets[0].id] = ast.dump(item)
        elif isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
            found[item.target.id] = ast.dump(item)
    return found


def test_edits_of_a_class_begin_at_the_blamed_method() -> None:
    line = CLASS.splitlines().index("        return self.SIZE - self.count") + 1
    there = 0
    for seed in range(40):
        before = _named(ast.parse(CLASS))
        after = _named(ast.parse(varied_code(CLASS, Random(seed), suspects={line: 1.0})))
        there += [n for n in before if before[n] != after[n]] == ["free"]
    assert there > 25


def test_a_method_may_use_what_others_ask_of_the_object() -> None:
    text = "class A:\n    def f(self):\n        return self.width\n    def g(self):\n        return 1\n"
    found = [varied_code(text, Random(seed)) for seed in range(150)]
    assert any("return self.width" in piece.split("def g")[1] for piece in found)


@given(seeds=st.tuples(*[st.integers(0, 10**6)] * 3))
@settings(max_examples=40)
def test_a_cross_has_only_lines_of_its_parents(seeds: tuple[int, int, int]) -> None:
    mother, father = (varied_code(HUNT, Random(seed)) for seed in seeds[:2])
    child = crossed_code(mother, father, Random(seeds[2]))
    if child is None:
        return
    lines = {line for text in (mother, father) for line in ast.unparse(ast.parse(text)).split("\n")}
    assert set(child.split("\n")) <= lines
    assert child not in (mother, father)
    compile(child, "child", "exec")


@pytest.mark.parametrize("seed", [0, 2, 3, 5])
def test_a_class_is_repaired_by_evolution_guided_by_blame(seed: int) -> None:
    @tg.bundle(trainable=True, trust=True, profile=True)
    class Clamp:
        """Keeps numbers within bounds."""

        def __init__(self, low: int, high: int) -> None:
            self.low, self.high = low, high

        def below(self, x: int) -> int:
            return self.low if x < self.low else x

        def above(self, x: int) -> int:
            return self.high if x < self.high else x

    calls = [("below", 0, 1), ("below", 5, 5), ("above", 0, 0), ("above", 5, 5), ("above", 12, 9)]
    optimizer = Evolve(Clamp, seed=seed)
    for _ in range(150):
        (candidate,) = optimizer.ask()
        optimizer.apply(candidate)
        try:
            runs, made = [], Clamp(1, 9)
        except Exception:  # its constructor was edited, too
            optimizer.tell(candidate, None)
            continue
        for name, x, wanted in calls:
            try:
                output = getattr(made, name)(x)
            except Exception as error:
                output = tg.failed_node(error)
            runs.append((output, output.failure is None and output.data == wanted))
        cases = [float(good) for _, good in runs]
        blamed = suspects(runs, optimizer.named_parameters)
        optimizer.tell(candidate, sum(cases), suspects=blamed, cases=cases)
        if all(cases):
            break
    assert optimizer.history[0].score == 2.0
    assert optimizer.best_score == len(calls)
