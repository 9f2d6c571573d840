"""What `tracegraph.view` may lean on (docs/decisions/0002-view-knows-no-nodes.md)."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import tracegraph.view

_FILES = sorted(Path(tracegraph.view.__file__).parent.glob("*.py"))


def test_it_imports_only_errors_writing_and_itself() -> None:
    found = set()
    for file in _FILES:
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0
                found.add(node.module or "")
            elif isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
    ours = {name for name in found if name.split(".")[0] in ("tracegraph", "optimizers")}
    assert {name for name in ours if not name.startswith("tracegraph.view.")} == {
        "tracegraph.errors",
        "tracegraph.writing",
    }


def test_importing_it_loads_no_graphviz_and_no_rich() -> None:
    code = (
        "import sys, tracegraph.view; "
        "print(sorted({'graphviz', 'rich', 'networkx', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(tracegraph.view.__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout, done.stderr) == ("[]\n", "")
