"""The page of errors names every error, with the builtin that it also is."""

from __future__ import annotations

import builtins
from pathlib import Path

import pytest

from tracegraph import errors

PAGE = Path(__file__).resolve().parents[2] / "docs" / "explanation" / "errors.md"
ROWS = {
    cells[0].strip("` "): cells[1].strip("` ")
    for line in PAGE.read_text(encoding="utf-8").splitlines()
    if line.startswith("| `")
    for cells in [line.strip("|").split("|")]
}


@pytest.mark.parametrize("name", [n for n in errors.__all__ if n != "TracegraphError"])
def test_an_error_is_on_the_page(name: str) -> None:
    bases = [base.__name__ for base in getattr(errors, name).__bases__]
    also = [base for base in bases if hasattr(builtins, base)]
    assert name in ROWS
    if name != "ExecutionError":
        assert [ROWS[name]] == (also or [""])


def test_the_page_names_no_error_that_does_not_exist() -> None:
    assert [name for name in ROWS if not hasattr(errors, name)] == []
