from __future__ import annotations

import os
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tracegraph as tg
from tracegraph.commands.printing import table
from tracegraph.history.display import runs_rows
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
