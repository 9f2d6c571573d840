"""A file appears whole or not at all, and a refusal names the path that a person gave."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import tracegraph as tg
from tracegraph.commands.printing import write_file
from tracegraph.writing import write_whole


@tg.bundle(trainable=True)
def tripled(x: int) -> int:
    return 3 * x


WRITERS: dict[str, Callable[[Path], Any]] = {
    "page.html": lambda path: tg.Graph.of(tripled(2)).to_html(path),
    "graph.svg": lambda path: tg.Graph.of(tripled(2)).render(path),
    "values.json": lambda path: tripled.save(path),  # type: ignore[attr-defined]
    "program.py": lambda path: tg.export([tripled], path),
    "kept.txt": lambda path: write_file("kept", str(path)),
}


@pytest.mark.parametrize("name", WRITERS)
def test_it_is_written_and_nothing_else_is(name: str, tmp_path: Path) -> None:
    WRITERS[name](tmp_path / name)
    WRITERS[name](tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", WRITERS)
def test_a_missing_folder_is_named_with_the_remedy(name: str, tmp_path: Path) -> None:
    path = tmp_path / "missing" / name
    with pytest.raises((OSError, tg.TracegraphError), match="make it") as caught:
        WRITERS[name](path)
    said = str(caught.value)
    assert str(path) in said
    assert f"{path.parent}/." not in said, "the name of the file beside it is nobody's business"
    assert list(tmp_path.iterdir()) == []
    if name != "kept.txt":
        assert isinstance(caught.value, FileNotFoundError)


def test_a_folder_of_that_name_and_a_file_for_a_folder(tmp_path: Path) -> None:
    folder, file = tmp_path / "page.html", tmp_path / "file"
    folder.mkdir()
    file.write_text("stays")
    with pytest.raises(IsADirectoryError, match="a folder has this name"):
        write_whole(folder, b"new")
    with pytest.raises(NotADirectoryError, match="no folder"):
        write_whole(file / "page.html", b"new")
    assert file.read_text() == "stays"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "page.html"]


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "values.json"
    path.write_bytes(b"before")

    def full(self: Path, content: bytes) -> int:
        with self.open("wb") as file:
            file.write(content[:3])
        raise OSError(28, os.strerror(28))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space left") as caught:
        write_whole(path, b"after")
    assert caught.value.filename == str(path)
    assert path.read_bytes() == b"before"
    assert [p.name for p in tmp_path.iterdir()] == ["values.json"]
