"""A traced program trained by two processes steps as one process with the data of both."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.optimizers.numeric.control.processes import run


@pytest.mark.timeout(600)
def test_a_traced_backward_is_heard_by_whoever_exchanges_gradients(tmp_path: Path) -> None:
    """DistributedDataParallel, FSDP2 and both stages of ZeRO."""
    run("traced_in_two", "both", tmp_path)


@pytest.mark.timeout(600)
def test_gradients_are_the_same_where_processes_could_wait_for_them(tmp_path: Path) -> None:
    """What the walk promises, once more within a process group."""
    run("traced_in_two", "alone", tmp_path, 1)
