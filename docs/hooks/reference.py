"""A MkDocs hook: one reference page for each public module, so that none can be forgotten."""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

PACKAGES = ("tracegraph", "optimizers")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page that holds the docstrings of a module, for every public module."""
    root = Path(config.config_file_path).parent
    for name in public_modules(root):
        page = f"# `{name}`\n\n::: {name}\n"
        files.append(File.generated(config, f"reference/{name}.md", content=page))
    return files


def public_modules(root: Path) -> list[str]:
    """The dotted names of the modules in the packages under `root` that have no leading _."""
    names = []
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            parts = parts[:-1] if parts[-1] == "__init__" else parts
            if not any(part.startswith("_") for part in parts):
                names.append(".".join(parts))
    return names
