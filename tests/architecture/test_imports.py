"""What an import costs, and what a module may be called."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = (
    "torch",
    "litellm",
    "networkx",
    "graphviz",
    "triton",
    "dspy",
    "gepa",
    "langchain_core",
    "ray",
)
PACKAGES = ("tracegraph", "optimizers")
EMPTY_NAMES = {"utils", "helpers", "common", "util", "helper", "misc"}


def loaded_after(statement: str) -> set[str]:
    """The top-level modules that a fresh interpreter holds after `statement`."""
    program = f"{statement}\nimport sys\nprint(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        stdin=subprocess.DEVNULL,
    )
    return {name.partition(".")[0] for name in done.stdout.split()}


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_loads_nothing_heavy(package: str) -> None:
    loaded = loaded_after(f"import {package}")
    assert package in loaded
    assert loaded.isdisjoint(HEAVY)


def test_importing_tracegraph_does_not_load_what_only_a_few_calls_need() -> None:
    rare = {"asyncio", "sqlite3", "statistics", "subprocess", "tempfile", "tracemalloc"}
    assert (loaded_after("import tracegraph") - loaded_after("pass")).isdisjoint(rare)


@pytest.mark.parametrize(
    "door",
    [
        "optimizers.training.gepa",
        "optimizers.training.ray_tasks",
        "tracegraph.adapters.dspy",
        "tracegraph.adapters.langchain",
    ],
)
def test_an_adapter_loads_its_library_only_when_it_is_called(door: str) -> None:
    assert loaded_after(f"import {door}").isdisjoint(HEAVY)


def test_importing_tracegraph_does_not_load_the_optimizers() -> None:
    assert "optimizers" not in loaded_after("import tracegraph")


def test_no_module_is_a_drawer_for_leftovers() -> None:
    modules = [path for package in PACKAGES for path in (ROOT / package).rglob("*")]
    assert modules
    assert [str(path) for path in modules if path.stem in EMPTY_NAMES] == []
