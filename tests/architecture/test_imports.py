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
RARE = {
    "asyncio", "difflib", "hashlib", "hmac", "html", "logging", "numpy", "pathlib", "pydantic", "random",
    "rich", "secrets", "socket", "sqlite3", "statistics", "subprocess", "tempfile", "textwrap",
    "tracemalloc", "typer", "urllib",
}  # fmt: skip
"""What only a few calls need: importing tracegraph loads none of it."""
OF_CODE = {
    "codechecks", "companions", "definitions", "edits", "exporting", "isolation", "profiling", "pullback",
    "sandbox", "source", "speed", "timing", "trainable", "travel", "whole",
}  # fmt: skip
"""Rooms that only code as a parameter needs."""
SHOWN_OR_KEPT = {"adapters", "asking", "commands", "details", "history", "llm", "problem", "view"}
EMPTY_NAMES = {"utils", "helpers", "common", "util", "helper", "misc"}


def loaded_after(statement: str) -> set[str]:
    """The modules that a fresh interpreter holds after `statement`, and the packages that they are of."""
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
    names = done.stdout.split()
    return {*names, *(name.partition(".")[0] for name in names)}


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_loads_nothing_heavy(package: str) -> None:
    loaded = loaded_after(f"import {package}")
    assert package in loaded
    assert loaded.isdisjoint(HEAVY)


def test_importing_tracegraph_does_not_load_what_only_a_few_calls_need() -> None:
    assert (loaded_after("import tracegraph") - loaded_after("pass")).isdisjoint(RARE)


def test_rooms_are_loaded_when_they_are_entered() -> None:
    rooms = {f"tracegraph.{name}" for name in OF_CODE | SHOWN_OR_KEPT}
    plain = "import tracegraph as tg; (tg.bundle(lambda x: x + 1)(1) * 2).backward('more')"
    assert loaded_after(plain).isdisjoint(rooms)
    there = {path.stem for path in (ROOT / "tracegraph").iterdir()}
    assert there >= OF_CODE | SHOWN_OR_KEPT  # a room that is renamed is named anew here


def test_the_command_line_loads_no_command_before_it_is_called() -> None:
    rooms = {f"tracegraph.{name}" for name in OF_CODE | SHOWN_OR_KEPT}
    loaded = loaded_after("from tracegraph.cli import main")
    assert loaded.isdisjoint(rooms | {"optimizers"})


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


def test_filelock_hears_no_audit_events() -> None:
    """From 3.30 on it installs an audit hook written in Python, which torch's compiler then loads.

    While such a hook runs in one thread, CPython 3.11 refuses `sys.settrace` to every other, so that
    threads that start under coverage end before they began.
    """
    program = """
import sys
events = []
sys.addaudithook(lambda event, args: events.append(event))
import filelock
print(events.count("sys.addaudithook"))
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "0\n"
