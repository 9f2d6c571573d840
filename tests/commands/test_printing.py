from __future__ import annotations

import os
import re
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

import tracegraph as tg
from tracegraph.cli import app
from tracegraph.commands.printing import difference, table
from tracegraph.history.display import fact, runs_rows, steps_rows, when
from tracegraph.history.export import run_facts
from tracegraph.history.reading import KeptStep
from tracegraph.view.plain import width


def test_columns_stand_below_each_other_whatever_the_script(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for name in ("plain", "日本語の名前", "مرحبا", "e\u0301" * 200):
        with tg.run(name, store=tmp_path):
            pass
    table(*runs_rows(tg.History(tmp_path).runs()), elastic=[1])
    lines = capsys.readouterr().out.splitlines()
    places = {
        width(line[: line.index(word)])
        for line in lines
        for word in ("status", "done")
        if word in line
    }
    assert len(lines) == 5
    assert len(places) == 1
    assert all(width(line) <= 80 for line in lines)


CELLS = st.text("ab 日é", max_size=60).map(str.strip)


@given(st.lists(st.tuples(CELLS, CELLS, CELLS), min_size=1, max_size=4), st.integers(40, 200))
def test_a_table_takes_the_room_that_there_is(rows: list[tuple[str, ...]], room: int) -> None:
    def printed(columns: str) -> list[str]:
        out = StringIO()
        with patch.dict(os.environ, {"COLUMNS": columns}), redirect_stdout(out):
            table(["one", "two", "three"], [list(row) for row in rows], elastic=[0, 1, 2])
        return out.getvalue().splitlines()

    whole, narrow = printed("0"), printed(str(room))
    assert all(cell in line for row, line in zip(rows, whole[1:], strict=True) for cell in row)
    assert all(width(line) <= room for line in narrow)
    if max(map(width, whole)) <= room:
        assert narrow == whole
    else:
        assert "…" in "".join(narrow)


def test_every_fact_of_a_run_can_be_said(tmp_path: Path) -> None:
    with tg.run("one", store=tmp_path, config={"rate": 0.1, "deep": {"er": [1]}}) as run:
        run.step(score=0.5)
    kept = tg.History(tmp_path).run()
    facts = run_facts(kept)
    assert {"started", "versions", "config", "created", "seconds"} <= facts.keys()
    said = {name: fact(name, value) for name, value in facts.items()}
    assert said["config"] == "rate 0.1, deep er [1]"
    assert said["versions"].startswith("python 3.")
    assert said["created"] == when(kept.created)


def test_runs_that_were_started_in_other_ways_are_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "ipykernel", raising=False)  # another test's notebook
    monkeypatch.setattr(sys, "executable", "python")
    monkeypatch.setenv("COLUMNS", "120")
    for word in ("first", "second"):
        monkeypatch.setattr(sys, "orig_argv", ["python", "program.py", word])
        with tg.run(word, store=tmp_path) as run:
            run.step(score=0.5)
    words = ["runs", "compare", "first", "second", "--store", str(tmp_path)]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.exception
    (row,) = [row for row in done.stdout.splitlines() if row.startswith("started")]
    assert "program.py first" in row
    assert "program.py second" in row


def test_a_column_in_which_nothing_stands_is_left_out() -> None:
    one = KeptStep(7, 0.0, 0.25, "done", None, "", 0.5, 2, 0, None, None, None, None, None)
    titles, rows = steps_rows([one])
    assert dict(zip(titles, rows[0], strict=True)) == {
        "step": "7", "score": "0.5", "changes": "2", "time": "250 ms",
    }  # fmt: skip
    assert "cost" in steps_rows([])[0]


def test_a_difference_is_coloured_on_a_terminal_that_wants_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "--- a before\n+++ a after\n@@ -1 +1 @@\n-old\x1b[31m\n+new\n same"
    monkeypatch.delenv("NO_COLOR", raising=False)
    difference(text)
    piped = capsys.readouterr().out
    assert "\x1b" not in piped
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    difference(text)
    inked = capsys.readouterr().out
    assert "\x1b[32m+new" in inked
    assert "\x1b[31m-old" in inked
    assert re.sub(r"\x1b\[\d+m", "", inked) == piped  # what a value says in colour is only words
    assert inked.startswith("--- a before\n+++ a after\n")
    monkeypatch.setenv("NO_COLOR", "1")
    difference(text)
    assert capsys.readouterr().out == piped
