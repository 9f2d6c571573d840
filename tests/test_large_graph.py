"""A graph of a million nodes: shown as a summary, kept in part, in bounded memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import tracegraph as tg
from tracegraph import Graph
from tracegraph.errors import PictureError

ROOT = Path(__file__).resolve().parents[1]
MILLION = """
import io, resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
import tracegraph as tg
from tracegraph.history import checkpoint
from rich.console import Console

folder = Path(sys.argv[1])
start = tg.node(1.0, trainable=True, name="start")
value = before = start + 0
for number in range(1_000_000):
    value = value + (start if number % 3 else before)
graph = tg.Graph.of(value)
assert len(graph) >= 1_000_000
page = graph.to_html(folder / "page.html")
text = graph.to_text()
assert f"{len(graph):,} nodes" in text and "graph.between(" in text
assert len(text) < 100_000
out = io.StringIO()
Console(file=out, width=100).print(graph)
assert "graph.between(" in out.getvalue() and len(out.getvalue()) < 100_000
for name in ("to_svg", "to_dot"):
    try:
        getattr(graph, name)()
    except tg.TracegraphError as error:
        assert "graph.nearest" in str(error)
    else:
        raise AssertionError(name)
assert set(graph._repr_mimebundle_()) == {"text/plain"} and graph._repr_svg_() is None
assert len(graph.between([start])) > 999_999
with tg.run("large", store=folder) as run:
    run.step(value, score=1.0)
kept = tg.History(folder).run("large")
assert len(kept.graph(1)) == 5_000 and kept.graph(1).cut

# A checkpoint holds parameters and not the graph that they are in, also when feedback came through it.
value.backward("too small")
assert len(start.feedback.outputs) == 1
path = checkpoint.save(folder / "checkpoints", step=1, parameters=[start], data=[value.data])
assert sum(file.stat().st_size for file in path.rglob("*") if file.is_file()) < 100_000
start.assign(2.0)
assert checkpoint.load(folder / "checkpoints", parameters=[start]).step == 1
assert start.data == 1.0
try:
    checkpoint.save(folder / "checkpoints", step=2, data=graph)
except tg.TracegraphError as error:
    assert "data is <Graph of 1,0" in str(error) and len(str(error)) < 1_000, str(error)[:2_000]
else:
    raise AssertionError("a graph is no data")
assert [path.name for path in (folder / "checkpoints").iterdir()] == ["step-00000001"]
print("shown")
"""


@pytest.mark.campaign
def test_a_million_nodes_are_shown_and_kept_in_bounded_memory(tmp_path: Path) -> None:
    told = run("-c", MILLION, str(tmp_path))
    assert told.stdout.endswith("shown\n"), told.stdout + told.stderr
    for words in (
        ["view", "large", "-o", str(tmp_path / "run.html")],
        ["runs", "show", "large", "--step", "1"],
        ["runs", "export", "large", "--format", "otlp", "-o", str(tmp_path / "run.json")],
    ):
        told = run("-m", "tracegraph.cli", *words, "--store", str(tmp_path))
        assert told.returncode == 0, told.stderr
        assert len(told.stdout) < 2_000_000
    sizes = {path.name: path.stat().st_size for path in tmp_path.iterdir()}
    assert max(sizes.values()) < 30_000_000, sizes


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, cwd=ROOT, timeout=500, check=False
    )


def test_of_a_graph_that_is_too_large_only_a_part_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracegraph.graph._WHOLE", 100)
    monkeypatch.setattr("tracegraph.graph._LINES", 10)
    value: Any = tg.node(0, trainable=True, name="start")
    for _ in range(100):
        value = -value
    graph = Graph.of(value)
    for draw in (graph.to_svg, graph.to_dot, lambda: graph.render("graph.svg")):
        with pytest.raises(PictureError, match=r"101 nodes .* graph\.nearest\(2000\)"):
            draw()
    text = graph.to_text()
    assert text.startswith("This graph has 101 nodes; the 10 nearest")
    assert len(text.splitlines()) < 20
    assert "<svg" in graph.nearest(100).to_svg()
    assert "This graph" not in graph.nearest(100).to_text()


def test_a_notebook_is_given_no_drawing_of_a_large_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracegraph.graph._SHOWN", 2)
    graph = Graph.of(tg.node(1) + 2)
    assert set(graph._repr_mimebundle_()) == {"text/plain"}
    assert graph._repr_svg_() is None
