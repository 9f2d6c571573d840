"""The command line does what it says, in words and in JSON, and fails in one line."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import types
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Annotated, Any

import pandas
import pytest
import typer
from typer.testing import CliRunner

import tracegraph as tg
import tracegraph.commands.options
from tracegraph import cli, commands, doctor
from tracegraph.errors import HistoryError
from tracegraph.history.export import steps_frame

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with two runs, one of which holds what would steer a terminal."""
    monkeypatch.chdir(tmp_path)
    for name, rate in (("first try", 0.1), ("second", 0.2)):
        prompt = tg.node("Say hello.", trainable=True, name="prompt")
        with tg.run(name, config={"rate": rate}) as run:
            for number in range(3):
                prompt.assign(f"Say hello {number}.\nKindly, {name}.")
                run.step(prompt.upper(), score=number * rate, feedback="\x1b[31mtoo long\x07")
    return tmp_path


def said(*words: str, code: int = 0) -> str:
    result = CliRunner().invoke(cli.app, list(words))
    assert result.exit_code == code, (result.output, result.exception)
    return str(result.output if code else result.stdout)


def data(*words: str) -> Any:
    return json.loads(said(*words, "--json"))


@pytest.mark.usefixtures("folder")
def test_runs_are_listed() -> None:
    text = said("runs", "list")
    assert "first try" in text
    assert "done" in text
    listed = data("runs", "list")
    assert [(r["name"], r["steps"], r["best_score"]) for r in listed] == [
        ("first try", 3, 0.2), ("second", 3, 0.4),
    ]  # fmt: skip
    assert [r["name"] for r in data("runs", "list", "--limit", "1")] == ["second"]


@pytest.mark.usefixtures("folder")
def test_a_run_is_shown() -> None:
    assert "Say hello 2." in said("runs", "show", "first try")
    shown = data("runs", "show", "1")
    assert shown["config"] == {"rate": 0.1}
    assert [s["score"] for s in shown["steps"]] == [0.0, 0.1, 0.2]
    assert shown["parameters"]["prompt"]["value"].startswith("Say hello 2.")
    text = said("runs", "show", "first try", "--step", "2")
    assert "upper" in text
    assert "too long" in text
    assert "\x1b" not in text
    assert "\x07" not in text
    step = data("runs", "show", "first try", "--step", "2")
    assert step["feedback"][0]["text"] == "\x1b[31mtoo long\x07"


@pytest.mark.usefixtures("folder")
def test_runs_and_steps_are_compared() -> None:
    text = said("runs", "compare", "first try", "second")
    assert "-Kindly, first try." in text
    assert "best_score" in text
    compared = data("runs", "compare", "1", "2")
    assert compared["runs"][1]["best_score"] == 0.4
    assert compared["parameters"][0]["name"] == "prompt"
    assert "+Say hello 1." in said("runs", "diff", "first try", "1", "2")
    (changed,) = data("runs", "diff", "first try")
    assert changed["before"].startswith("Say hello 0.")
    assert "no parameter changed" in said("runs", "diff", "first try", "3")


def test_a_run_is_exported(folder: Path) -> None:
    lines = [json.loads(line) for line in said("export", "second", "--graphs").splitlines()]
    kinds = [line["type"] for line in lines]
    assert kinds == ["run", "parameter", "parameter", "parameter", "step", "step", "step"]
    assert lines[-1]["graph"]["nodes"][1]["op"] == "upper"
    said("runs", "export", "second", "--format", "csv", "-o", "steps.csv")
    table = pandas.read_csv(folder / "steps.csv")
    frame = steps_frame(tg.History().run("second"))
    assert table["score"].tolist() == frame["score"].tolist() == [0.0, 0.2, 0.4]
    assert frame.index.tolist() == [1, 2, 3]
    assert "no format" in said("export", "second", "--format", "xml", code=2)


def test_a_graph_is_drawn(folder: Path) -> None:
    said("view", "second", "--step", "1", "-o", "graph.svg")
    assert ElementTree.parse(folder / "graph.svg").getroot().tag.endswith("svg")
    done = program("view", "second", "--step", "99", folder=folder)
    assert (done.returncode, "has no step 99" in done.stderr) == (1, True)


def test_a_run_is_a_page_of_its_steps(folder: Path) -> None:
    assert said("view", "second").strip() == "run-2.html"
    html = (folder / "run-2.html").read_text(encoding="utf-8")
    for part in ("step 1", "step 3", "Content-Security-Policy", "prompt"):
        assert part in html


@pytest.mark.usefixtures("folder")
def test_runs_are_pruned() -> None:
    assert said("runs", "prune", "--keep", "1", "--dry-run").startswith("1 run would be deleted")
    assert len(data("runs", "list")) == 2
    assert data("runs", "prune", "--keep", "1")["runs"] == 1
    assert [r["name"] for r in data("runs", "list")] == ["second"]
    assert said("runs", "prune", "--older-than", "1").startswith("0 runs deleted")
    assert said("runs", "prune", "--run", "second").startswith("1 run deleted")
    assert "say which" in said("runs", "prune", code=2)


