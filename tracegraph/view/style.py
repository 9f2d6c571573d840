"""The style sheet inside each SVG: type, lines, and the colours of light and dark mode.

Every rule is about a class that starts with `tg`, since an SVG inside a page shares its styles.
"""

from __future__ import annotations

from tracegraph.view.look import FEEDBACK, LOOKS, Ink

__all__ = ["LINE", "SMALL", "STYLE", "TITLE"]

TITLE, LINE, SMALL = 13.0, 11.5, 10.5
"""Sizes of type, in pixels: a box's title, its lines, badges and labels."""


def _palette(*, dark: bool) -> str:
    """Rules for the colours; written twice, since not every program knows CSS variables."""
    page, ink, soft, wire = (
        ("#15181d", "#e6e9ee", "#a9b1bd", "#7d8796")
        if dark
        else ("#ffffff", "#2a303a", "#59616e", "#8a94a3")
    )

    def of(look: Ink, name: str) -> str:
        return (
            f".tg-{name}>.tg-body{{fill:{look.fill};stroke:{look.line}}}"
            f".tg-{name}>.tg-inner,.tg-{name} .tg-cross{{stroke:{look.line}}}"
            f".tg-{name} .tg-mark{{fill:{look.line}}}"
            f".tg-{name}>.tg-badge{{fill:{page};stroke:{look.line}}}"
            f".tg-{name}>text{{fill:{look.text}}}"
        )

    way = FEEDBACK.dark if dark else FEEDBACK.light
    return (
        f".tg-page{{fill:{page}}}.tg-heading{{fill:{ink}}}.tg-word{{fill:{soft}}}"
        f".tg-label{{fill:{soft};stroke:{page}}}"
        f".tg-wire{{stroke:{wire}}}.tg-tip{{fill:{wire}}}"
        + "".join(of(look.dark if dark else look.light, role) for role, look in LOOKS.items())
        + f".tg-way>.tg-wire,.tg-ring,.tg-up,.tg-back{{stroke:{way.line}}}"
        f".tg-way>.tg-tip{{fill:{way.line}}}"
        f".tg-note{{fill:{way.fill};stroke:{way.line}}}.tg-box>.tg-said{{fill:{way.text}}}"
    )


STYLE = (
    '.tg text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",'
    '"DejaVu Sans",Arial,sans-serif}'
    ".tg .tg-line,.tg .tg-small,.tg .tg-label,.tg .tg-said{font-family:ui-monospace,"
    'SFMono-Regular,Menlo,Consolas,"DejaVu Sans Mono",monospace;white-space:pre}'
    ".tg-heading{font-size:16px;font-weight:600}"
    f".tg-title{{font-size:{TITLE}px;font-weight:600}}"
    f".tg-line,.tg-said,.tg-word{{font-size:{LINE}px}}.tg-small,.tg-label{{font-size:{SMALL}px}}"
    ".tg-label{paint-order:stroke;stroke-width:4px;stroke-linejoin:round}"
    ".tg-line{opacity:.82}.tg-body{stroke-linejoin:round}"
    + "".join(f".tg-{role}>.tg-body{{stroke-width:{look.pen}px}}" for role, look in LOOKS.items())
    + ".tg-inner{fill:none;stroke-width:1px}.tg-mark{fill-rule:evenodd}"
    ".tg-cross{fill:none;stroke-width:2.6px;stroke-linecap:round}"
    ".tg-badge,.tg-note{stroke-width:.8px}"
    f".tg-ring{{fill:none;stroke-width:{FEEDBACK.pen}px;stroke-linejoin:round}}"
    ".tg-hidden>.tg-body{stroke-dasharray:5 3}"
    ".tg-wire{fill:none;stroke-width:1.3px}"
    f".tg-way>.tg-wire{{stroke-width:{FEEDBACK.pen}px}}"
    ".tg-captured>.tg-wire{stroke-dasharray:5 4}"
    ".tg-up,.tg-back{fill:none;stroke-width:2px;stroke-linecap:round;stroke-linejoin:round}"
    ".tg-back{stroke-width:1.4px}"
    + _palette(dark=False)
    + "@media(prefers-color-scheme:dark){"
    + _palette(dark=True)
    + "}"
)
"""The whole sheet."""
