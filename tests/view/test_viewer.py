"""The page in a real browser: opened from disk, clicked, typed into, and watched.

Needs Chromium and playwright (`pip install 'tracegraph[browser]'`); skipped where one is missing.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import tracegraph as tg
from tests.view.chromium import Opened
from tracegraph.view import (
    Box,
    Candidate,
    Curve,
    Exchange,
    Frame,
    Front,
    Page,
    Picture,
    Rejection,
    Version,
    html,
    lineage,
    write_html,
)

HOSTILE = "</script><script>window.hacked = 1</script><img src=x onerror='window.hacked = 1'>"


@tg.bundle(trainable=True)
def tidy(text: str) -> str:
    """Make it short."""
    return text.strip()[:40]


@tg.bundle
def broken(text: str) -> str:
    raise ValueError(f"cannot use {len(text)} characters")


def traced() -> tg.Graph:
    prompt = tg.node(HOSTILE, trainable=True, name="prompt", description="Said first.")
    facts = tg.node({"items": [1, {"deep": "inside"}], "tag": HOSTILE}, name="facts")
    answer = tidy(prompt + facts["tag"])
    answer.backward("Too <b>long</b>.")
    with pytest.raises(ValueError, match="cannot use") as raised:
        broken(answer)
    failed = tg.failed_node(raised.value)
    assert failed is not None
    return tg.Graph.of([answer, failed])


@pytest.fixture
def graph(browser: Any, tmp_path: Path) -> Iterator[Opened]:
    path = traced().to_html(tmp_path / "graph.html", title="a <i>title</i>")
    opened = Opened(browser, Path(path))
    yield opened
    assert opened.tab.evaluate("window.hacked") is None
    assert opened.wrong == []
    assert opened.asked == [Path(path).as_uri()]
    opened.tab.close()


@pytest.fixture
def run(browser: Any, tmp_path: Path) -> Iterator[Opened]:
    frame = traced().page().frames[0]
    texts = ("Answer.\nBe kind.", "Answer.\nBe brief.", "Answer.\nBe brief.\n" + HOSTILE)
    frames = tuple(
        Frame(
            picture=frame.picture, details=frame.details, title=f"step {n}", score=n / 10, cost=0.01,
            parameters={"prompt": Version(number=n, text=text)},
            rejections=(Rejection(parameter="prompt", reason=f"too long {HOSTILE}"),) * (n == 1),
            exchanges=(Exchange(prompt=f"improve {HOSTILE}", reply="{}"),),
        )
        for n, text in enumerate(texts)
    )  # fmt: skip
    path = write_html(Page("a run", frames), tmp_path / "run.html")
    opened = Opened(browser, path)
    yield opened
    assert opened.tab.evaluate("window.hacked") is None
    assert opened.wrong == []
    assert opened.asked == [path.as_uri()]
    opened.tab.close()


def test_a_click_tells_what_a_box_holds(graph: Opened) -> None:
    graph.box("prompt").click()
    assert graph.picked == ["prompt"]
    said = graph.side.inner_text()
    assert HOSTILE in said
    assert "Too <b>long</b>." in said
    assert "Said first." in said
    assert graph.side.locator("img, script, b:text('long')").count() == 0
    graph.side.locator(".links button").click()
    assert graph.picked == ["add"]


def test_code_is_coloured_a_tree_opens_and_an_error_is_marked(graph: Opened) -> None:
    graph.box("tidy").first.click()
    assert "return" in graph.side.locator("pre .k").all_text_contents()
    graph.box("facts").click()
    assert "deep" in graph.side.locator(".tree").inner_text()
    graph.side.locator("summary", has_text="items").click()
    assert "deep" not in graph.side.locator(".tree").inner_text()
    graph.box("broken").click()
    assert "raise ValueError" in graph.side.locator("pre.error .marked").inner_text()


def test_it_pans_zooms_and_fits(graph: Opened) -> None:
    start = graph.moved
    graph.tab.mouse.move(30, 700)
    graph.tab.mouse.down()
    graph.tab.mouse.move(130, 650, steps=4)
    graph.tab.mouse.up()
    panned = graph.moved
    assert panned != start
    assert graph.picked == []
    graph.tab.mouse.wheel(0, -300)
    zoomed = graph.moved
    assert zoomed.split("scale")[1] != panned.split("scale")[1]
    graph.tab.get_by_role("button", name="Show all ( 0 )").click()
    assert graph.moved == start


def test_it_is_worked_by_keys_alone(graph: Opened) -> None:
    start = graph.moved
    graph.tab.keyboard.press("+")
    assert graph.moved != start
    graph.tab.keyboard.press("0")
    assert graph.moved == start
    graph.tab.keyboard.press("/")
    graph.tab.keyboard.type("said first")  # only the details say it
    assert graph.tab.locator(".hit > .tg-title").all_text_contents() == ["prompt"]
    graph.tab.keyboard.press("Enter")
    assert graph.picked == ["prompt"]
    graph.tab.keyboard.press("Escape")
    assert graph.tab.locator(".hit").count() == 0
    graph.tab.keyboard.press("ArrowDown")  # the box that was found
    graph.tab.keyboard.press("ArrowDown")
    assert graph.picked == ["add"]
    graph.tab.keyboard.press("ArrowUp")
    assert graph.picked == ["prompt"]
    graph.tab.keyboard.press("n")
    assert graph.picked != ["prompt"]
    graph.tab.keyboard.press("Escape")
    assert graph.side.is_hidden()
    graph.tab.keyboard.press("?")
    assert graph.tab.locator("dialog").is_visible()
    graph.tab.keyboard.press("Escape")
    assert graph.tab.locator("dialog").is_hidden()


def test_every_box_has_a_name_for_a_screen_reader(graph: Opened) -> None:
    boxes = graph.tab.locator(".tg-box")
    labels = [box.get_attribute("aria-label") or "" for box in boxes.all()]
    assert any(label.startswith("prompt, text parameter, feedback passed") for label in labels)
    assert all(labels)
    assert graph.tab.locator('.tg-box[tabindex="0"]').count() == 1


def test_what_is_picked_is_seen_in_the_dark_too(graph: Opened) -> None:
    def colours() -> list[str]:
        found: list[str] = graph.tab.evaluate(
            "['body', '.tg-parameter > .tg-body'].map(s => { const c = getComputedStyle("
            "document.querySelector(s)); return s === 'body' ? c.backgroundColor : c.fill; })"
        )
        return found

    graph.tab.emulate_media(color_scheme="light")
    light = colours()
    graph.tab.emulate_media(color_scheme="dark")
    assert all(one != other for one, other in zip(light, colours(), strict=True))


def test_the_slider_goes_through_the_steps(run: Opened) -> None:
    tab = run.tab
    tab.get_by_role("slider", name="Step").focus()
    tab.keyboard.press("ArrowLeft")
    assert run.side.locator("h2").inner_text() == "step 1"
    assert run.side.locator(".diff .cut").all_text_contents() == ["- Be kind."]
    assert run.side.locator(".diff .add").all_text_contents() == ["+ Be brief."]
    assert HOSTILE in run.side.locator(".reason").inner_text()
    tab.get_by_role("button", name="Next step ( . )").click()
    assert run.side.locator(".diff .add").all_text_contents() == [f"+ {HOSTILE}"]
    run.side.locator("summary", has_text="call 1").click()
    run.side.locator("pre", has_text="improve").wait_for()  # it is filled when it opens
    assert f"improve {HOSTILE}" in run.side.inner_text()
    run.side.locator(".chart .dot").first.click()
    assert run.side.locator("h2").inner_text() == "step 0"


def test_a_click_on_a_curve_goes_to_the_step_that_is_nearest(run: Opened) -> None:
    score = run.side.locator("svg.chart").first
    area = score.bounding_box()
    run.tab.mouse.click(area["x"] + area["width"] * 0.5, area["y"] + 10)
    assert run.side.locator("h2").inner_text() == "step 1"
    words = score.locator("text").all_text_contents()
    assert words == ["0", "0.2", "step 0", "step 2"]  # what the axes reach from and to


def test_all_boxes_are_a_list_to_be_worked_by_keys(graph: Opened) -> None:
    tab = graph.tab
    tab.keyboard.press("l")
    listed = graph.side.locator(".links button")
    titles = tab.locator(".tg-box[data-key] > .tg-title").count()
    assert listed.count() == titles > 4
    assert "✗ failure" in listed.filter(has_text="broken").inner_text()
    tab.keyboard.press("/")
    tab.keyboard.type("deep")
    assert listed.locator("b").all_text_contents() == ["facts"]  # by its value
    listed.first.focus()
    tab.keyboard.press("Enter")
    assert graph.picked == ["facts"]
    assert graph.side.locator("h2").inner_text() == "facts"


def test_from_afar_titles_fill_their_boxes_and_stay_in_them(browser: Any, tmp_path: Path) -> None:
    titles = (
        "a",
        "price",
        "a title of some length",
        "日本語の題名",
        "answer_the_question_in_short",
    )
    boxes = tuple(Box(key=n, title=title, role="input") for n, title in enumerate(titles))
    path = write_html(Page("", (Frame(picture=Picture(boxes)),)), tmp_path / "page.html")
    graph = Opened(browser, path)
    for _ in range(5):
        graph.tab.keyboard.press("-")
    graph.until("document.querySelector('.stage').classList.contains('far')")
    found = graph.tab.evaluate("""[...document.querySelectorAll('.tg-box[data-key]')].map((box) => {
      const title = box.querySelector('.tg-title'), its = title.getBoundingClientRect();
      const around = box.querySelector('.tg-body:not(.tg-pile)').getBoundingClientRect();
      return [parseFloat(getComputedStyle(title).fontSize), its.left >= around.left &&
        its.right <= around.right && its.top >= around.top && its.bottom <= around.bottom];
    })""")
    assert [inside for _, inside in found] == [True] * len(titles)
    sizes = [size for size, _ in found]
    assert sizes[0] > 20 > sizes[-1]
    assert graph.wrong == []
    graph.tab.close()


def test_a_reply_in_json_is_a_tree_whose_texts_have_lines(browser: Any, tmp_path: Path) -> None:
    reply = '{"reasoning": "<b>short</b>", "suggestion": {"prompt": "one\\ntwo"}}'
    asked = (Exchange(prompt="improve", reply=reply), Exchange(prompt="improve", reply="{no"))
    frame = Frame(picture=traced().picture(), exchanges=asked)
    opened = Opened(browser, write_html(Page("", (frame,)), tmp_path / "page.html"))
    opened.tab.keyboard.press("d")
    for call in opened.side.locator("details.item > summary").all():
        call.click()
    assert opened.side.locator(".tree pre").all_text_contents() == ["one\ntwo"]
    assert '"<b>short</b>"' in opened.side.locator(".tree").inner_text()
    assert opened.side.locator("pre").all_text_contents()[-1] == "{no"
    assert opened.wrong == []
    opened.tab.close()


def test_on_paper_the_picture_is_whole_with_its_legend(graph: Opened) -> None:
    tab = graph.tab
    assert tab.locator(".legend").is_visible()
    assert not tab.locator(".stage .tg-legend").is_visible()
    for _ in range(8):
        tab.keyboard.press("-")
    graph.until("document.querySelector('.stage').classList.contains('far')")
    assert tab.locator(".legend").bounding_box()["height"] > 20  # at every scale
    tab.emulate_media(media="print")
    tab.set_viewport_size({"width": 500, "height": 700})
    tab.evaluate(
        """() => {
            const press = new KeyboardEvent("keydown", { key: "-", bubbles: true });
            (document.activeElement ?? document.body).dispatchEvent(press);
            window.dispatchEvent(new Event("beforeprint"));
        }"""
    )
    tab.wait_for_timeout(300)  # what the viewer does of itself after a change of scale is over
    paper = tab.locator(".stage > svg").bounding_box()
    assert paper["x"] >= 0
    assert paper["x"] + paper["width"] <= 500
    assert paper["y"] + paper["height"] <= 700
    assert tab.locator(".stage .tg-legend").is_visible()
    assert not tab.locator(".legend").is_visible()
    assert tab.locator(".stage .tg-line").first.is_visible()  # paper is sharp: values, too


def test_what_is_picked_stays_picked_from_step_to_step(run: Opened) -> None:
    run.box("prompt").click()
    run.tab.keyboard.press(",")
    assert run.picked == ["prompt"]


def test_another_picture_is_drawn_when_its_step_comes(browser: Any, tmp_path: Path) -> None:
    frames = tuple(
        Frame(
            picture=tg.Graph.of(tg.node(n, name=f"only_{n}")).picture(),
            details={},
            note=HOSTILE,
        )
        for n in range(3)
    )
    opened = Opened(browser, write_html(Page("", frames), tmp_path / "page.html"))
    assert opened.box("only_2").count() == 1
    opened.tab.keyboard.press(",")
    assert opened.box("only_1").count() == 1
    assert opened.box("only_2").count() == 0
    assert opened.wrong == []
    opened.tab.close()


def test_a_script_that_slips_in_does_not_run(browser: Any, tmp_path: Path) -> None:
    page = html(Page("", (Frame(picture=traced().picture(), details={}),)))
    path = tmp_path / "page.html"
    path.write_text(page.replace("</main>", "</main><script>window.hacked = 1</script>"))
    opened = Opened(browser, path)
    assert opened.tab.evaluate("window.hacked") is None
    assert any("Content Security Policy" in said for said in opened.wrong)
    opened.tab.close()


def test_a_notebook_shows_it_in_a_frame_of_its_own(browser: Any, tmp_path: Path) -> None:
    told = traced()._repr_mimebundle_()
    assert set(told) == {"text/plain", "image/svg+xml", "text/html"}
    path = tmp_path / "notebook.html"
    path.write_text(f"<!DOCTYPE html><meta charset=utf-8>{told['text/html']}", encoding="utf-8")
    tab = browser.new_page()
    tab.goto(path.as_uri())
    inside = tab.frame_locator("iframe")
    inside.locator(".tg-box", has_text="facts").click()
    assert "deep" in inside.locator("aside").inner_text()
    tab.close()


def test_candidates_are_a_tree_with_curves_and_a_front(browser: Any, tmp_path: Path) -> None:
    tried = (
        Candidate(id="start", score=0.1, values={"prompt": "Be kind."}, scores={"a": 0.1, "b": 0.5}),
        Candidate(id="worse", parents=("start",), status="rejected", note=f"0 < 0.1 {HOSTILE}"),
        Candidate(
            id="best", parents=("start",), score=0.9, step=1, status="accepted",
            values={"prompt": f"Be brief.\n{HOSTILE}"}, scores={"a": 0.9, "b": 0.4},
        ),
    )  # fmt: skip
    points = (("start", 0.1, 0.5), ("best", 0.9, 0.4))
    page = Page(
        "a search", (Frame(picture=traced().picture(), title="step 1"),), lineage(tried),
        (Curve("Spend", ((0, 0.1), (1, 0.4)), "$"),),
        (Front(x="a", y="b", points=points, best=frozenset(("start", "best"))),),
    )  # fmt: skip
    opened = Opened(browser, write_html(page, tmp_path / "page.html"))
    tab = opened.tab
    assert opened.box("prompt").count() == 1  # the page begins with its steps
    tab.keyboard.press("c")
    assert opened.box("prompt").count() == 0
    assert "$0.1\n$0.4" in opened.side.inner_text()
    assert opened.side.locator(".chart .front").count() == 2
    opened.side.locator(".chart .front").last.click()
    assert opened.picked == ["best"]
    assert opened.side.locator(".diff .add").all_text_contents() == ["+ Be brief.", f"+ {HOSTILE}"]
    assert "Made from (1)".upper() in opened.side.inner_text().upper()
    opened.box("worse").click()
    assert f"0 < 0.1 {HOSTILE}" in opened.side.inner_text()
    label = opened.tab.locator('[data-key="2"]').get_attribute("aria-label")
    assert label.startswith("worse, rejected")
    tab.get_by_role("button", name="Candidates and curves").click()
    assert opened.box("prompt").count() == 1
    assert tab.evaluate("window.hacked") is None
    assert opened.wrong == []
    tab.close()


def test_an_array_is_shown_as_a_picture(browser: Any, tmp_path: Path) -> None:
    import numpy

    photo = tg.node(numpy.arange(16 * 24 * 3, dtype=numpy.uint8).reshape(16, 24, 3), name="photo")
    opened = Opened(browser, Path(tg.Graph.of(photo).to_html(tmp_path / "page.html")))
    opened.box("photo").click()
    size = "document.querySelector('img.picture')"
    opened.until(f"{size}.complete")
    assert opened.tab.evaluate(f"[{size}.naturalWidth, {size}.naturalHeight]") == [24, 16]
    assert opened.wrong == []
    opened.tab.close()


def test_an_entry_of_every_form_is_shown(browser: Any, tmp_path: Path) -> None:
    import numpy

    values = tg.node(numpy.arange(12.0).reshape(3, 4), name="values")
    opened = Opened(browser, Path(tg.Graph.of(values).to_html(tmp_path / "page.html")))
    opened.box("values").click()
    said = opened.side.inner_text()
    assert "3 × 4" in said
    assert "5.5" in said
    assert opened.side.locator(".chart .bin").count() == 24
    assert opened.wrong == []
    opened.tab.close()


def test_a_loop_is_one_box_that_opens(browser: Any, tmp_path: Path) -> None:
    rule = tg.node("be kind", trainable=True, name="rule")
    value: Any = tg.node("start", name="first")
    for number in range(60):
        value = (value.upper() + rule)[:9] + tg.node(f"note {number}", name="note")
    opened = Opened(browser, Path(tg.Graph.of(value).to_html(tmp_path / "page.html")))
    tab = opened.tab

    def titles() -> list[str]:
        found: list[str] = tab.locator(".tg-box > .tg-title").all_text_contents()
        return found

    crumbs = tab.get_by_role("navigation", name="Opened boxes")
    whole = titles()
    assert len(whole) < 10
    assert "rule" in whole  # a parameter is never hidden
    opened.box("loop of 59").dblclick()
    assert "1 to 24" in titles()
    opened.box("1 to 24").click()
    opened.side.get_by_role("button", name="Open: ").click()
    assert "3 of 59" in titles()
    tab.keyboard.press("Enter")  # the first box with inputs has the focus
    assert "upper" in titles()
    assert crumbs.locator("button").all_text_contents() == ["whole graph", "loop of 59", "1 to 24"]
    tab.keyboard.press("Backspace")
    assert "3 of 59" in titles()
    crumbs.get_by_role("button", name="whole graph").click()
    assert titles() == whole
    assert opened.picked == ["loop of 59"]
    tab.keyboard.press("/")
    tab.keyboard.type("note 41")
    tab.keyboard.press("Enter")
    assert crumbs.is_visible()
    assert "note 41" in opened.side.inner_text()
    assert opened.wrong == []
    tab.close()


def test_of_a_large_graph_only_what_is_near_is_drawn(browser: Any, tmp_path: Path) -> None:
    value = tg.node(0, name="start")
    for _ in range(300):
        value = -value
    frame = Frame(picture=tg.Graph.of(value).picture())  # not folded
    opened = Opened(browser, write_html(Page("", (frame,)), tmp_path / "page.html"))

    def drawn() -> list[str]:
        found: list[str] = opened.tab.evaluate(
            "[...document.querySelectorAll('.tg-box')].filter(b => b.style.display !== 'none')"
            ".map(b => b.dataset.key)"
        )
        return found

    assert len(drawn()) < 60  # it begins at the end
    assert str(value.id) in drawn()
    opened.tab.keyboard.press("/")
    opened.tab.keyboard.type("start")
    opened.tab.keyboard.press("Enter")
    opened.moved
    assert opened.picked == ["start"]
    assert opened.tab.locator(".picked").is_visible()
    assert str(value.id) not in drawn()
    opened.tab.keyboard.press("Escape")
    opened.tab.keyboard.press("0")
    opened.moved
    assert len(drawn()) == 301
    assert opened.wrong == []
    opened.tab.close()
