"""A person's program is started again: it goes on where it stopped, or repeats what was said."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

import tracegraph as tg
from tracegraph import cli
from tracegraph.again import REPLAY
from tracegraph.errors import NotRecorded
from tracegraph.history import Facts
from tracegraph.llm import FromCallable, ModelBase, Reply, Request, as_language_model, passing
from tracegraph.llm.passing import playing

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = '''
import os, sys
import tracegraph as tg
from optimizers import OptoPrime, fit
from optimizers.training.budget import Budget
from tracegraph.history import State
from tracegraph.llm import as_language_model

def paid(what):
    """Each question costs something: it is counted, and no two answers are the same."""
    with open("paid.txt", "a") as file:
        file.write(what + "\\\\n")
    return sum(1 for _ in open("paid.txt"))

def improve(prompt):
    return '{"suggestion": {"greeting": "Good day, number %d"}}' % paid("improve")

def ask(prompt):
    return f"{prompt} ({paid('ask')})"

helper = as_language_model(ask)
greeting = tg.node("Hi", trainable=True, name="greeting")

@tg.bundle
def answer(greeting, name):
    return helper(f"{greeting}, {name}").text

with tg.run("greetings", seed=1):
    result = fit(
        lambda name: answer(greeting, name), NAMES,
        lambda name, said: (float("day" in said) * len(said), "longer"),
        optimizer=OptoPrime([greeting], llm=improve), budget=Budget(steps=int(sys.argv[1])),
        store=State("greetings") if STATE else None, progress=False, workers=1,
    )
    print(greeting.data, result.spend.steps)
    if os.path.exists("die"):
        os.kill(os.getpid(), 9)
'''.replace("\\\\n", "\\n")


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def start(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words], cwd=folder, capture_output=True, text=True, timeout=100,
        stdin=subprocess.DEVNULL, env=environment(),
    )  # fmt: skip


class Said(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> Callable[..., Said]:
    """The command line in this process, the programs that it starts in theirs."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def called(*words: str) -> Said:
        monkeypatch.setattr(sys, "argv", ["tracegraph", *words])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return Said(int(ended.value.code or 0), *capfd.readouterr())

    return called


def write(folder: Path, *, names: str = '["Ann", "Bob"]', state: bool = True) -> None:
    text = PROGRAM.replace("NAMES", names).replace("STATE", str(state))
    (folder / "program.py").write_text(text, encoding="utf-8")


def paid(folder: Path) -> int:
    return len((folder / "paid.txt").read_text(encoding="utf-8").splitlines())


def test_a_killed_run_goes_on_and_asks_nothing_twice(tmp_path: Path, command: Any) -> None:
    write(tmp_path)
    (tmp_path / "die").touch()
    assert start(tmp_path, "program.py", "3").returncode == -9
    before = paid(tmp_path)
    (tmp_path / "die").unlink()
    planned = json.loads(command("resume", "greetings", "--dry-run", "--json").out)
    assert planned["argv"][1:] == ["program.py", "3"]
    assert planned["directory"] == str(tmp_path)
    done = command("resume", "greetings")
    assert done.code == 0, done.err
    assert "program.py 3" in done.out
    assert paid(tmp_path) == before  # the three steps were done, and their results kept
    first, second = tg.History(tmp_path).runs()
    assert first.status == "killed"
    assert (second.status, second.about["resumes"]) == ("done", first.id)
    final = first.parameters()["greeting"].value
    assert done.out.splitlines()[-1].startswith(final)


def test_a_replay_gives_the_same_and_pays_nothing(tmp_path: Path, command: Any) -> None:
    write(tmp_path)
    first = start(tmp_path, "program.py", "2")
    assert first.returncode == 0, first.stderr
    before = paid(tmp_path)
    done = command("replay", "greetings")
    assert done.code == 0, done.err
    assert f"{before} of {before} kept replies were used, and nobody was asked" in done.out
    assert first.stdout.strip() in done.out
    assert paid(tmp_path) == before
    one, two = tg.History(tmp_path).runs()
    assert two.name == "greetings (replay)"
    assert [s.score for s in one.steps] == [s.score for s in two.steps]
    assert [r.key for r in one.replies] == [r.key for r in two.replies]
    with Facts("state", tmp_path) as facts:
        assert list(facts) == ["greetings"]  # the replay's own is gone


def test_a_replay_shows_where_the_program_differs(tmp_path: Path, command: Any) -> None:
    write(tmp_path)
    start(tmp_path, "program.py", "1")
    before = paid(tmp_path)
    write(tmp_path, names='["Ann", "Bert"]')
    done = command("replay", "greetings", "--json")
    assert done.code == 4
    assert "has changed since the run began" not in done.out
    facts = json.loads(done.out)
    assert "-Hi, Bob\n+Hi, Bert" in facts["first_difference"]["difference"]
    assert paid(tmp_path) == before


