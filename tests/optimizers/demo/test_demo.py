"""The demonstration comes to what it shows, says who answers, and needs nothing but the package."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from typing import Any

import pytest
from rich.console import Console
from typer import Typer
from typer.testing import CliRunner

from optimizers import OptoPrime, fit
from optimizers.demo.command import STAND_IN, demo, main
from optimizers.demo.desk import ROUTE, TRIAGE, Desk
from optimizers.demo.server import Server
from optimizers.demo.show import Picture
from optimizers.demo.standin import StandIn
from optimizers.training.result import Event

app = Typer()
app.command()(demo)


def run(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments)


def facts(seed: int) -> dict[str, Any]:
    done = run("--json", "--seed", str(seed))
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.stdout))


def test_the_desk_improves_and_the_same_seed_gives_the_same() -> None:
    first, again = facts(1), facts(1)
    assert first == again
    assert first["score"] == {"before": 0.0, "after": 1.0}
    assert first["is_stand_in"] is True
    assert first["spent"]["runs"] <= 300
    for name in ("triage", "route", "hours_for"):
        assert first["parameters"][name]["before"] != first["parameters"][name]["after"]


def test_without_a_terminal_it_writes_plain_lines_and_says_first_who_answers() -> None:
    done = run("--seed", "2")
    lines = done.stdout.splitlines()
    assert STAND_IN in lines[0]
    assert "\x1b" not in done.stdout
    assert any(line.lstrip().startswith('+ "') for line in lines)
    assert "score 0.00 -> 1.00" in done.stdout


def test_on_a_terminal_the_picture_shows_the_score_the_spend_and_the_change() -> None:
    texts = {"triage": "one"}
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with Picture(console, STAND_IN, lambda: dict(texts), lambda: "7 calls") as picture:
        picture(Event("validated", 0, score=0.25))
        texts["triage"] = "one\ntwo"
        picture(Event("accepted", 1, score=0.5, before=0.25))
        picture(Event("rejected", 2, "it changes nothing"))
    assert isinstance(console.file, io.StringIO)
    shown = console.file.getvalue()
    for said in (STAND_IN, "0.25", "7 calls", "+ two", "refused, it changes nothing"):
        assert said in shown


def masked(message: Any, output: Any) -> tuple[float, str]:
    score, _ = Desk.guide(message, output)
    return score, "Something is wrong." if score < 1 else ""


def test_with_the_remarks_masked_nothing_is_learned() -> None:
    """The stand-in has no other way to the answers than the request."""
    model = StandIn(spoiled=0.0)
    desk = Desk(4, model.says)
    optimizer = OptoPrime(desk.parameters, llm=lambda messages: model.says(messages))
    result = fit(desk.run, desk.train, masked, optimizer=optimizer, budget=120, workers=1)
    assert result.score == 0.0
    assert (desk.triage.data, desk.route.data) == (TRIAGE, ROUTE)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_real_model_without_a_key_is_one_clear_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.setattr(sys, "argv", ["demo", "--model", "gpt-4o-mini"])
    with pytest.raises(SystemExit) as ended:
        main()
    said = capsys.readouterr()
    assert (ended.value.code, said.out) == (1, "")
    (line,) = said.err.splitlines()
    assert line.startswith("error: the model 'gpt-4o-mini' of openai needs a key")


def test_it_loads_neither_litellm_nor_torch_nor_numeric_optimizers() -> None:
    program = (
        "import sys; sys.argv[1:] = ['--json', '--runs', '60']\n"
        "try:\n    import optimizers.demo.command as c; c.main()\n"
        "except SystemExit: pass\n"
        "print(sorted({'litellm', 'torch', 'networkx', 'graphviz'} & sys.modules.keys()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.campaign
@pytest.mark.timeout(300)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_a_named_model_takes_the_way_through_litellm() -> None:
    """The stand-in again, but as a provider like any other, with a key and an address."""
    with Server(StandIn(3).respond) as server:
        environment = {**os.environ, "OPENAI_API_KEY": "some-key", "OPENAI_API_BASE": server.base}
        done = subprocess.run(
            [sys.executable, "-m", "optimizers.demo", "--json", "--runs", "60",
             "--model", "openai/served"],
            capture_output=True, text=True, timeout=280, env=environment,
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert (facts["model"], facts["is_stand_in"]) == ("openai/served", False)
    assert facts["score"]["after"] > facts["score"]["before"] == 0.0
    assert "some-key" not in done.stdout + done.stderr
