"""The mixed example: every one of the four parameters gets better, and the same way each time."""

from __future__ import annotations

import pytest

from examples.mixed import main


def test_all_four_parameters_improve(capsys: pytest.CaptureFixture[str]) -> None:
    result = main(["--quick"])
    printed = capsys.readouterr().out
    start, end = (line for line in printed.splitlines() if line.startswith(("start:", "end:")))
    assert "score 0.50 (0% of the facts are said" in start
    assert "topic loss 1.099" in start
    assert result["score"] > 1.5
    assert result["loss"] < 0.05
    assert "length / 10" not in printed.split("urgency:")[1]
    assert f"score {result['score']:.2f}" in end
    assert main(["--steps", "10"]) == main(["--steps", "10"])
