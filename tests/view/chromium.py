"""Pages in headless Chromium, with everything that went wrong in them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
]  # fmt: skip


@contextmanager
def chromium(profile: Path) -> Iterator[Any]:
    """A browser whose pages are opened with `new_page`; it keeps what it keeps in `profile`."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        context = driver.chromium.launch_persistent_context(
            profile, executable_path=CHROMIUM, headless=True, args=FLAGS,
            viewport={"width": 1300, "height": 800},
        )  # fmt: skip
        context.set_default_timeout(8_000)
        yield context
        context.close()


class Opened:
    """A page in the browser, with everything that went wrong and everything that was asked for."""

    def __init__(self, browser: Any, path: Path) -> None:
        self.tab = browser.new_page()
        self.wrong: list[str] = []
        self.asked: list[str] = []
        self.tab.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.tab.on("console", self._heard)
        self.tab.on("request", lambda request: self.asked.append(request.url))
        self.tab.goto(path.as_uri())
        self.tab.wait_for_selector("html[data-ready]")

    def _heard(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(message.text)

    def box(self, title: str) -> Any:
        return self.tab.locator(f".tg-box:has(> .tg-title:text-is('{title}'))")

    @property
    def side(self) -> Any:
        return self.tab.locator("aside.side")

    @property
    def picked(self) -> list[str]:
        found: list[str] = self.tab.locator(".picked > .tg-title").all_text_contents()
        return found

    def until(self, expression: str) -> None:
        """Wait until a condition holds. (playwright's own waiting is stopped by the page's policy.)"""
        for _ in range(160):
            if self.tab.evaluate(expression):
                return
            self.tab.wait_for_timeout(50)
        raise AssertionError(f"it never came to be that {expression}")

    @property
    def moved(self) -> str:
        self.tab.evaluate("new Promise(requestAnimationFrame)")
        found: str = self.tab.evaluate("document.querySelector('.stage').style.transform")
        return found
