"""A server with faults, for every test of the language-model layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests.worlds.server import Answer, Server


@pytest.fixture
def server() -> Iterator[Server]:
    running = Server()
    yield running
    running.close()


@pytest.fixture
def answer() -> Callable[..., Answer]:
    return Answer


@pytest.fixture(autouse=True)
def without_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reaches a provider by a key of the person who runs it."""
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_API_BASE", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("TRACEGRAPH_MODEL", "TRACE_LITELLM_MODEL", "DEFAULT_LITELLM_MODEL"):
        monkeypatch.delenv(name, raising=False)