def program(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tracegraph", *words],
        cwd=folder, capture_output=True, text=True, timeout=110, stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def test_an_error_is_one_line_unless_asked(folder: Path) -> None:
    done = program("runs", "show", "secnd", folder=folder)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("error: ")
    assert "did you mean 'second'" in done.stderr
    assert done.stderr.count("\n") == 1
    assert "Traceback" in program("--debug", "runs", "show", "secnd", folder=folder).stderr
    assert "Traceback" in program("runs", "show", "secnd", "--debug", folder=folder).stderr
    assert program("runs", "nonsense", folder=folder).returncode == 2
    (folder / ".tracegraph" / "history.sqlite").write_bytes(b"x" * 5_000)
    done = program("runs", "list", folder=folder)
    assert done.returncode == 1
    assert "is damaged" in done.stderr


COMMANDS = ["", "runs list", "runs show", "runs compare", "runs diff", "runs export", "runs prune",
            *(row.name for row in cli.COMMANDS if row.target.startswith("tracegraph."))]  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_that_is_understood(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> Any:
        raise HistoryError("understood")

    monkeypatch.setattr(commands.options, "History", stop)
    monkeypatch.setattr(doctor, "examined", stop)
    example = said(*command.split(), "-h").partition("Example: tracegraph ")[2]
    result = CliRunner().invoke(cli.app, example.split())
    assert str(result.exception) == "understood", result.output


def test_help_loads_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "tracegraph", "-h"],
        cwd=ROOT, capture_output=True, text=True, timeout=110, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    heavy = {"torch", "litellm", "networkx", "graphviz", "rich", "sqlite3", "tracegraph.history"}
    assert done.returncode == 0
    assert loaded.isdisjoint(heavy)
    assert not any(name.startswith("tracegraph.commands") for name in loaded)
    assert "typer" in loaded


def test_a_row_of_the_table_is_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def greet(name: Annotated[str, typer.Option()] = "you") -> None:
        """Say hello to somebody."""
        typer.echo(f"hello {name}")

    made = types.ModuleType("made_for_a_test")
    made.greet = greet  # type: ignore[attr-defined]
    row = cli.Row("greet", "Say hello.", "made_for_a_test:greet", "greet --name Ann")
    monkeypatch.setattr(cli, "COMMANDS", (*cli.COMMANDS, row))
    assert "greet   Say hello." in said("-h")  # and the module is not there yet
    monkeypatch.setitem(sys.modules, "made_for_a_test", made)
    assert said("greet", "--name", "Ann") == "hello Ann\n"
    assert "Example: tracegraph greet --name Ann" in said("greet", "-h")


@pytest.mark.parametrize(
    ("typed", "offered"),
    [("", {"runs", "replay"}), ("re", {"resume", "replay"}), ("runs sh", {"show"})],
)
def test_a_shell_completes_commands(typed: str, offered: set[str]) -> None:
    words = f"tracegraph {typed}"
    done = subprocess.run(
        [sys.executable, "-m", "tracegraph"],
        cwd=ROOT, capture_output=True, text=True, timeout=110, stdin=subprocess.DEVNULL,
        env={**os.environ, "_TRACEGRAPH_COMPLETE": "complete_bash", "COMP_WORDS": words,
             "COMP_CWORD": str(len(words.split(" ")) - 1)},
    )  # fmt: skip
    assert offered <= set(done.stdout.split())
    if typed:
        assert "doctor" not in done.stdout.split()


def test_a_defect_is_one_line_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(commands.options, "History", broken)
    monkeypatch.setattr(sys, "argv", ["tracegraph", "runs", "list"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    stderr = capsys.readouterr().err
    assert stderr.startswith("error: ZeroDivisionError: by zero")
    assert stderr.count("\n") == 1


@pytest.mark.usefixtures("folder")
def test_a_file_that_cannot_be_written_is_said_and_leaves_the_one_before(tmp_path: Path) -> None:
    before = tmp_path / "run.jsonl"
    before.write_text("before", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:

        def full(*_: Any, **__: Any) -> Any:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(Path, "write_bytes", full)
        result = CliRunner().invoke(cli.app, ["export", "second", "-o", str(before)])
    assert "was not written: No space left" in str(result.exception)
    assert before.read_text(encoding="utf-8") == "before"
    assert [p.name for p in tmp_path.iterdir() if "run.jsonl" in p.name] == ["run.jsonl"]


def test_the_doctor_says_what_is_there_and_shows_no_key(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret-0123456789")
    monkeypatch.setattr(doctor, "_loopback", dict)
    found = data("doctor")
    assert found["models"]["OPENAI_API_KEY"] == "set"
    assert found["history"]["runs"] == 2
    assert found["packages"]["numpy"][0].isdigit()
    assert found["devices"]["processors"] >= 1
    assert found["sandbox"]["works"] in (True, False)
    assert "very-secret" not in json.dumps(found) + said("doctor")


def test_the_doctor_asks_a_model_of_its_own_and_leaves_nothing_behind(folder: Path) -> None:
    before = sorted(path.name for path in folder.rglob("*"))
    done = program("doctor", "--json", folder=folder)  # litellm leaves things in its process
    assert json.loads(done.stdout)["loopback"]["answered"] is True, done.stderr
    assert sorted(path.name for path in folder.rglob("*")) == before
    assert len(data("runs", "list")) == 2


@pytest.mark.usefixtures("folder")
def test_the_doctor_says_what_does_not_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_loopback", lambda: {"answered": False, "why": "a proxy"})
    assert "a proxy" in said("doctor", code=1)


def test_a_live_check_asks_the_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tracegraph import llm

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(doctor, "_sandbox", dict)
    monkeypatch.setattr(doctor, "_loopback", dict)
    monkeypatch.setattr(llm, "as_language_model", lambda name: llm.Scripted(["ready"]))
    assert data("doctor", "--live", "some-model")["live check"]["reply"] == "ready"
    monkeypatch.setattr(llm, "as_language_model", lambda name: llm.Scripted([]))
    assert "answered" in said("doctor", "--live", "some-model", code=1)


def test_a_reader_that_has_enough_gets_no_traceback(folder: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tracegraph", "export", "second"],
        cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    stderr = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=110) == 1
    assert stderr == b""
