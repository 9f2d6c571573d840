from __future__ import annotations

import json
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
from tracegraph.history.redact import _KNOWN, _NAMED, Redactor, _hidden
from tracegraph.llm import Request, Scripted, as_language_model

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

    own = as_language_model(Client())  # asked by the program, not by an optimizer
    with tg.run("planted", store=tmp_path, config={"api_key": SECRET, "note": LOOKS}) as run:
        assert HELD in own.ask(Request.of(f"say {SECRET}")).text
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


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["password", "api_key", "x"]) | st.text(), inner, max_size=3
        )
    ),
    max_leaves=12,
)


@given(_JSON, st.sampled_from([123456789, 1.5e300, "hunter2hunter2", "Bearer abcdefgh", [1234567]]))
def test_what_was_json_stays_json(data: Any, secret: Any) -> None:
    whole = {"first": data, "password": secret, "text": json.dumps({"api_key": secret, "d": data})}
    clean = json.loads(Redactor({}).clean(json.dumps(whole)))
    inner = json.loads(clean["text"])
    assert clean.keys() == whole.keys()
    assert inner.keys() == {"api_key", "d"}
    if not isinstance(secret, list):
        assert "[secret]" in clean["password"]
        assert "[secret]" in inner["api_key"]


def test_a_setting_that_is_a_number_and_a_secret_can_be_read_back(tmp_path: Path) -> None:
    with tg.run("numbers", store=tmp_path, config={"password": 123456789, "rate": 2}):
        pass
    kept = tg.History(tmp_path).run().about
    assert kept["config"] == {"password": "[secret]", "rate": 2}


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


PIECES = (
    "api", "_", "-", "x-api-key", "Proxy-Authorization", "aPı_ſey", "paſſword", "cookie", "client_secret",
    ": ", "=", " ", '"', "\\", "bearer ", "abcdefgh", "sk-", "sk-" + "a" * 16, "hf_" + "B" * 20, "xoxb-",
    "1234567890", "-----BEGIN A PRIVATE KEY-----", "-----END", "-", "eyJ", "eyJabcdefghijk.eyJabcdefghijk",
    "AKIA" + "A" * 16, "İ", "K", "é", "\n", "[secret", "None",
)  # fmt: skip


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_looking_for_words_first_hides_what_the_expressions_hide(text: str) -> None:
    wanted = _NAMED.sub(_hidden, _KNOWN.sub("[secret]", text))
    assert Redactor({}).clean(text) == wanted
