"""How long a page takes to make and how large it is: run `python -m tests.benchmarks.viewer`."""

from __future__ import annotations

import random
import time
from typing import Any

import tracegraph as tg
from tracegraph import view

SIZES = (300, 1_000, 5_000)


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


def main() -> None:
    """Print a row for each graph: seconds for its words, its drawing and its page; megabytes."""
    print(f"{'graph':<10}{'nodes':>7}{'words s':>10}{'drawing s':>11}{'page s':>9}{'MB':>8}")
    for make in (workflow, tangle):
        for size in SIZES:
            graph = make(size)
            start = time.perf_counter()
            page = graph.page()
            worded = time.perf_counter()
            view.svg(page.frames[0].picture)
            drawn = time.perf_counter()
            text = view.html(page)
            done = time.perf_counter()
            print(
                f"{make.__name__:<10}{len(graph):>7,}{worded - start:>10.2f}{drawn - worded:>11.2f}"
                f"{worded - start + done - drawn:>9.2f}{len(text.encode()) / 1e6:>8.2f}"
            )


if __name__ == "__main__":
    main()
