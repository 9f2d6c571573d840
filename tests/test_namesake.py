"""A user's own `optimizers` beside ours: real scripts in fresh interpreters."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import optimizers

ROOT = Path(__file__).resolve().parents[1]
OURS = ROOT / "optimizers" / "__init__.py"
OWN = "RATE = 0.1\n\ndef adjust():\n    return RATE\n"


def run(script: Path) -> subprocess.CompletedProcess[str]:
    """Run a script as a user does: its own directory comes first on the path."""
    return subprocess.run(
        [sys.executable, str(script)],
        env={"PYTHONPATH": str(ROOT), "PATH": ""},
        cwd=script.parent,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
    )


@pytest.fixture(params=["module", "package"])
def own(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The user's own `optimizers`, a module or a package."""
    path = tmp_path / ("optimizers.py" if request.param == "module" else "optimizers/__init__.py")
    path.parent.mkdir(exist_ok=True)
    path.write_text(OWN)
    return path


def script(own: Path, text: str) -> Path:
    folder = own.parent if own.name == "optimizers.py" else own.parent.parent
    path = folder / "train.py"
    path.write_text(text)
    return path


@pytest.mark.parametrize("name", ["OptoPrime", "Partition", "optimize", "Evolve"])
def test_asking_for_ours_names_both_files(own: Path, name: str) -> None:
    done = run(script(own, f"import tracegraph\nfrom optimizers import {name}\n"))
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("tracegraph.errors.Shadowed: ")
    assert str(own) in last
    assert str(OURS) in last
    assert f"rename {own}" in last


def test_it_is_an_import_error_and_one_of_ours(own: Path) -> None:
    text = """
import tracegraph
try:
    from optimizers import OptoPrime
except ImportError as error:
    print(isinstance(error, tracegraph.TracegraphError), error.name, error.path)
"""
    done = run(script(own, text))
    assert done.stdout.split() == ["True", "optimizers", str(own)]


def test_the_users_module_works_as_it_did(own: Path) -> None:
    text = """
import inspect
import importlib
import tracegraph
import optimizers
from optimizers import RATE, adjust
assert adjust() == RATE == 0.1
assert optimizers.__spec__.origin == optimizers.__file__
assert inspect.getsource(optimizers.adjust).startswith("def adjust")
assert not hasattr(optimizers, "something")
try:
    from optimizers import something
except ImportError as error:
    assert "something" in str(error)
else:
    raise SystemExit("imported nothing")
importlib.reload(optimizers)
assert optimizers.adjust() == 0.1
print("fine")
"""
    done = run(script(own, text))
    assert (done.stdout, done.stderr) == ("fine\n", "")


def test_a_namesake_that_was_imported_before_tracegraph_explains_itself_too(own: Path) -> None:
    text = "import optimizers\nimport tracegraph\nfrom optimizers import OptoPrime\n"
    done = run(script(own, text))
    assert "Shadowed" in done.stderr
    assert str(OURS) in done.stderr


def test_without_tracegraph_python_itself_names_the_users_file(own: Path) -> None:
    done = run(script(own, "from optimizers import OptoPrime\n"))
    assert "cannot import name 'OptoPrime' from 'optimizers'" in done.stderr
    assert str(own) in done.stderr


def test_a_module_with_its_own_getattr_keeps_it(own: Path) -> None:
    own.write_text(OWN + "def __getattr__(name):\n    return name.upper()\n")
    text = "import tracegraph\nimport optimizers\nprint(optimizers.OptoPrime)\n"
    done = run(script(own, text))
    assert (done.stdout, done.stderr) == ("OPTOPRIME\n", "")


def test_an_error_in_the_users_module_is_the_users_own(own: Path) -> None:
    own.write_text("1 / 0\n")
    done = run(script(own, "import tracegraph\nimport optimizers\n"))
    assert done.stderr.strip().splitlines()[-1] == "ZeroDivisionError: division by zero"


def test_without_a_namesake_ours_is_found(tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_text(
        "import tracegraph\nfrom optimizers import OptoPrime\n"
        "import sys, optimizers\nprint(optimizers.__file__)\n"
        "import importlib; importlib.reload(tracegraph)\n"
        "print(sum(type(f).__name__ == '_Watch' for f in sys.meta_path))\n"
    )
    done = run(path)
    assert done.stdout.split() == [str(OURS), "1"], done.stderr


def test_ours_is_found_as_python_finds_it() -> None:
    spec = importlib.util.find_spec("optimizers")
    assert spec is not None
    assert spec.origin == str(OURS)
    assert optimizers.__file__ == str(OURS)
