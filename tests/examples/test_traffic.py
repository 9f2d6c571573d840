"""The main job: it runs, it improves, it reads an error as feedback, and it draws the graph."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

pytest.importorskip("uxsim", reason="the traffic example needs the extra 'examples'")

import tracegraph as tg
from examples import traffic
from tracegraph.llm import Scripted


def test_a_step_of_the_search_does_not_get_worse_and_draws_the_graph(tmp_path: Path) -> None:
    graph = tmp_path / "graph.svg"
    best = traffic.main(["--quick", "--graph", str(graph)])
    assert best <= 52.96  # the start, (60, 60)
    words = "".join(ET.parse(graph).getroot().itertext())
    assert "create_world" in words
    assert "ew_green" in words


def test_a_model_is_shown_the_waits_and_its_plan_is_kept_when_better() -> None:
    greens = traffic.parameters()
    reply = '{"reasoning": "less red", "suggestion": {"ew_green": 50, "ns_green": 25}}'
    model = Scripted([reply])
    said: list[str] = []
    traffic.ask_model(greens, 2, 0, model, said.append)
    assert (greens["ew_green"].data, greens["ns_green"].data) == (50.0, 25.0)
    asked = model.requests[0].messages[-1].text
    assert "Drivers wait" in asked
    assert "create_world" in asked


def test_a_green_time_out_of_range_becomes_feedback() -> None:
    greens = {"ew_green": tg.node(5.0, trainable=True, name="ew_green"), "ns_green": tg.node(20.0)}
    output, score, said = traffic.run(greens, seed=0)
    assert score is None
    assert "ew_green must lie within [15, 90]" in said
    assert output.failure is not None
    assert greens["ew_green"] in output.backward(said)
