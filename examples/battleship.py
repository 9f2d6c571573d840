"""Learn to play battleship by changing the player's own code.

    python examples/battleship.py                      # no key needed: Evolve edits the code
    python examples/battleship.py --model gpt-4o-mini  # OptoPrime asks a model for new code

A fleet hides on a board. Each turn the player's function `reason` gives every open square a number and
`act` shoots at one of them; both are code that an optimizer may change. They begin as a player who shoots
row by row. The score is the share of the fleet that is hit with 24 of 64 possible shots, over several boards.

Without a model, the new code is made of expressions that this file holds already, so it runs in
place. What a model writes is not trusted: see ``--trust``.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tracegraph as tg
from optimizers import Evolve

SIZE = 8
FLEET = (4, 3, 3, 2)
SHOTS = 24
OPEN, HIT, MISS = ".", "X", "o"

Square = tuple[int, int]
View = dict[Square, str]


@dataclass(frozen=True)
class Board:
    """A hidden fleet."""

    ships: frozenset[Square]

    @classmethod
    def drawn(cls, chance: random.Random) -> Board:
        """Ships in a row or column, none on top of another."""
        taken: set[Square] = set()
        for length in FLEET:
            while True:
                row, column = chance.randrange(SIZE), chance.randrange(SIZE - length + 1)
                ship = {(row, column + i) for i in range(length)}
                if chance.random() < 0.5:
                    ship = {(column, row) for row, column in ship}
                if not ship & taken:
                    break
            taken |= ship
        return cls(frozenset(taken))


def beside(view: View, square: Square, reach: int) -> list[str]:
    """What is known of the squares up to `reach` steps away in the four directions."""
    row, column = square
    steps = [step for step in range(-reach, reach + 1) if step]
    line = [(row + step, column) for step in steps] + [(row, column + step) for step in steps]
    return [view[place] for place in line if place in view]


# The player: two functions that an optimizer may change


def reason(view: View) -> dict[Square, int]:
    """Give every open square a number that says how promising a shot at it is."""
    worth = {}
    for square in view:
        row, column = square
        near = beside(view, square, 1)
        far = beside(view, square, 2)
        hits = near.count("X")
        misses = far.count("o")
        if view[square] == ".":
            worth[square] = row * 8 + column
    return worth


def act(worth: dict[Square, int]) -> Square:
    """Choose the square to shoot at from the numbers."""
    return min(worth, key=worth.get)


Player = tuple[Callable[[View], Any], Callable[[Any], Any]]


def player(*, trust: bool) -> tuple[Any, Any]:
    """The two functions as trainable bundles, with their code as it stands in this file."""
    trainable = tg.bundle(trainable=True, trust=trust)
    return trainable(reason), trainable(act)


@tg.bundle
def fleet_hit(ships: frozenset[Square], shots: list[Square]) -> float:
    """The share of the fleet that the shots hit."""
    return len(ships & set(shots)) / len(ships)


def play(board: Board, plan: Any, shoot: Any) -> tuple[Any, View]:
    """One game: the share of the fleet that was hit, as a node, and the board as it is known then.

    Raises:
        ValueError: a shot at a square that is not open.
    """
    view: View = {(row, column): OPEN for row in range(SIZE) for column in range(SIZE)}
    shots = []
    for _ in range(SHOTS):
        shot = shoot(plan(dict(view)))
        square = tg.unwrap(shot)
        if not isinstance(square, tuple) or view.get(square) != OPEN:
            raise ValueError(f"act chose {square!r}, which is no open square of the board")
        view[square] = HIT if square in board.ships else MISS
        shots.append(shot)
    return fleet_hit(board.ships, shots), view


def drawing(view: View) -> str:
    """The board as lines of ``.`` (open), ``X`` (hit) and ``o`` (miss)."""
    return "\n".join("".join(view[row, column] for column in range(SIZE)) for row in range(SIZE))


def boards(count: int, seed: int) -> list[Board]:
    """Boards with a fleet each, the same for the same seed."""
    chance = random.Random(seed)
    return [Board.drawn(chance) for _ in range(count)]


def mean_share(games: list[Board], plan: Any, shoot: Any) -> float:
    """The mean share of the fleet that is hit, without recording."""
    with tg.stop_tracing():
        return sum(float(tg.unwrap(play(board, plan, shoot)[0])) for board in games) / len(games)


# Baselines that are no part of the search


def at_random(chance: random.Random) -> Player:
    """A player who shoots anywhere."""
    return (
        lambda view: [square for square in view if view[square] == OPEN],
        chance.choice,
    )


def by_hand() -> Player:
    """A player that a person wrote: beside hits first, else a chess-board pattern."""

    def plan(view: View) -> dict[Square, float]:
        return {
            square: 10 * beside(view, square, 1).count(HIT)
            + 2 * (sum(square) % 2)
            - beside(view, square, 1).count(MISS)
            for square in view
            if view[square] == OPEN
        }

    return plan, lambda worth: max(worth, key=worth.get)


# The two ways to improve


Advance = Callable[[str], None]


def evolve(games: list[Board], steps: int, seed: int, advance: Advance) -> tuple[Any, Any]:
    """Edit the code, keep what scores better; gives the best player."""
    plan, shoot = player(trust=True)  # its variations are made of this file's own expressions
    optimizer = Evolve([plan, shoot], seed=seed, mu=4, lambda_=8)
    for step in range(steps):
        try:
            played = [play(board, plan, shoot)[0] for board in games]
        except Exception as error:  # whatever changed code does wrong, the candidate has failed
            optimizer.tell(optimizer.current or optimizer.ask()[0], None, feedback=str(error))
            optimizer.apply(optimizer.ask()[0])
            advance(f"step {step + 1}: failed, {type(error).__name__}")
            continue
        share = sum(node.data for node in played) / len(played)
        optimizer.zero_feedback()
        optimizer.backward([(node, node.data) for node in played])
        optimizer.step()
        advance(f"step {step + 1}: {share:6.1%} of the fleet, best {optimizer.best_score:6.1%}")
    optimizer.finish()
    return plan, shoot
