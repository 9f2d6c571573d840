"""How each role looks: one table for every way of drawing.

No difference rests on colour alone: each role has its own outline, mark and weight of line. The
hues are those of Okabe and Ito (2008), which stay apart without full colour sight; fills are
their tints.
"""

from __future__ import annotations

from dataclasses import dataclass

from tracegraph.view.picture import Role

__all__ = ["FEEDBACK", "LOOKS", "Ink", "Look"]


@dataclass(frozen=True, slots=True)
class Ink:
    """Fill, line and text colour."""

    fill: str
    line: str
    text: str


@dataclass(frozen=True, slots=True)
class Look:
    """How one role is drawn: `mark` in text, `shape` and `style` in DOT, `pen` in pixels."""

    mark: str
    shape: str
    style: str
    pen: float
    light: Ink
    dark: Ink


FEEDBACK = Look(
    "↩", "", "", 2.8, Ink("#f6e9f3", "#a3447f", "#7a2a5c"), Ink("#3a2434", "#e08fc0", "#f3c6e0")
)
"""The way that feedback took, back along the arrows."""

LOOKS: dict[Role, Look] = {
    "parameter": Look(
        "◆",
        "box",
        "rounded,filled",
        1.6,
        Ink("#fdf3dc", "#b87a00", "#5c3d00"),
        Ink("#3a2f17", "#e6ae4a", "#fbe7bd"),
    ),
    "input": Look(
        "▱",
        "parallelogram",
        "filled",
        1.2,
        Ink("#e9f3fb", "#4d8fbf", "#1d4763"),
        Ink("#1c2f3d", "#7bb8e0", "#d3e9f8"),
    ),
    "operation": Look(
        "●",
        "box",
        "filled",
        1.1,
        Ink("#ffffff", "#8a94a3", "#2a303a"),
        Ink("#262b33", "#8490a2", "#e6e9ee"),
    ),
    "output": Look(
        "◎",
        "oval",
        "filled",
        2.2,
        Ink("#e3f5ee", "#00845f", "#00452f"),
        Ink("#15332a", "#3fc79b", "#c9f2e3"),
    ),
    "failure": Look(
        "✗",
        "octagon",
        "filled,bold",
        2.2,
        Ink("#fdebe3", "#c44a00", "#6e2a00"),
        Ink("#40231a", "#ff8c5a", "#ffd9c7"),
    ),
}
"""The look of each role."""
