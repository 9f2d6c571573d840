"""The battleship example: its game, and both ways to improve the player."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tracegraph as tg
from examples import battleship
from examples.battleship import FLEET, SHOTS, Board, boards, by_hand, main, mean_share, play, player
from tracegraph.llm import Scripted

BETTER = (
    "def reason(squares):\n"
    "    return [10 * hits - misses for row, column, hits, misses in squares]\n"
)
BROKEN = "def reason(squares):\n    return [1 / 0 for square in squares]\n"


def reply(code: str) -> str:
    return json.dumps({"reasoning": "hunt", "suggestion": {"reason": code}})


def test_the_fleet_has_its_ships_and_the_same_seed_the_same_boards() -> None:
    drawn = boards(50, seed=3)
    assert all(len(board.ships) == sum(FLEET) for board in drawn)
    assert drawn == boards(50, seed=3) != boards(50, seed=4)


def test_the_score_is_the_share_of_the_fleet_that_was_hit() -> None:
    board = Board(frozenset((0, column) for column in range(8)) | {(7, 7 - i) for i in range(4)})
    share, view = play(board, *player(trust=False))
    marks = list(view.values())
    assert marks.count("X") + marks.count("o") == SHOTS
    assert share.data == marks.count("X") / sum(FLEET)
    assert {p.label for p in tg.Graph.of(share).parameters} == {"reason", "act"}


def test_a_shot_at_no_open_square_is_a_failure_that_says_so() -> None:
    with pytest.raises(ValueError, match="must choose one of `squares`"):
        mean_share(boards(1, 0), lambda squares: None, lambda squares, worth: (9, 9, 0, 0))


def test_without_a_model_the_player_learns(capsys: pytest.CaptureFixture[str]) -> None:
    before = mean_share(boards(16, 1_000), *player(trust=False))
    after = main(["--quick"])
    assert after > before + 0.1
    few = ["--quick", "--steps", "5"]
    assert main(few) == main(few)
    printed = capsys.readouterr().out
    assert "at random:" in printed
    assert "step 80:" in printed


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(n, marks=pytest.mark.campaign) for n in (1, 2))]
)
def test_without_a_model_new_code_is_written_from_what_games_show(seed: int) -> None:
    """A tenth of the fleet more, on boards never seen: what was asked of Evolve before this was written."""
    before = mean_share(boards(16, seed + 1_000), *player(trust=False))
    assert main(["--quick", "--by", "synthesise", "--seed", str(seed)]) > before + 0.1


@pytest.mark.campaign
def test_with_lines_blamed_for_shots_that_miss_the_player_learns() -> None:
    """The same tenth; on twelve boards, as four of ``--quick`` are too few for one seed in two."""
    before = mean_share(boards(48, 1_000), *player(trust=False))
    assert main(["--blame"]) > before + 0.1


@given(
    st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=12).filter(
        lambda squares: any(ship for _, ship in squares)
    )
)
def test_what_is_misplaced_is_counted_in_pairs(squares: list[tuple[int, bool]]) -> None:
    """Each ship beside each square: worth less than it counts one, worth the same a half."""
    worth, ships = [float(w) for w, _ in squares], [ship for _, ship in squares]
    pairs = [(mine, other) for mine, ship in squares if ship for other, _ in squares]
    counted = sum((other > mine) + (other == mine) / 2 for mine, other in pairs)
    assert battleship.misplaced(worth, ships) == pytest.approx(counted / len(pairs))


def test_options_that_do_not_fit_together_are_refused() -> None:
    with pytest.raises(SystemExit):
        main(["--by", "synthesise", "--blame"])


def test_with_a_model_the_best_player_is_kept_and_failures_are_told() -> None:
    model = Scripted([reply(BROKEN), reply(BETTER), reply(BROKEN)])
    after = main(["--quick", "--steps", "4", "--trust"], model=model)
    hand = mean_share(boards(16, 1_000), *by_hand())
    assert after > 0.9 * hand
    assert "ZeroDivisionError" in model.requests[1].messages[-1].text
    assert "of the fleet hit over 4 boards" in model.requests[0].messages[-1].text


def test_what_a_model_writes_runs_apart_unless_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(battleship, "SHOTS", 3)
    spy = "def reason(squares):\n    import os\n    return [os.getpid() for square in squares]\n"
    plan, _ = player(trust=False)
    plan.parameter.assign(spy, origin="optimizer")
    import os

    try:
        found = plan([(0, 0, 0, 0)]).data
    except Exception:  # refused altogether
        found = []
    assert os.getpid() not in found
