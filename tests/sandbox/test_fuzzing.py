"""Coverage-guided fuzzing of what reads strangers' bytes and texts; bounded, and only where atheris is."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [
    pytest.mark.campaign,
    pytest.mark.skipif(
        importlib.util.find_spec("atheris") is None,
        reason="needs atheris (pip install 'tracegraph[fuzz]')",
    ),
]

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("target", ["reader", "failure", "checks"])
def test_the_law_holds_for_everything_that_the_fuzzer_finds(target: str, tmp_path: Path) -> None:
    limits = ("-max_total_time=6", "-max_len=4096", "-rss_limit_mb=2048", "-timeout=20", "-seed=1")
    command = [sys.executable, "-m", "tests.sandbox.fuzzing", target, str(tmp_path), *limits]
    command.append(f"-artifact_prefix={tmp_path}/")
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=110)
    told = done.stdout + done.stderr
    assert done.returncode == 0, told[-3000:]
    runs = re.search(r"Done (\d+) runs", told)
    assert runs is not None, told[-3000:]
    assert int(runs[1]) > 100
