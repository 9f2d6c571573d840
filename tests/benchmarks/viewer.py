"""Pages of large graphs beside the program ``dot``: run `python -m tests.benchmarks.viewer`.

Times are of the processor, the least of three. Crossings are counted in the drawn lines, for the
same boxes and arrows, by pairs of arrows that share no box.
"""

from __future__ import annotations

import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

import tracegraph as tg
from tracegraph import view
from tracegraph.view.layout import Size, layered

SIZES = (300, 1_000, 5_000)
CROSSED = 300  # boxes of the pictures whose crossings are counted
BOX = Size(120, 50)


def workflow(nodes: int) -> tg.Graph:
    """Examples that each pass a few stages with shared parameters."""
    prompt = tg.node("Answer.", trainable=True, name="prompt")
    style = tg.node("calm", trainable=True, name="style")
    outputs: list[tg.Node[Any]] = []
    for number in range(nodes // 7):
        question = tg.node(f"question {number}", name=f"question_{number}")
        asked = prompt + question
        outputs.append(((asked.upper() + style).strip() + asked).lower())
    return tg.Graph.of(outputs)


def tangle(nodes: int) -> tg.Graph:
    """Sums and products of earlier values, near and far: deep, and hard to lay out."""
    draw = random.Random(1)
    first = [
        tg.node(draw.random(), trainable=True, name=f"p{i}") for i in range(max(3, nodes // 40))
    ]
    made: list[tg.Node[Any]] = list(first)
    while len(made) < nodes:
        one = draw.choice(made[-12:])
        other = draw.choice(made[-60:] if draw.random() < 0.9 else first)
        made.append(one + other if draw.random() < 0.6 else one * other)
    return tg.Graph.of(made)


def least(work: Callable[[], Any], times: int = 3) -> float:
    """The least processor time that `work` took, in seconds."""
    taken = []
    for _ in range(times):
        sys.modules["tracegraph.view.svg"]._laid.cache_clear()  # it would give the layout at once
        start = time.process_time()
        work()
        taken.append(time.process_time() - start)
    return min(taken)


def dot(picture: view.Picture) -> tuple[list[np.ndarray[Any, Any]], float]:
    """The lines that ``dot`` draws for boxes of one size, and its processor time in seconds."""
    arrows = "".join(f"{tail}->{head};" for tail, head in picture.indexed())
    nodes = "".join(f"{n};" for n in range(len(picture.boxes)))
    shape = f"node[shape=box,fixedsize=true,width={BOX.width / 72},height={BOX.height / 72}];"
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    told = subprocess.run(
        ["dot", "-Tplain"], input=f"digraph{{{shape}{nodes}{arrows}}}", text=True,
        capture_output=True, check=True, timeout=60,
    ).stdout  # fmt: skip
    spent = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    lines: dict[tuple[int, int], list[np.ndarray[Any, Any]]] = {}
    for row in told.splitlines():
        kind, *words = row.split()
        if kind == "edge":
            count = int(words[2])
            points = np.array(words[3 : 3 + 2 * count], float).reshape(-1, 2) * 72
            lines.setdefault((int(words[0]), int(words[1])), []).append(points)
    return [smooth(lines[end].pop()) for end in picture.indexed()], spent


def ours(picture: view.Picture) -> list[np.ndarray[Any, Any]]:
    """The lines that we draw for the same."""
    found = layered([BOX] * len(picture.boxes), picture.indexed())
    lines = []
    for route in found.routes:
        points = [route[0]]
        for a, b in pairwise(route):
            bend = 0.55 * (b.y - a.y)
            points += [type(a)(a.x, a.y + bend), type(b)(b.x, b.y - bend), b]
        lines.append(smooth(np.array(points, float)))
    return lines


def smooth(points: np.ndarray[Any, Any], parts: int = 6) -> np.ndarray[Any, Any]:
    """Points on Bezier curves that share their ends."""
    t = np.linspace(0, 1, parts + 1)[:, None]
    pieces = [points[:1]]
    for at in range(0, len(points) - 1, 3):
        a, b, c, d = points[at : at + 4]
        curve = a * (1 - t) ** 3 + 3 * b * t * (1 - t) ** 2 + 3 * c * t**2 * (1 - t) + d * t**3
        pieces.append(curve[1:])
    return np.concatenate(pieces)


def crossings(lines: Sequence[np.ndarray[Any, Any]], ends: Sequence[tuple[int, int]]) -> int:
    """Where lines cross that share no box; arrows of one tail that run on one line count once."""
    start = np.concatenate([line[:-1] for line in lines])
    stop = np.concatenate([line[1:] for line in lines])
    owner = np.repeat(np.arange(len(lines)), [len(line) - 1 for line in lines])
    tail, head = np.array(ends).T
    low, high = np.minimum(start, stop), np.maximum(start, stop)
    found: set[tuple[int, int, int, int]] = set()
    for at in range(len(start)):
        one, p, way = owner[at], start[at], stop[at] - start[at]
        near = np.flatnonzero(
            (owner > one) & (low <= high[at]).all(axis=1) & (high >= low[at]).all(axis=1)
        )
        other = owner[near]
        apart = (tail[other] != tail[one]) & (tail[other] != head[one])
        near = near[apart & (head[other] != tail[one]) & (head[other] != head[one])]
        r, its = start[near] - p, stop[near] - start[near]
        with np.errstate(all="ignore"):  # parallel lines
            turn = way[0] * its[:, 1] - way[1] * its[:, 0]
            along = (r[:, 0] * its[:, 1] - r[:, 1] * its[:, 0]) / turn
            across = (r[:, 0] * way[1] - r[:, 1] * way[0]) / turn
        for hit in np.flatnonzero((along > 0) & (along < 1) & (across > 0) & (across < 1)):
            x, y = (p + along[hit] * way).round().astype(int)
            pair = sorted((int(tail[one]), int(tail[owner[near[hit]]])))
            found.add((pair[0], pair[1], int(x), int(y)))
    return len(found)


def opened(pages: dict[str, Path]) -> None:
    """Print how long Chromium takes to show each page, and what it draws while panning."""
    chromium = next(filter(None, map(shutil.which, ("chromium", "google-chrome"))), None)
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        chromium = None
    if chromium is None:
        print("no Chromium or no playwright: showing is not measured")
        return
    pan = """() => new Promise(done => {
      const root = document.getElementById("graph"), times = [];
      let x = 400, y = 300;
      root.setPointerCapture = () => {};
      const fire = (kind) => root.dispatchEvent(new PointerEvent(kind,
        { pointerId: 1, clientX: x, clientY: y, button: 0, bubbles: true }));
      fire("pointerdown");
      const step = (now) => {
        times.push(now);
        if (times.length > 90) { fire("pointerup"); done((times.at(-1) - times[0]) / 90); return; }
        y += 7; fire("pointermove"); requestAnimationFrame(step);
      };
      requestAnimationFrame(step);
    })"""
    print(f"\n{'page':<24}{'painted s':>10}{'ready s':>9}{'frames/s':>10}{'whole':>7}")
    with sync_playwright() as driver:
        browser = driver.chromium.launch(
            executable_path=chromium, args=["--no-sandbox", "--disable-gpu"]
        )
        for name, path in pages.items():
            tab = browser.new_page(viewport={"width": 1300, "height": 800})
            start = time.perf_counter()
            tab.goto(path.as_uri())
            tab.wait_for_selector("html[data-ready]")
            ready = time.perf_counter() - start
            paint = tab.evaluate(
                "new Promise(r => requestAnimationFrame(() => requestAnimationFrame(() => "
                "r(performance.getEntriesByName('first-contentful-paint')[0].startTime))))"
            )
            near = tab.evaluate(pan)
            tab.keyboard.press("0")
            tab.wait_for_timeout(3_000)
            far = tab.evaluate(pan)
            print(
                f"{name:<24}{paint / 1000:>10.2f}{ready:>9.2f}{1000 / near:>10.0f}{1000 / far:>7.0f}"
            )
            tab.close()
        browser.close()


def main() -> None:
    """Print seconds and megabytes of pages, crossings beside ``dot``, and how a browser shows them."""
    print(
        f"{'graph':<10}{'nodes':>7}{'words s':>10}{'drawing s':>11}{'page s':>9}{'MB':>8}{'dot s':>8}"
    )
    pages = {}
    folder = Path(tempfile.mkdtemp())
    for make in (workflow, tangle):
        for size in SIZES:
            graph = make(size)
            whole = view.Page("", (view.Frame(picture=graph.picture()),))  # not folded
            page = graph.page()
            text = view.html(page)
            words = least(graph.page)
            drawing = least(lambda p=whole: view.svg(p.frames[0].picture))  # type: ignore[misc]
            every = words + least(lambda p=page: view.html(p))  # type: ignore[misc]
            peer = ""
            if shutil.which("dot") and size <= CROSSED:
                peer = f"{dot(whole.frames[0].picture)[1]:.2f}"
            pages[f"{make.__name__} {size}"] = path = folder / f"{make.__name__}-{size}.html"
            path.write_text(text, encoding="utf-8")
            print(
                f"{make.__name__:<10}{len(graph):>7,}{words:>10.2f}{drawing:>11.2f}{every:>9.2f}"
                f"{len(text.encode()) / 1e6:>8.2f}{peer:>8}"
            )
    if shutil.which("dot"):
        print(f"\n{'crossings':<10}{'boxes':>7}{'ours':>10}{'dot':>11}{'ratio':>9}")
        for make in (workflow, tangle):
            picture = make(CROSSED).picture()
            ends = picture.indexed()
            mine, its = crossings(ours(picture), ends), crossings(dot(picture)[0], ends)
            ratio = f"{mine / its:.2f}" if its else "-"
            print(f"{make.__name__:<10}{len(picture.boxes):>7,}{mine:>10,}{its:>11,}{ratio:>9}")
    opened(pages)


if __name__ == "__main__":
    main()
