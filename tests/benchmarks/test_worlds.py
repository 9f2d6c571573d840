"""The table of the worlds comes out, and its smallest form holds."""

from __future__ import annotations

import pytest

from optimizers import OptoPrime
from tests.benchmarks.worlds import Figures, Row, figures, holds, main


def test_one_seed_of_one_row_reaches_what_is_wanted() -> None:
    row = Row("OptoPrime", OptoPrime, sabotage=0.3, wanted=0.9, calls=25)
    found = figures(row, seed=5)
    assert holds(row, [found]) is True
    assert found.runs <= 400


def test_a_row_that_falls_short_is_told() -> None:
    row = Row("x", OptoPrime, wanted=0.96, calls=25)
    assert holds(row, [Figures(0.9, 9, 99, 99)]) is False
    assert holds(row, [Figures(1.0, 26, 99, 99)]) is False
    assert holds(Row("x", OptoPrime), []) is None
    masked = Row("x", OptoPrime, masked=True, wanted=0.0)
    assert holds(masked, [Figures(0.01, 9, 99, 99)]) is False


def test_the_command_prints_a_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.benchmarks.worlds.ROWS", (Row("OptoPrime", OptoPrime, wanted=0.9),))
    assert main(["--seeds", "1"]) == 0
    assert "flow of information" in capsys.readouterr().out
