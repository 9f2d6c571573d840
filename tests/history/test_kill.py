"""A run that is killed at any moment loses its last step at most, and damages nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def killed(times: int) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.history.killing", str(times)],
        cwd=ROOT, capture_output=True, text=True, timeout=500, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_killed_run_loses_its_last_step_at_most() -> None:
    assert "nothing wrong" in killed(25)


@pytest.mark.campaign
@pytest.mark.timeout(600)
def test_a_thousand_kills() -> None:
    assert "nothing wrong" in killed(1_000)
