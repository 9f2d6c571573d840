"""The programs of the page on other libraries run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "howto" / "other-libraries.md"
PROGRAMS = re.findall(r"```python\n(.*?)\n```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)


def run(package: str) -> dict[str, Any]:
    pytest.importorskip(package, reason=f"{package} is optional")
    (program,) = (
        text for text in PROGRAMS if re.search(rf"^(import|from) {package}\b", text, re.M)
    )
    names: dict[str, Any] = {}
    exec(compile(program, str(PAGE), "exec"), names)
    return names


def test_a_dspy_module_is_improved() -> None:
    names = run("dspy")
    assert names["improved"].predict.signature.instructions == "Be brief."


def test_a_langchain_runnable_is_improved() -> None:
    improved = run("langchain_core")["improved"]
    assert improved.first.messages[0].prompt.template == "Answer as a {role}, in three words."


def test_a_workflow_is_improved_by_gepa() -> None:
    assert run("gepa")["greeting"].data == "Good day"
