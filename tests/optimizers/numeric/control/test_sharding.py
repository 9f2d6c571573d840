"""Sharded state: two processes step as one does, to the last bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from optimizers.numeric.control.sharding import ShardedState, share_out
from optimizers.numeric.sgd import SGD
from tests.optimizers.numeric.control.processes import run
from tracegraph.errors import OptimizerError


@pytest.mark.timeout(600)
def test_two_processes_step_as_one(tmp_path: Path) -> None:
    """ZeRO for element-wise and matrix optimizers, and DTensors; bit-equal to one process."""
    run("one_of_two", "shares", tmp_path)


@pytest.mark.campaign
@pytest.mark.timeout(600)
def test_shards_of_matrices_are_stepped_whole_by_one_process_each(tmp_path: Path) -> None:
    """Every optimizer that looks at a whole tensor, on DTensors; bit-equal to one process."""
    run("one_of_two", "matrices", tmp_path)


@pytest.mark.campaign
@pytest.mark.timeout(600)
def test_a_mesh_of_two_sides_is_stepped_as_one_process_does(tmp_path: Path) -> None:
    """FSDP beside tensor parallelism: four processes, element-wise and matrix optimizers."""
    run("one_of_two", "sides", tmp_path, 4)


@given(st.lists(st.integers(0, 50), max_size=12), st.integers(1, 5))
def test_shares_are_even_to_within_one_tensor(sizes: list[int], shares: int) -> None:
    owners = share_out(sizes, shares)
    loads = [sum(s for s, o in zip(sizes, owners, strict=True) if o == k) for k in range(shares)]
    assert sum(loads) == sum(sizes)
    assert max(loads) - min(loads) <= max(sizes, default=0)


def test_sharding_needs_processes() -> None:
    with pytest.raises(OptimizerError, match="there is no process group"):
        ShardedState([torch.zeros(3)], lambda gs: SGD(gs, lr=0.1))
