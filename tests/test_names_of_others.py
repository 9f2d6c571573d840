"""Every name that the pages for users of other libraries tell them to use is there."""

from __future__ import annotations

import inspect
import re
from functools import reduce
from pathlib import Path
from typing import Any

import pytest

import optimizers
import tracegraph
from tracegraph import llm

PAGES = Path(__file__).parents[1] / "docs/howto"
NAMES = ("from-trace", "from-textgrad", "from-dspy")


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
    "tg": tracegraph,
    "fun": traced,
}
ELSEWHERE = {"any", "functions", "guide", "llm", "optimizers", "tracegraph"}
OPTIONS = {
    option
    for takes in (tracegraph.bundle, optimizers.fit, optimizers.OptoPrime)
    for option in inspect.signature(takes).parameters
}


def text_of(name: str) -> str:
    return (PAGES / f"{name}.md").read_text(encoding="utf-8")


def rows() -> list[tuple[str, str]]:
    found = []
    for line in "\n".join(map(text_of, NAMES)).splitlines():
        cells = [cell.strip() for cell in line.strip("|").split(" | ")]
        if (
            line.startswith("| ")
            and len(cells) >= 2
            and not re.match("[| ]*(Microsoft|TextGrad|DSPy)", cells[0])
        ):
            found += [(cells[0].strip("| "), code) for code in re.findall(r"`([^`]+)`", cells[1])]
    return found


def path_of(code: str) -> list[str]:
    """The dotted path that a piece of code starts with, without what stands in brackets."""
    said = re.sub(r"^(from tracegraph import|with|output =) ", "", code).rstrip(":")
    while (bare := re.sub(r"\([^()]*\)|\[[^\[\]]*\]", "", said)) != said:
        said = bare
    return said.replace("Graph.of.", "Graph.").split(" ")[0].split(".")


def test_the_page_has_its_rows() -> None:
    assert len(rows()) > 100


@pytest.mark.parametrize(("theirs", "ours"), rows(), ids=lambda cell: str(cell)[:40])
def test_the_name_is_there(theirs: str, ours: str) -> None:
    first, *rest = path_of(ours)
    if option := re.match(r"(\w+)=", ours):
        assert option[1] in OPTIONS
    elif re.match(r"\w+", first) and first not in ELSEWHERE:
        home = HOMES.get(first or "node") if rest else None
        if home is None:
            homes = [h for h in (tracegraph, optimizers, llm) if first in h.__all__]
            assert homes, f"{theirs}: nothing is called {first!r}"
            home = getattr(homes[0], first)
        reduce(getattr, rest, home)


LISTED = re.findall(r"`\.(\w+)", text_of("from-trace").partition("## Name by name")[0])


@pytest.mark.parametrize("name", LISTED)
def test_what_is_listed_as_the_same_is_an_attribute(name: str) -> None:
    x = tracegraph.node("text", trainable=True, name="x")
    places = (x + "!", x, traced, tracegraph.Module(), optimizers.OptoPrime([x], llm=str.upper))
    assert any(hasattr(place, name) for place in places)
