"""A notebook that shows what this project gives is run by a real kernel and written as HTML.

Needs nbconvert, nbclient and ipykernel (`pip install 'tracegraph[notebook]'`).
"""

from __future__ import annotations

import html
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

needs = "needs tracegraph[notebook]"
nbformat = pytest.importorskip("nbformat", reason=needs)
nbclient = pytest.importorskip("nbclient", reason=needs)
nbconvert = pytest.importorskip("nbconvert", reason=needs)
pytest.importorskip("ipykernel", reason=needs)

HOSTILE = "</iframe><script>document.title = 'hacked'</script>"
CELLS = {
    "begin": f"""
        import tracegraph as tg
        from optimizers import Budget, OptoPrime, fit
        from tracegraph.llm import Scripted
        prompt = tg.node("Say {HOSTILE}.", trainable=True, name="prompt")
        reply = '{{"suggestion": {{"prompt": "Say hi."}}}}'
        optimizer = OptoPrime([prompt], llm=Scripted([reply]))
        run = tg.run("notebook", store=STORE).__enter__()
        answer = prompt.upper() + "!"
        optimizer.backward(answer, (0.25, "too long"))
    """,
    "graph": "tg.Graph.of(answer)",
    "update": "optimizer.step()",
    "parameter": "prompt",
    "node": "answer",
    "result": """
        word = tg.node("a", trainable=True, name="word")
        reply = '{"suggestion": {"word": "aaaa"}}'
        fit(
            lambda x: word + x, ["x", "yy"], lambda x, output: (float(len(output)), "longer"),
            optimizer=OptoPrime([word], llm=Scripted([reply])), budget=Budget(steps=1), workers=1,
        )
    """,
    "kept run": "run.close(); tg.History(STORE).run()",
    "history": "tg.History(STORE)",
}


@pytest.fixture(scope="module")
def notebook(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The notebook after it was run; a cell that fails fails here."""
    folder = tmp_path_factory.mktemp("notebook")
    cells = [
        nbformat.v4.new_code_cell(re.sub(r"(?m)^ {8}", "", text).strip().replace("STORE", repr(str(folder))))
        for text in CELLS.values()
    ]  # fmt: skip
    made = nbformat.v4.new_notebook(cells=cells)
    root = str(Path(__file__).resolve().parents[2])
    return nbclient.NotebookClient(
        made, timeout=60, resources={"metadata": {"path": root}}
    ).execute()


def shown(notebook: Any, cell: str) -> dict[str, str]:
    """What a cell shows, by the type of media."""
    (output,) = notebook.cells[list(CELLS).index(cell)].outputs
    assert output.output_type == "execute_result"
    return dict(output.data)


@pytest.mark.parametrize(
    ("cell", "text", "words"),
    [
        ("graph", "Graph of", "iframe"),
        ("update", "prompt", "Say hi."),
        ("parameter", "Parameter(prompt", "since the start"),
        ("result", "accepted", "scores of the candidates"),
        ("kept run", "kept run 1", "the latest steps"),
        ("history", "History(", "the latest runs"),
    ],
)
def test_each_kind_of_object_shows_itself(notebook: Any, cell: str, text: str, words: str) -> None:
    data = shown(notebook, cell)
    assert text in data["text/plain"]
    assert words in data["text/html"]


class _Elements(HTMLParser):
    """The scripts and frames of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.frames: list[dict[str, str | None]] = []
        self.scripts = 0
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        if tag == "iframe":
            self.frames.append(dict(attrs))
        self.scripts += tag == "script"


def test_it_becomes_html_in_which_words_of_others_stay_words(notebook: Any, tmp_path: Path) -> None:
    exporter = nbconvert.HTMLExporter(sanitize_html=False)
    exporter.embed_images = True
    text, _ = exporter.from_notebook_node(notebook)
    (tmp_path / "notebook.html").write_text(text, encoding="utf-8")
    (frame,) = _Elements(text).frames
    assert frame["sandbox"] == "allow-scripts"
    inner = frame["srcdoc"] or ""
    assert inner.startswith("<!DOCTYPE html>")
    assert "document.title = 'hacked'" in html.unescape(text)
    bare = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1")])
    empty, _ = exporter.from_notebook_node(bare)
    assert _Elements(text).scripts == _Elements(empty).scripts
    assert _Elements(inner).scripts == 3  # data, drawing, viewer
