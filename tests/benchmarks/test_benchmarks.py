"""The benchmarks' own arithmetic; no time is asserted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.benchmarks import __main__ as program
from tests.benchmarks import gpu
from tests.benchmarks.contenders import Contender
from tests.benchmarks.harness import bytes_kept, seconds, seconds_per_operation
from tests.benchmarks.workloads import ROWS, Row, Scale


class Nobody:
    """A contender of whom nothing is asked but a figure."""

    def __init__(self, figure: float) -> None:
        self.name = "nobody"
        self.figure = figure

    def forget(self) -> None:
        """Nothing is kept."""


def figure_of(contender: Contender, scale: Scale) -> float:
    return contender.figure  # type: ignore[attr-defined, no-any-return]


def result(row: Row, ours: float, peer: float | None) -> program.Result:
    rival = None if peer is None else Nobody(peer)
    return program.measured(row, Nobody(ours), rival, Scale())  # type: ignore[arg-type]


@pytest.mark.parametrize(("ours", "holds"), [(1.0, True), (10.0, True), (10.1, False)])
def test_a_fraction_of_the_peer_is_the_most_that_is_allowed(ours: float, holds: bool) -> None:
    found = result(Row("row", "s", figure_of, fraction=10), ours, 100.0)
    assert (found.allowed, found.holds) == (10.0, holds)
    assert found.times_better == pytest.approx(100.0 / ours)


def test_without_the_peer_a_fraction_is_not_judged() -> None:
    found = result(Row("row", "s", figure_of, fraction=10), 1.0, None)
    assert (found.peer, found.allowed, found.holds) == (None, None, None)


@pytest.mark.parametrize(("ours", "holds"), [(0.0, True), (5.0, True), (5.1, False)])
def test_a_limit_holds_without_the_peer(ours: float, holds: bool) -> None:
    assert result(Row("row", "s", figure_of, limit=5), ours, None).holds is holds


def test_a_row_that_fails_says_so_and_does_not_hold() -> None:
    def fail(contender: Contender, scale: Scale) -> float:
        raise RuntimeError("out of order")

    found = result(Row("row", "s", fail, limit=5), 1.0, None)
    assert found.error == "RuntimeError: out of order"
    assert found.holds is None


def test_a_name_tells_the_size() -> None:
    row = Row("{chain:,} steps", "s", figure_of)
    assert result(row, 1.0, None).name == "10,000 steps"
    assert len({row.name for row in ROWS}) == len(ROWS)


def test_an_operation_is_counted_as_often_as_it_ran() -> None:
    asked: list[int] = []
    took = seconds_per_operation(asked.append, operations=100, repeats=3)
    assert took > 0
    assert asked == [10, 100, 100, 100]


def test_each_repeat_is_prepared_anew() -> None:
    prepared: list[int] = []

    def prepare() -> Callable[[], object]:
        prepared.append(1)
        return lambda: None

    seconds(prepare, repeats=2)
    assert len(prepared) == 2


def test_memory_counts_what_is_held_and_not_what_is_dropped() -> None:
    assert bytes_kept(lambda n: [bytes(100) for _ in range(n)], operations=20_000) > 100
    assert bytes_kept(lambda n: sum(len(bytes(100)) for _ in range(n)), operations=20_000) < 1


def test_the_program_writes_its_table_as_json(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "figures.json"
    chosen = ["--json", str(target), "--quick", "--no-peer", "--peer-only"]
    assert program.main(chosen) == 0
    written = json.loads(target.read_text(encoding="utf-8"))
    assert written["rows"][0]["name"] == "a traced + on a node"
    assert written["machine"]["cores"] >= 1


def test_the_benchmark_for_a_gpu_goes_through_on_a_processor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every contestant, in tables for the pages, with a date; the time is nobody's business."""
    written = tmp_path / "lines.json"
    arguments = ["--device", "cpu", "--elements", "5000", "--rounds", "1", "--json", str(written)]
    gpu.main(arguments)
    printed = capsys.readouterr().out
    assert "failed" not in printed
    assert "a trial, no GPU" in printed
    found = json.loads(written.read_text())
    names = {one.name for one in gpu.contestants()}
    assert {line["name"] for line in found["lines"]} == names
    assert len(found["lines"]) == 2 * len(gpu.contestants())
    tables = [row for row in printed.splitlines() if row.startswith("|")]
    assert {row.count("|") for row in tables} == {8, 5}
