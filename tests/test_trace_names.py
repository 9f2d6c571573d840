"""Every name that the page for users of Microsoft Trace tells them to use is there."""

from __future__ import annotations

import re
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

import optimizers
import tracegraph
from tracegraph import llm

PAGE = Path(__file__).parents[1] / "docs/howto/from-trace.md"


@tracegraph.bundle(trainable=True)
def traced(x: int) -> int:
    return x


HOMES: dict[str, Any] = {
    "Graph": tracegraph.Graph,
    "graph": tracegraph.Graph,
    "module": tracegraph.Module,
    "node": tracegraph.Node,
    "x": tracegraph.Node,
    "optimizer": optimizers.OptoPrime,
    "parameter": tracegraph.Parameter,
    "fun": traced,
}
ELSEWHERE = {"any", "asyncio", "guide", "llm", "optimizers", "tracegraph"}
OPTIONS = {"name", "description", "traceable", "rules", "constraint"}


def rows() -> list[tuple[str, str]]:
    found = []
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if line.startswith("| ") and len(cells) >= 2 and not cells[0].startswith("Microsoft"):
            found += [(cells[0].strip("| "), code) for code in re.findall(r"`([^`]+)`", cells[1])]
    return found


def path_of(code: str) -> list[str]:
    """The dotted path that a piece of code starts with, without what stands in brackets."""
    said = re.sub(r"^(from tracegraph import|with|output =) ", "", code).rstrip(":")
    while (bare := re.sub(r"\([^()]*\)|\[[^\[\]]*\]", "", said)) != said:
        said = bare
    return said.replace("Graph.of.", "Graph.").split(" ")[0].split(".")


def test_the_page_has_its_rows() -> None:
    assert len(rows()) > 50


@pytest.mark.parametrize(("theirs", "ours"), rows(), ids=lambda cell: str(cell)[:40])
def test_the_name_is_there(theirs: str, ours: str) -> None:
    first, *rest = path_of(ours)
    if first.endswith("="):
        assert first[:-1] in OPTIONS
    elif first not in ELSEWHERE:
        home = HOMES.get(first or "node") if rest else None
        if home is None:
            homes = [h for h in (tracegraph, optimizers, llm) if hasattr(h, first)]
            assert homes, f"{theirs}: nothing is called {first!r}"
            home = getattr(homes[0], first)
        reduce(getattr, rest, home)


LISTED = re.findall(r"`\.(\w+)", PAGE.read_text(encoding="utf-8").partition("## Name by name")[0])


@pytest.mark.parametrize("name", LISTED)
def test_what_is_listed_as_the_same_is_an_attribute(name: str) -> None:
    x = tracegraph.node("text", trainable=True, name="x")
    places = (x + "!", x, traced, tracegraph.Module(), optimizers.OptoPrime([x], llm=str.upper))
    assert any(hasattr(place, name) for place in places)
