"""What each call of a graph took is kept with it, and shown wherever the graph is."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import tracegraph as tg
from optimizers import OptoPrime
from tracegraph.history import KeptNode, KeptRun
from tracegraph.history.pages import page
from tracegraph.history.spans import spans_of
from tracegraph.llm import Reply, Scripted, Usage
from tracegraph.recorder import timed


@tg.bundle
def slow(text: str) -> str:
    """The text, late."""
    time.sleep(0.02)
    return text


@tg.bundle
def broken(text: str) -> str:
    time.sleep(0.02)
    raise ValueError(text)


def by_label(kept: KeptRun) -> dict[str, KeptNode]:
    return {node.label: node for node in kept.graph(1).nodes}


def test_a_call_keeps_when_it_began_and_what_it_took(tmp_path: Path) -> None:
    with tg.run("spent", store=tmp_path) as run:
        before = time.time()
        said = slow("a") + "!"
        after = time.time()
        time.sleep(0.02)
        run.step(said)
    nodes = by_label(tg.History(tmp_path).run("spent"))
    call = nodes["slow"]
    assert call.began is not None
    assert call.seconds is not None
    assert before - 0.005 <= call.began
    assert call.seconds >= 0.02
    assert call.began + call.seconds <= after + 0.005
    assert {n.seconds for label, n in nodes.items() if label != "slow"} == {None}


def test_nothing_is_timed_where_no_run_is_kept() -> None:
    assert "seconds" not in slow("a").info
    with timed(), timed():
        pass
    assert timed.open == 0
    with pytest.raises(ValueError, match="stop"), timed():
        raise ValueError("stop")
    assert "seconds" not in slow("a").info


def test_calls_of_other_threads_and_failures_are_timed(tmp_path: Path) -> None:
    made: list[tg.Node[str]] = []
    with tg.run("spent", store=tmp_path) as run:
        thread = threading.Thread(target=lambda: made.append(slow("a")))
        thread.start()
        thread.join()
        with pytest.raises(tg.ExecutionError) as caught:
            broken(made[0])
        run.step(caught.value.exception_node)
    nodes = by_label(tg.History(tmp_path).run("spent"))
    assert (nodes["slow"].seconds or 0) >= 0.02
    assert (nodes["broken"].seconds or 0) >= 0.02
    assert nodes["broken"].failure is not None


def test_awaited_calls_and_items_of_generators_have_their_own_times() -> None:
    @tg.bundle
    async def late(text: str) -> str:
        await asyncio.sleep(0.02)
        return text

    @tg.bundle
    def items(count: int) -> Iterator[int]:
        for number in range(count):
            time.sleep(0.01)
            yield number

    async def both() -> list[tg.Node[str]]:
        return list(await asyncio.gather(late("a"), late("b")))

    with timed():
        told = asyncio.run(both())
        started = time.perf_counter()
        given = []
        for item in items(2):
            time.sleep(0.03)  # not the generator's
            given.append(item)
    assert all(node.info["seconds"] >= 0.02 for node in told)
    assert told[1].info["began"] < told[0].info["began"] + told[0].info["seconds"]
    first, second = (node.info for node in given)
    assert started <= first["began"] < second["began"]
    assert second["began"] >= first["began"] + first["seconds"] + 0.03


def test_tokens_and_dollars_of_a_call_are_kept(tmp_path: Path) -> None:
    llm = Scripted([Reply("yes", usage=Usage(10, 5), cost=0.25)])
    with tg.run("spent", store=tmp_path) as run:
        run.step(tg.call_llm(llm, None, "Is it?"))
    node = by_label(tg.History(tmp_path).run("spent"))["call_llm"]
    assert (node.tokens_in, node.tokens_out, node.cost) == (10, 5, 0.25)
    assert node.spent.keys() == {"time", "tokens", "cost"}


def test_a_page_says_what_a_call_took_and_that_an_operator_was_not_timed(tmp_path: Path) -> None:
    with tg.run("spent", store=tmp_path) as run:
        run.step(slow("a") + "!")
    kept = tg.History(tmp_path).run("spent")
    (frame,) = page(kept).frames
    told = [e.content for entries in frame.details.values() for e in entries if e.form == "facts"]
    times = {facts.get("operation"): facts.get("time") for facts in told}
    assert times["slow"].endswith(" ms")
    assert times["add"] == "not timed"
    assert times[None] is None  # an input takes no time
    timed_spans = {s.name: s.attributes.get("tracegraph.timed") for s in spans_of(kept)}
    assert (timed_spans["slow"], timed_spans["add"]) == (True, False)


def test_spans_have_the_times_of_their_calls(tmp_path: Path) -> None:
    with tg.run("spent", store=tmp_path) as run:
        time.sleep(0.01)
        run.step(slow(slow("a") + "b"))
        run.step(slow("c") + "d")
    kept = tg.History(tmp_path).run("spent")
    spans = list(spans_of(kept))
    root, steps = spans[0], [s for s in spans if s.parent == 0]
    assert root.began == kept.created
    for step, number in zip(steps, (1, 2), strict=True):
        nodes = {n.number: n for n in kept.graph(number).nodes}
        own = [s for s in spans if s.parent == step.number]
        for span in own:
            node = nodes[int(span.attributes["graph.node.id"])]
            assert span.ended - span.began == pytest.approx(node.seconds or 0.0, abs=1e-6)
            assert step.began <= span.began
            used = [spans[source].ended for source, _ in span.links]
            assert all(end <= span.began + 1e-6 for end in used)
        assert step.began == min(n.began for n in nodes.values() if n.began is not None)
    assert steps[0].began < steps[1].began


def test_what_a_person_adds_to_a_step_has_its_own_times(tmp_path: Path) -> None:
    prompt = tg.node("a", trainable=True, name="prompt")
    optimizer = OptoPrime([prompt], llm=Scripted(['{"suggestion": {"prompt": "b"}}']))
    with tg.run("spent", store=tmp_path) as run:
        optimizer.backward(slow(prompt), "too short")
        update = optimizer.step()
        time.sleep(0.02)
        before = time.time()
        said = slow("c")
        after = time.time()
        run.step(said, update=update)
    call = by_label(tg.History(tmp_path).run("spent"))["slow"]
    assert call.value == "'c'"
    assert call.began is not None
    assert before - 0.005 <= call.began
    assert call.began + (call.seconds or 0.0) <= after + 0.005


def test_a_graph_is_kept_once_though_its_times_differ(tmp_path: Path) -> None:
    with tg.run("spent", store=tmp_path) as run:
        for _ in range(3):
            run.step(slow("a"))
    with tg.History(tmp_path)._reading() as connection:
        rows = connection.execute("SELECT graph, shown, spent FROM steps").fetchall()
    assert [len(set(column)) for column in zip(*rows, strict=True)] == [1, 1, 3]
