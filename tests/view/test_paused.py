from __future__ import annotations

import gc
import sys

import pytest

from tracegraph.view import Box, Picture, paused_collector, svg
from tracegraph.view.svg import Drawing, drawing


def test_it_rests_while_a_picture_is_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    running = []

    def draw(picture: Picture) -> Drawing:
        running.append(gc.isenabled())
        return drawing(picture)

    # In the package, the module's name is the function's.
    monkeypatch.setattr(sys.modules["tracegraph.view.svg"], "drawing", draw)
    svg(Picture((Box(key=1, title="x"),)))
    assert running == [False]


def test_the_collector_is_left_as_it_was_found() -> None:
    assert gc.isenabled()
    with paused_collector():
        assert not gc.isenabled()
        with paused_collector():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled()
    with pytest.raises(ValueError, match="stop"), paused_collector():
        raise ValueError("stop")
    assert gc.isenabled()
    gc.disable()
    try:
        svg(Picture((Box(key=1, title="x"),)))
        assert not gc.isenabled()
    finally:
        gc.enable()
