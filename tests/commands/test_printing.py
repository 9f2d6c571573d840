from __future__ import annotations

from pathlib import Path

import pytest

import tracegraph as tg
from tracegraph.commands.printing import table
from tracegraph.history.display import runs_rows
from tracegraph.view.plain import width


def test_columns_stand_below_each_other_whatever_the_script(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("plain", "日本語の名前", "مرحبا", "e\u0301" * 200):
        with tg.run(name, store=tmp_path):
            pass
    table(*runs_rows(tg.History(tmp_path).runs()))
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
