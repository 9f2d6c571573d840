"""The tables of the worlds come out, and their smallest form holds."""

from __future__ import annotations

import pytest

from tests.benchmarks.worlds import OURS, WORLDS, Figures, Row, figures, holds, identical, main


def nothing(row: Row, seed: int) -> Figures:
    return Figures(0.0, 0, 0, 0)


def test_one_seed_of_one_row_reaches_what_is_wanted() -> None:
    row = next(row for row in OURS if row.sabotage)
    found = figures(row, seed=5)
    assert holds(row, [found]) is True
    assert found.runs <= 400


def test_a_row_that_falls_short_is_told() -> None:
    row = Row("x", nothing, wanted=0.96, calls=25, characters=5_000)
    assert holds(row, [Figures(1.0, 25, 5_000, 99)]) is True
    assert holds(row, [Figures(0.9, 9, 99, 99)]) is False
    assert holds(row, [Figures(1.0, 26, 99, 99)]) is False
    assert holds(row, [Figures(1.0, 9, 5_001, 99)]) is False
    assert holds(Row("x", nothing), []) is None
    masked = Row("x", nothing, masked=True, wanted=0.0)
    assert holds(masked, [Figures(0.01, 9, 99, 99)]) is False


def test_every_world_has_a_row_with_its_feedback_masked() -> None:
    named = {row.name for row in WORLDS}
    assert {f"{name}, masked" for name in named if "masked" not in name} <= named


def test_a_stopped_training_and_many_workers_come_to_the_same() -> None:
    assert identical(3)


def test_the_command_prints_a_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.benchmarks.worlds.ROWS", OURS[:1])
    assert main(["--seeds", "1"]) == 0
    assert "flow of information" in capsys.readouterr().out
