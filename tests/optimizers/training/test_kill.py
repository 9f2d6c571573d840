"""A training that is killed at any moment goes on to the very result of one that was not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def killed(*seeds: int) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.optimizers.training.killing", *map(str, seeds)],
        cwd=ROOT, capture_output=True, text=True, timeout=500, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_killed_training_goes_on_exactly_and_pays_for_nothing_twice() -> None:
    """A prompt and a vector that are trained together; the campaign has searches over prompts, too."""
    said = killed(2)
    assert "nothing differs; repeated: 0 model calls that were complete" in said
    assert "0 workflow runs that were complete" in said


@pytest.mark.campaign
@pytest.mark.timeout(600)
def test_ten_seeds_killed_again_and_again() -> None:
    assert "nothing differs" in killed(10)
