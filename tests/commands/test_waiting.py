"""What takes long is said, and what is quick is not."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

import pytest

from tracegraph.commands import waiting as module
from tracegraph.commands.waiting import waiting

ROOT = Path(__file__).resolve().parents[2]


class Screen(io.StringIO):
    """A stream that is a terminal or not, and tells when something arrives."""

    def __init__(self, terminal: bool, lines: int) -> None:
        super().__init__()
        import threading

        self.terminal, self.left, self.arrived = terminal, lines, threading.Event()

    def isatty(self) -> bool:
        return self.terminal

    def write(self, text: str) -> int:
        self.left -= 1
        if self.left <= 0:
            self.arrived.set()
        return super().write(text)


def test_what_is_quick_is_not_said() -> None:
    screen = Screen(False, 1)
    with waiting("drawing", screen):
        pass
    assert screen.getvalue() == ""


def test_elsewhere_a_line_is_said_every_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SILENT", 0.01)
    monkeypatch.setattr(module, "_EVERY", 0.01)
    screen = Screen(False, 2)
    with waiting("drawing", screen):
        assert screen.arrived.wait(10)
    lines = screen.getvalue().splitlines()
    assert len(lines) >= 2
    assert all(line.startswith("drawing, ") and "\x1b" not in line for line in lines)


def test_a_terminal_gets_a_moving_line_that_goes_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SILENT", 0.01)
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen(True, 1)
    with waiting("drawing [bold]", screen):
        assert screen.arrived.wait(10)
    assert "\x1b" in screen.getvalue()
    assert "drawing [bold]" in screen.getvalue()


def test_what_is_quick_loads_no_rich() -> None:
    program = (
        "import sys\nfrom tracegraph.commands.waiting import waiting\n"
        "with waiting('x'): pass\nprint('rich' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=60,
        check=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    assert done.stdout == "False\n"
