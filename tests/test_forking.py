"""Processes that are forked while threads of their parent are inside the library can use it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("program", ["locks", "copies", "facts", "everything"])
def test_a_process_forked_beside_threads_works(program, tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "tests.forking", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore::DeprecationWarning"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("fine", "")
