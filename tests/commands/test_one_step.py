"""A kept step in lines: what a person reads, whatever was said."""

from __future__ import annotations

from pathlib import Path

import tracegraph as tg
from optimizers import OptoPrime
from tracegraph.commands.one_step import step_lines
from tracegraph.llm import Reply, Scripted, Usage

BELL = "\x1b[31mToo long.\x07\nIn two lines."


def test_prompts_replies_and_reasons_are_lines_and_times_are_words(tmp_path: Path) -> None:
    prompt = tg.node("Answer.", trainable=True, name="prompt")
    llm = Scripted([Reply("not\nJSON", usage=Usage(10, 5), cost=0.25)])
    with tg.run("a run", store=tmp_path):
        optimizer = OptoPrime([prompt], llm=llm)
        optimizer.backward(prompt + "!", BELL)
        optimizer.step()
    kept = tg.History(tmp_path).run()
    lines = list(step_lines(kept.steps[0], kept.details(1)))
    text = "\n".join(lines)
    assert "\x1b" not in text
    assert "\x07" not in text
    assert "\\n" not in text
    at = lines.index("\nfeedback:")
    assert lines[at + 1].startswith("  Remark at #2: ")
    assert lines[at + 2] == "  In two lines."
    at = lines.index("  call 1, 10 in, 5 out, $0.2500")
    assert lines[at + 1] == "  [system]"
    assert lines[-lines[::-1].index("  [reply]") :][:2] == ["    not", "    JSON"]
    assert any(line.startswith("  the reply: ") for line in lines)
    assert "None" not in text
    (seconds,) = [line for line in lines if line.startswith("seconds: ")]
    assert seconds.endswith((" ms", " s"))


def test_what_another_version_kept_is_shown_as_it_is(tmp_path: Path) -> None:
    with tg.run("a run", store=tmp_path) as run:
        run.step(note="mine")
    (step,) = tg.History(tmp_path).run().steps
    strange = {"feedback": "words", "exchanges": [{"asked": 1}], "new": {"a": [1]}}
    text = "\n".join(step_lines(step, strange))
    assert "words" in text
    assert '"asked": 1' in text
    assert '"new"' not in text
    assert "\nnew:\n" in text
