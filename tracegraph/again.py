"""The variables by which the command line tells a program that it is started again, and how."""

from __future__ import annotations

from typing import Final

__all__ = ["REPLAY", "RESUME"]

RESUME: Final = "TRACEGRAPH_RESUME"
"""Which run is gone on with: its number, a colon, its name."""

REPLAY: Final = "TRACEGRAPH_REPLAY"
"""The path of a tape from which models' replies come; nobody is asked."""
