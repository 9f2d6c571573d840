"""The Triton kernels: right in the interpreter, and well compiled for a GPU that is not there."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(300)  # compilers, on a machine that may be busy
pytest.importorskip("triton", reason="Triton is not installed: pip install 'tracegraph[gpu]'")


def python(module: str, tmp_path: Path, *options: str, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", f"tests.optimizers.numeric.{module}", *options],
        capture_output=True,
        text=True,
        env={**os.environ, "TRITON_CACHE_DIR": str(tmp_path), **environment},
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


by_length = pytest.mark.parametrize(
    "options", [[], pytest.param(["--long"], marks=pytest.mark.campaign)], ids=["quick", "long"]
)


@by_length
def test_kernels_agree_with_their_definitions_in_the_interpreter(
    tmp_path: Path, options: list[str]
) -> None:
    said = python("triton_interpreted", tmp_path, *options, TRITON_INTERPRET="1")
    assert said.strip() == "agreed"


def test_the_kernel_rounds_parameters_as_their_definition_does(tmp_path: Path) -> None:
    assert python("triton_rounded", tmp_path, TRITON_INTERPRET="1").strip() == "agreed"


@by_length
def test_steps_that_count_on_the_device_go_by_a_plan_as_without(
    tmp_path: Path, options: list[str]
) -> None:
    said = python("triton_counted", tmp_path, *options, TRITON_INTERPRET="1")
    assert said.strip() == "agreed"


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Any]]:
    listing = python(
        "triton_compiled", tmp_path_factory.mktemp("triton"), TRITON_DEFAULT_FP_FUSION="1"
    )
    return {facts["kernel"]: facts for facts in map(json.loads, listing.splitlines())}


def test_compiled_for_a_gpu_no_kernel_spills(kernels: dict[str, dict[str, Any]]) -> None:
    assert len(kernels) == 13
    for name, facts in kernels.items():
        assert (facts["stack"], facts["spills"]) == (0, 0), name
        # 32 warps a multiprocessor with coded state, 16 else, and 8 of products
        most = 64 if "8bit" in name else 255 if "newton" in name else 128
        assert facts["registers"] <= (255 if "anywhere" in name else most), name


def test_compiled_for_a_gpu_full_chunks_move_128_bits(kernels: dict[str, dict[str, Any]]) -> None:
    """A thread has eight elements: 32 bytes of float32, 16 of bfloat16, 8 of codes."""
    for name, loads, stores in (
        ("fp32 fp32", 8, 6),
        ("bf16 bf16", 4, 3),
        ("bf16 bf16-stochastic", 4, 3),
        ("fp32 8bit", 4, 2),
        ("bf16 8bit-dynamic", 2, 1),
        ("bf16 fp32 stochastic", 6, 5),
        ("bf16 fp32 24bit", 6, 5),
        ("bf16 fp32 32bit", 7, 6),
        ("bf16 8bit 24bit", 2, 1),
    ):
        accesses = kernels[name]["accesses"]
        assert accesses["LDG.E.128"] >= loads, name
        assert accesses["STG.E.128"] >= stores, name
        codes = 2 * ("8bit" in name) + ("24bit" in name)  # columns of a byte per element
        assert accesses.get("STG.E.64", 0) >= codes, name


def test_compiled_for_a_gpu_tensors_that_lie_anywhere_are_moved_one_by_one(
    kernels: dict[str, dict[str, Any]],
) -> None:
    """A wider access to such an address is a fault that ends the process's use of the GPU."""
    accesses = kernels["bf16 8bit 24bit anywhere"]["accesses"]
    assert not [kind for kind in accesses if kind.endswith(".128")]
    assert accesses["STG.E.U16"] >= 2 * 8  # bfloat16 of full chunks and of the last
    assert accesses["STG.E.U8"] >= 2 * 3 * 8
    assert not [kind for kind in accesses if kind.startswith("STG") and kind.endswith("64")]


def test_compiled_for_a_gpu_newton_schulz_uses_the_matrix_units(
    kernels: dict[str, dict[str, Any]],
) -> None:
    for what in ("gram", "polynomial", "step"):
        assert kernels[f"newton-schulz {what}"]["matrix"] == ["HGMMA.64x128x16.F32.BF16"]
