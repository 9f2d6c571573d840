"""The tables of the worlds come out, and their smallest form holds."""

from __future__ import annotations

import pytest

from optimizers.training.acceptance import p_value
from tests.benchmarks import numbers
from tests.benchmarks.world_peers import in_our_notation, installed
from tests.benchmarks.worlds import (
    OURS,
    PEERS,
    WORLDS,
    Figures,
    Row,
    figures,
    holds,
    identical,
    main,
)
from tests.worlds.facts import Fact, facts_in, variables_in


def nothing(row: Row, seed: int) -> Figures:
    return Figures(0.0, 0, 0, 0)


def test_one_seed_of_one_row_reaches_what_is_wanted() -> None:
    row = next(row for row in OURS if row.sabotage)
    found = figures(row, seed=5)
    assert holds(row, [found]) is True
    assert found.runs <= 400


def test_a_row_that_falls_short_is_told() -> None:
    row = Row("x", nothing, wanted=0.96, calls=25, characters=5_000)
    assert holds(row, [Figures(1.0, 25, 5_000, 99)]) is True
    assert holds(row, [Figures(0.9, 9, 99, 99)]) is False
    assert holds(row, [Figures(1.0, 26, 99, 99)]) is False
    assert holds(row, [Figures(1.0, 9, 5_001, 99)]) is False
    assert holds(Row("x", nothing), []) is None
    masked = Row("x", nothing, masked=True, wanted=0.0)
    assert holds(masked, [Figures(0.01, 9, 99, 99)]) is False


def test_every_world_has_a_row_with_its_feedback_masked() -> None:
    named = {row.name for row in WORLDS}
    assert {f"{name}, masked" for name in named if "masked" not in name} <= named


def test_a_stopped_training_and_many_workers_come_to_the_same() -> None:
    assert identical(3)


@pytest.mark.parametrize("package", PEERS)
def test_the_peers_that_are_installed_run(package: str) -> None:
    if not installed(package):
        pytest.skip(f"{package} is not installed; it is measured where it is")
    row = PEERS[package][0]
    found = figures(row, seed=5)
    assert 0.0 < found.accuracy <= 1.0
    assert found.calls > 0


def test_what_a_peer_writes_is_read_and_nothing_is_added() -> None:
    """The notations by hand: what stands there becomes a fact, a remark without its text does not."""
    fact = Fact("ab cd ef", "gh")
    trace = (
        "respond0 = respond(prompt=prompt0, text=text0)\njoin0 = join(args_0=respond0)\n\n"
        "#Variables\n(str) prompt0=Go.\n\n#Inputs\n(str) text0=ab cd ef\n\n"
        '#Feedback\nID [0]: The answer is "gh", not "x".\n'
    )
    past = 'Below are some variables and their feedbacks\nID [0]: The answer is \\"zz\\".\n'
    gepa = (
        "following instructions to perform a task for me:\n```\nGo.\n```\n\n# Example 1\n## Inputs\n"
        'ab cd ef\n\n## Generated Outputs\nx\n\n## Feedback\nThe answer is "gh".\n'
    )
    textgrad = (
        "<LM_SYSTEM_PROMPT> Go. </LM_SYSTEM_PROMPT>\n\n<LM_INPUT> Text: ab cd ef </LM_INPUT>\n\n"
        "<LM_OUTPUT> x </LM_OUTPUT>\n\nThis conversation is part of a larger system. So it is.\n\n"
        '<OBJECTIVE_FUNCTION>feedback: The answer is "gh". </OBJECTIVE_FUNCTION>\n'
    )
    for request in (trace, trace + past, gepa, textgrad):
        read = in_our_notation(request)
        assert facts_in(read) == [fact]
        assert [value.strip() for _, value in variables_in(read)] == ["Go."]


def test_the_command_prints_a_table(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.benchmarks.worlds.ROWS", OURS[:1])
    assert main(["--seeds", "1"]) == 0
    assert "flow of information" in capsys.readouterr().out


@pytest.mark.parametrize(("name", "size"), [("sphere", 5), ("rosenbrock", 2)])
def test_on_smooth_functions_evollm_is_nearer_than_chance_by_30_evaluations(
    name: str, size: int
) -> None:
    assert p_value(numbers.gains(name, size, numbers.chance, 30)) < 0.01
