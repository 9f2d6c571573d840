"""The feature table says only what a test proves."""

from __future__ import annotations

import ast
import gc
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "docs" / "explanation" / "features.md"
HEADER = ["feature", "where", "the test that proves it"]


def table_rows(text: str) -> list[list[str]]:
    """The cells of every row of the Markdown table in `text`, without header and rule."""
    lines = [line.strip() for line in text.splitlines() if line.strip().startswith("|")]
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    if not rows or rows[0] != HEADER:
        raise ValueError(f"the first row of the feature table must be {HEADER}")
    return rows[2:]


def missing(tests: str, root: Path) -> list[str]:
    """The tests named in the cell `tests`, as `path::name`, that do not exist under `root`."""
    named = re.findall(r"`([^`]+)`", tests)
    return [test for test in named if not exists(test, root)] if named else [tests or "(no test)"]


@cache
def parsed(file: Path) -> ast.Module:
    gc.disable()  # a collection that parses spoils the parser before CPython 3.11.8 (gh-106905)
    try:
        return ast.parse(file.read_text(encoding="utf-8"))
    finally:
        gc.enable()


def exists(test: str, root: Path) -> bool:
    path, _, names = test.partition("::")
    file = root / path
    if not file.is_file() or not names:
        return False
    scope: ast.AST = parsed(file)
    for name in names.split("::"):
        inside = {
            child.name: child
            for child in ast.iter_child_nodes(scope)
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
        }
        if name not in inside:
            return False
        scope = inside[name]
    return True


def test_every_feature_names_tests_that_exist() -> None:
    absent = {
        feature: gone
        for feature, _, tests in table_rows(TABLE.read_text(encoding="utf-8"))
        if (gone := missing(tests, ROOT))
    }
    assert absent == {}


def test_every_feature_names_a_place_that_exists() -> None:
    rows = table_rows(TABLE.read_text(encoding="utf-8"))
    places = [place for _, where, _ in rows for place in re.findall(r"`([^`]+)`", where)]
    assert [place for place in places if not (ROOT / place).exists()] == []


def test_no_feature_stands_twice() -> None:
    features = [feature for feature, _, _ in table_rows(TABLE.read_text(encoding="utf-8"))]
    assert [feature for feature in set(features) if features.count(feature) > 1] == []


@pytest.mark.parametrize(
    "cell",
    [
        "",
        "surely tested",
        "`tests/architecture/test_features.py`",
        "`tests/architecture/test_features.py::test_of_nothing`",
        "`tests/nowhere.py::test_every_feature_names_tests_that_exist`",
    ],
)
def test_a_feature_without_a_real_test_is_found_out(cell: str) -> None:
    assert missing(cell, ROOT)


def test_a_feature_with_a_real_test_is_accepted() -> None:
    here = "tests/architecture/test_features.py::test_a_feature_with_a_real_test_is_accepted"
    assert missing(f"`{here}`", ROOT) == []
