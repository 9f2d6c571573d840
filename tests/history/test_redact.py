from __future__ import annotations

import sqlite3
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

import tracegraph as tg
from optimizers import OptoPrime
from tracegraph.history import Facts
from tracegraph.history.redact import Redactor
from tracegraph.llm import Scripted

SECRET = "correct-horse-battery-staple-4711"
HELD = "0f3a9c77e1b24d55aa10"
HEADER = "zq8812-header-77-token"
QUOTED = 'pass"word\\with quotes'
LOOKS = "sk-proj-" + "A1b2C3d4" * 5


def everything_in(folder: Path) -> bytes:
    """All bytes of the files, and all that is compressed in them."""
    found = b"".join(p.read_bytes() for p in folder.rglob("*") if p.is_file())
    for path in folder.rglob("*.sqlite"):
        connection = sqlite3.connect(path)
        rows = connection.execute("SELECT codec, bytes FROM blobs").fetchall()
        connection.close()
        found += b"".join(zlib.decompress(b) if codec == "zlib" else b for codec, b in rows)
    return found


class Client:
    """A model as people write them: with its key and headers in attributes."""

    __name__ = "client"

    def __init__(self) -> None:
        self.api_key = HELD
        self.options = {"extra_headers": {"X-Org": HEADER}, "wrapped": SecretStr(HELD + "2")}

    def __call__(self, prompt: str) -> str:
        return f'{{"suggestion": {{"prompt": "Use {HELD} and {HEADER}"}}}}'


def test_no_secret_reaches_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CORP_API_KEY", SECRET)
    monkeypatch.setenv("DB_PASSWORD", QUOTED)
    prompt = tg.node(f"Say it. {SECRET}", trainable=True, name="prompt")
    optimizer = OptoPrime([prompt], llm=Client())

    @tg.bundle()
    def call(prompt: str, key: dict[str, Any]) -> str:
        return f"{prompt} {LOOKS}"

    with tg.run("planted", store=tmp_path, config={"api_key": SECRET, "note": LOOKS}) as run:
        for pad in range(160, 200, 3):  # values are cut at about 200 characters
            run.step(call("x" * pad + SECRET, {"Authorization": f"Bearer {HEADER}abc"}))
        answer = call(prompt, {"api_key": "hunter2hunter2"})
        optimizer.backward(answer, f"do not say {SECRET} or {QUOTED!r}")
        assert optimizer.step()
        run.log("called", headers={"x-api-key": "abcdef123456"}, text=SECRET)
        run.candidate("c1", score=1.0, text="y" * 9_990 + SECRET)
        with pytest.raises(tg.ExecutionError):
            tg.bundle()(_failing)(prompt)
        run.step(answer, note=f"note {SECRET}", feedback=SECRET, problem=f"problem {LOOKS}")
    with Facts("cache", tmp_path) as facts:
        facts["a"] = {"reply": SECRET}
    found = everything_in(tmp_path)
    assert b"[secret]" in found
    planted = [SECRET, SECRET[:12], HELD, HEADER, LOOKS, "hunter2hunter2",
               "abcdef123456", 'pass"word', 'pass\\"word']  # fmt: skip
    assert [p for p in planted if p.encode() in found] == []


def _failing(prompt: str) -> str:
    raise ValueError(f"bad key {SECRET}")


def test_a_scripted_model_has_no_secrets() -> None:
    redactor = Redactor({})
    redactor.learn(Scripted(["the reply is long enough"]))
    assert redactor.clean("the reply is long enough") == "the reply is long enough"


@given(
    st.text(alphabet="abcDEF019-_/+=.'\"\\é", min_size=8, max_size=60).filter(
        lambda s: s.strip() == s and not s.startswith(("/", "."))
    ),
    st.text(max_size=30),
    st.text(max_size=30),
)
def test_a_secret_never_survives(secret: str, before: str, after: str) -> None:
    assert secret not in Redactor({"SOME_TOKEN": secret}).clean(f"{before} {secret} {after}")


@given(st.text(alphabet="abcdefgh ,.\n", max_size=300))
def test_plain_words_stay(text: str) -> None:
    assert Redactor({"MY_KEY": "12345678-1234"}).clean(text) == text


@pytest.mark.parametrize("name", ["PATH", "MONKEY_NAME", "KEYBOARD", "HOME"])
def test_other_variables_are_no_secrets(name: str) -> None:
    assert Redactor({name: "some-ordinary-value"}).clean("some-ordinary-value") != "[secret]"


@pytest.mark.parametrize(
    "name", ["OPENAI_API_KEY", "aws_secret_access_key", "GITHUB_TOKEN", "PGPASSWORD_PASSWORD"]
)
def test_variables_that_say_secret_are(name: str) -> None:
    assert Redactor({name: "some-ordinary-value"}).clean("some-ordinary-value") == "[secret]"
