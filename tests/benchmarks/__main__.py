"""Print what tracegraph costs beside Trace: `python -m tests.benchmarks`.

Needs nothing but tracegraph; `pip install 'tracegraph[peer]'` adds the column of the peer.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from tests.benchmarks.contenders import Contender, Ours, Trace
from tests.benchmarks.workloads import QUICK, ROWS, Row, Scale


@dataclass(frozen=True, slots=True)
class Result:
    """What one row came to; None where nothing was measured."""

    name: str
    unit: str
    ours: float | None
    peer: float | None
    times_better: float | None
    allowed: float | None
    """At most so much, in `unit`."""
    holds: bool | None
    error: str | None = None


def measured(row: Row, ours: Contender | None, peer: Contender | None, scale: Scale) -> Result:
    """Measure one row; what goes wrong on our side becomes part of the result."""
    error = None
    our_figure = peer_figure = None
    if ours is not None:
        try:
            our_figure = row.measure(ours, scale)
        except Exception as problem:  # a broken row must not cost the others
            error = f"{type(problem).__name__}: {problem}"
    if peer is not None and row.peer_too:
        peer_scale = dataclasses.replace(scale, walks=1) if row.peer_once else scale
        peer_figure = row.measure(peer, peer_scale)
        peer.forget()
    allowed = row.limit
    if row.fraction is not None and peer_figure is not None:
        allowed = peer_figure / row.fraction
    both = our_figure and peer_figure
    return Result(
        name=row.name.format(**asdict(scale)),
        unit=row.unit,
        ours=our_figure,
        peer=peer_figure,
        times_better=peer_figure / our_figure if both and our_figure and peer_figure else None,
        allowed=allowed,
        holds=None if our_figure is None or allowed is None else our_figure <= allowed,
        error=error,
    )


def table(results: Sequence[Result], peer_name: str) -> Table:
    """The results for a person."""
    drawn = Table(title="What it costs")
    for heading in ("what", "unit", "tracegraph", peer_name, "times better", "at most", "holds"):
        drawn.add_column(
            heading, justify="left" if heading == "what" else "right", no_wrap=heading == "what"
        )
    for result in results:
        verdict = {None: "-", True: "yes", False: "NO"}[result.holds]
        drawn.add_row(
            result.name,
            result.unit,
            result.error or _figure(result.ours),
            _figure(result.peer),
            _figure(result.times_better),
            _figure(result.allowed),
            verdict,
        )
    return drawn


def machine() -> dict[str, Any]:
    """Where the figures were measured."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "processor": models[0] if models else platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "python": platform.python_version(),
        "implementation": platform.python_implementation(),
    }


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure every row; 1 where a row failed or, at full size, misses its target."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--json", type=Path, default=Path("out/benchmarks.json"), metavar="PATH")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run at all?")
    parser.add_argument("--only", default="", metavar="TEXT", help="rows whose name has TEXT")
    parser.add_argument("--peer-only", action="store_true", help="leave our own column empty")
    parser.add_argument("--no-peer", action="store_true", help="leave the peer's column empty")
    chosen = parser.parse_args(arguments)
    scale = QUICK if chosen.quick else Scale()
    console = Console()
    if not console.is_terminal:
        console.width = 120
    peer: Contender | None = None
    if not chosen.no_peer:
        try:
            peer = Trace()
        except ImportError as error:
            console.print(f"peer not installed ({error}): pip install 'tracegraph\\[peer]'")
    ours = None if chosen.peer_only else Ours()
    rows = [row for row in ROWS if chosen.only in row.name]
    results = [
        measured(row, ours, peer, scale)
        for row in track(rows, console=Console(stderr=True), transient=True)
    ]
    peer_name = peer.name if peer is not None else "peer not installed"
    console.print(table(results, peer_name))
    written = {
        "machine": machine(),
        "peer": peer.name if peer is not None else None,
        "quick": chosen.quick,
        "rows": [asdict(result) for result in results],
    }
    chosen.json.parent.mkdir(parents=True, exist_ok=True)
    chosen.json.write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
    console.print(f"written to {chosen.json}")
    missed = not chosen.quick and any(result.holds is False for result in results)
    return int(missed or any(result.error for result in results))


if __name__ == "__main__":
    sys.exit(main())