def test_what_cannot_be_started_again_is_refused_with_the_reason(
    tmp_path: Path, command: Any
) -> None:
    write(tmp_path, state=False)
    start(tmp_path, "program.py", "1")
    done = command("resume", "greetings")
    assert (done.code, "kept nothing to go on from" in done.err) == (1, True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket, "gethostname", lambda: "elsewhere")
        done = command("replay", "greetings")
    assert (done.code, "ran on another machine" in done.err) == (1, True)
    (tmp_path / "program.py").unlink()
    done = command("replay", "greetings")
    assert (done.code, "program.py is gone" in done.err) == (1, True)
    typed = "import tracegraph as tg\nwith tg.run('typed') as run: run.step(score=1)\n"
    subprocess.run(
        [sys.executable, "-"], input=typed, cwd=tmp_path, text=True, check=True, timeout=60,
        env=environment(),
    )  # fmt: skip
    done = command("replay", "typed")
    assert (done.code, "typed in" in done.err) == (1, True)
    assert command("resume", "greting").code == 3


def test_a_secret_on_the_command_line_is_not_kept(tmp_path: Path, command: Any) -> None:
    program = "import sys, tracegraph as tg\nwith tg.run('secret') as run: run.step(score=1)\n"
    (tmp_path / "program.py").write_text(program, encoding="utf-8")
    for words in (["--api-key", "plain-secret-1"], ["--token=plain-secret-1"]):
        assert start(tmp_path, "program.py", "--rate", "2", *words).returncode == 0
        done = command("replay", "secret")
        assert (done.code, "secret on its command line" in done.err) == (1, True)
    shown = command("runs", "show", "secret", "--json").out
    assert "plain-secret-1" not in shown


# The door through which questions go


@pytest.fixture
def tape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from tracegraph.llm import Recorded, Tape

    path = tmp_path / "tape.jsonl"
    numbers = iter(range(100))
    model = Recorded(FromCallable(lambda prompt: f"{prompt} {next(numbers)}", name="m"), Tape(path))
    for text in ("a", "a", "b"):
        model(text)
    monkeypatch.setenv(REPLAY, str(path))
    return path


def forbidden(prompt: str) -> str:
    raise AssertionError("a replay asked")


@pytest.mark.usefixtures("tape")
def test_equal_questions_get_their_replies_in_order() -> None:
    model = FromCallable(forbidden, name="m")
    assert [model(text).text for text in ("a", "b", "a")] == ["a 0", "b 2", "a 1"]
    with pytest.raises(NotRecorded, match="every reply that was kept has been used"):
        model("a")


@pytest.mark.usefixtures("tape")
@pytest.mark.parametrize("base", [object, ModelBase])
def test_a_model_of_ones_own_class_is_not_asked_in_a_replay(base: type) -> None:
    class Own(base):  # type: ignore[misc, valid-type]
        name = "m"

        def ask(self, request: Request) -> Reply:
            raise AssertionError("a replay asked")

        async def aask(self, request: Request) -> Reply:
            raise AssertionError("a replay asked")

    model = as_language_model(Own())
    assert model.ask(Request.of("b")).text == "b 2"


async def _awaited() -> str:
    return (await FromCallable(forbidden, name="m").acall("b")).text


@pytest.mark.usefixtures("tape")
def test_an_awaited_question_is_answered_from_the_tape() -> None:
    import asyncio

    assert asyncio.run(_awaited()) == "b 2"


@pytest.mark.usefixtures("tape")
def test_one_tape_answers_all_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two players would give each reply twice."""
    seen: list[Any] = []
    made = passing.Player

    def player(path: Path) -> Any:
        thread = threading.Thread(target=lambda: seen.append(playing()))
        others.append(thread)
        thread.start()
        thread.join(0.05)  # it waits for this one, or would have made its own by now
        return made(path)

    others: list[threading.Thread] = []
    monkeypatch.setattr(passing, "Player", player)
    seen.append(playing())
    for thread in others:
        thread.join()
    assert len(seen) == 2
    assert seen[0] is seen[1]


def test_a_tape_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(REPLAY, str(tmp_path / "nothing"))
    with pytest.raises(NotRecorded, match="no such tape"):
        playing()


def test_every_reply_is_kept_whoever_asked(tmp_path: Path) -> None:
    def echo(prompt: str) -> Any:
        return {"choices": [{"message": {"content": prompt.upper()}}],
                "usage": {"prompt_tokens": 3, "completion_tokens": 2}}  # fmt: skip

    model = as_language_model(echo)
    with tg.run("asks", store=tmp_path) as run:
        model("one", temperature=0.5)  # type: ignore[operator]
        run.step(score=1.0)
        model("two")  # type: ignore[operator]
    kept = tg.History(tmp_path).run("asks")
    assert [(r.step, r.reply["text"]) for r in kept.replies] == [(0, "ONE"), (1, "TWO")]
    first = kept.replies[0]
    assert first.request["options"] == {"temperature": 0.5}
    assert first.key == Request.of("one", temperature=0.5).key(first.model)
    assert (first.tokens_in, first.tokens_out) == (3, 2)
    assert kept.summary["replies"] == 2
