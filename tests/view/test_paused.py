from __future__ import annotations

import gc

import pytest

from tracegraph.view import Box, Picture, paused_collector, svg


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
