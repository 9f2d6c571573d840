"""A kept run as a page: its steps, its candidates, its curves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

import tracegraph as tg
from optimizers import OptoPrime
from tracegraph.errors import HistoryError
from tracegraph.history import History, KeptRun
from tracegraph.history.pages import page, report
from tracegraph.view import Page, tree


@tg.bundle
def ask(question: str, prompt: str) -> str:
    """Ask it."""
    return question + prompt


def _replies() -> Iterator[str]:
    for number in count(1):
        yield f'{{"reasoning": "shorter", "suggestion": {{"prompt": "Line {number}"}}}}'


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> KeptRun:
    folder = tmp_path_factory.mktemp("history")
    prompt = tg.node("Answer.", trainable=True, name="prompt")
    replies = _replies()
    with tg.run("a search", store=folder) as run:
        optimizer = OptoPrime([prompt], llm=lambda _: next(replies))
        for step in range(3):
            answer = ask("Where? ", prompt)
            optimizer.zero_feedback()
            optimizer.backward(answer, "Too long.")
            run.step(update=optimizer.step(), score=step / 10)
        run.candidate(
            "a", score=0.5, values={"prompt": "Answer."}, scores={"right": 0.1, "short": 1}
        )
        run.candidate(
            "b", parents=["a"], score=0.7, status="accepted", values={"prompt": "Line 1"},
            scores={"right": 0.9, "short": 0.2},
        )  # fmt: skip
        run.candidate("c", parents=["b"], score=0.1, status="rejected", reason="worse than b")
    return History(folder).run()


@pytest.fixture(scope="module")
def shown(kept: KeptRun) -> Page:
    return page(kept)


def test_each_step_tells_what_its_nodes_held_and_what_was_said(shown: Page) -> None:
    assert [frame.title for frame in shown.frames] == ["step 1", "step 2", "step 3"]
    frame = shown.frames[1]
    (answer,) = [box.key for box in frame.picture.boxes if box.role == "output"]
    told = {entry.heading: entry.content for entry in frame.details[answer]}
    assert told["Value"] == "Where? Line 1"
    assert told["About"]["type"] == "str"
    assert told["Documentation"] == "Ask it."
    assert told["Feedback given here"] == "Too long."
    assert frame.exchanges[0].reply.startswith('{"reasoning"')
    assert frame.parameters["prompt"].text == "Line 2"


def test_candidates_come_with_their_parents_reasons_and_front(shown: Page) -> None:
    assert shown.candidates is not None
    boxes = {box.title: box for box in shown.candidates.picture.boxes}
    assert {title: box.role for title, box in boxes.items()} == {
        "a": "input", "b": "output", "c": "failure",
    }  # fmt: skip
    assert [box.title for box in boxes.values() if box.kind == "front"] == ["a", "b"]
    said = {e.heading: e.content for e in shown.candidates.details[boxes["c"].key]}
    assert said["Why it was rejected"] == "worse than b"
    (front,) = shown.fronts
    assert (front.x, front.y, front.best) == ("right", "short", {"a", "b"})


def test_curves_go_over_the_whole_run(shown: Page) -> None:
    curves = {curve.name: [y for _, y in curve.points] for curve in shown.curves}
    assert curves["Best score by candidate"] == [0.5, 0.7, 0.7]
    assert curves["Score"] == [0.0, 0.1, 0.2]


def test_a_report_is_one_file(kept: KeptRun, tmp_path: Path) -> None:
    path = report(kept, tmp_path / "run.html")
    assert path.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_objectives_are_scores_by_name(tmp_path: Path) -> None:
    with tg.run("objectives", store=tmp_path) as run:
        run.candidate("a", score=1.0, scores={"right": 1.0, "cheap": -2.0})
    shown = page(History(tmp_path).run())
    assert shown.frames == ()
    assert shown.candidates is not None
    told = {entry.heading: entry.content for entry in shown.candidates.details[1]}
    assert told["Scores"] == {"right": "1", "cheap": "-2"}


def test_examples_are_compared_where_all_were_scored_on_as_many(tmp_path: Path) -> None:
    with tg.run("examples", store=tmp_path) as run:
        run.candidate("a", score=0.5, status="validated", examples=[1.0, 0.0])
        run.candidate("tried", parents=["a"], status="rejected", examples=[1.0, 0.0, 0.0])
        run.candidate("b", parents=["a"], score=1.0, status="validated", examples=[1.0, 1.0])
    shown = page(History(tmp_path).run())
    assert shown.fronts == ()  # which example is which, nobody asks
    assert shown.candidates is not None
    boxes = shown.candidates.picture.boxes
    assert [box.title for box in boxes if box.kind == "front"] == ["b"]


@tg.bundle
def gather(word: str) -> dict[str, object]:
    return {"said": word, "parts": [1, None]}


@tg.bundle
def odd(word: str) -> Path:
    return Path(word)


@tg.bundle(trainable=True)
def tidy(word: str) -> str:
    return word.strip()


def test_values_are_shown_as_what_they_were(tmp_path: Path) -> None:
    lines = tg.node("two\nlines '\"", trainable=True, name="lines")
    long = tidy(lines) + "a" * 3_000
    optimizer = OptoPrime([lines, *tidy.parameters()], llm=lambda _: '{"suggestion": {}}')
    with tg.run("values", store=tmp_path):
        optimizer.backward([(gather(lines), "no"), (odd(long), "no")])
        optimizer.step()
    (frame,) = page(History(tmp_path).run()).frames
    told = {
        box.title + box.kind: {entry.heading: entry for entry in frame.details[box.key]}
        for box in frame.picture.boxes
    }
    value = {
        name: (entries["Value"].form, entries["Value"].content) for name, entries in told.items()
    }
    assert value["linestext"] == ("text", lines.data)
    assert value["gather"] == ("tree", tree(gather(lines).data, repr))
    assert value["odd"][1].startswith("PosixPath(")
    (code,) = [content for form, content in value.values() if form == "code"]
    assert code == tidy.parameters()[0].data
    kept = value["add"][1]
    assert kept.startswith("two\nlines '\"aaa")
    assert kept.endswith(" characters)")


def test_of_many_steps_some_are_shown_the_ends_among_them(tmp_path: Path) -> None:
    with tg.run("long", store=tmp_path) as run:
        for number in range(450):
            run.step(score=number / 450, parameters={})
    frames = page(History(tmp_path).run()).frames
    assert len(frames) == 400
    assert (frames[0].title, frames[-1].title) == ("step 1", "step 450")


def test_a_run_with_nothing_to_show_says_so(tmp_path: Path) -> None:
    with tg.run("nothing", store=tmp_path):
        pass
    with pytest.raises(HistoryError, match="neither a step nor a candidate"):
        page(History(tmp_path).run())


def test_the_way_of_feedback_is_marked_as_in_the_graph_itself(tmp_path: Path) -> None:
    prompt = tg.node("Answer.", trainable=True, name="prompt")
    other = tg.node("Calm.", trainable=True, name="other")
    optimizer = OptoPrime([prompt], llm=lambda _: '{"suggestion": {}}')
    first = ask(tg.node("Where? ", name="question"), prompt)
    aside = ask(other, "not used")
    last = ask(ask(first, other), first)
    with tg.run("way", store=tmp_path):
        optimizer.backward(last, "Too long.")
        live = tg.Graph.of([last, aside]).picture()
        optimizer.step()
    (frame,) = page(History(tmp_path).run()).frames
    wanted = {(box.title, box.lines[0]): box.on_path for box in live.boxes}
    marked = {(box.title, box.lines[0]): box.on_path for box in frame.picture.boxes}
    both = wanted.keys() & marked.keys()
    assert len(both) >= 6
    assert {True, False} == {marked[box] for box in both}
    assert {box: marked[box] for box in both} == {box: wanted[box] for box in both}
    assert [box.lines[0] for box in frame.picture.boxes if box.feedback == "Too long."] == [
        repr(last.data)
    ]
    heads = {box.key: box.on_path for box in frame.picture.boxes}
    assert all(
        arrow.on_path == (heads[arrow.tail] and heads[arrow.head]) for arrow in frame.picture.arrows
    )


def test_a_run_that_ended_early_says_so_and_why(tmp_path: Path) -> None:
    with suppress(OSError), tg.run("early", store=tmp_path) as run:
        run.step(ask("Where? ", "Answer."), note="first")
        run.step(ask("Where? ", "Again."), note="second")
        raise OSError("the disk is full")
    shown = page(History(tmp_path).run())
    assert shown.title == "early (failed)"
    assert shown.frames[0].note == "first"
    assert shown.frames[1].note.splitlines() == [
        "second",
        "The run ended here: OSError: the disk is full",
    ]
