"""A MkDocs hook: sections in the order in which people need them, and tidy sessions."""

from __future__ import annotations

import re

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import Files
from mkdocs.structure.nav import Navigation, Section
from mkdocs.structure.pages import Page

SECTIONS = {
    "Tutorial": "Tutorial",
    "Howto": "How to",
    "Explanation": "Explanation",
    "Decisions": "Decisions",
    "Reference": "Reference",
}
"""The folders in order, and how each is called; folders that are not here come last."""

SESSION = re.compile(r"^```python\n(?:.*\n)*?```$", re.MULTILINE)


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> Navigation:
    """Put the sections in order; single pages come first."""
    order = list(SECTIONS)

    def place(item: object) -> int:
        if not isinstance(item, Section):
            return -1
        return order.index(item.title) if item.title in order else len(order)

    nav.items.sort(key=place)
    for item in nav.items:
        if isinstance(item, Section):
            item.title = SECTIONS.get(item.title, item.title)
    return nav


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Leave out the blank line that ends a session, which only doctest needs."""
    return SESSION.sub(lambda found: re.sub(r"\n+```$", "\n```", found[0]), markdown)
