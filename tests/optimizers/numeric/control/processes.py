"""Runs a module as several processes that meet by a file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[4]


def run(module: str, part: str, tmp_path: Path, world: int = 2) -> None:
    """Run ``python -m tests.optimizers.numeric.control.MODULE``, and expect that all succeed."""
    meeting = (tmp_path / "meeting").as_uri()
    name = f"tests.optimizers.numeric.control.{module}"
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", name, meeting, str(rank), part, str(world)],
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    try:
        errors = [process.communicate(timeout=500)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0] * world, "\n".join(errors)
