"""Learn to play battleship by changing the player's own code.

    python examples/battleship.py                      # no key needed: Evolve edits the code
    python examples/battleship.py --blame              # and changes lines first whose shots miss
    python examples/battleship.py --by synthesise      # no key either: new code, from what games show
    python examples/battleship.py --model gpt-4o-mini  # OptoPrime asks a model for new code

A fleet hides on a board. Each turn the player's function `reason` gives every open square a number and
`act` shoots at one of them; both are code that an optimizer may change. They begin as a player who
shoots near what is known already, from the top left. The score is the share of the fleet that is hit
with 24 shots at 64 squares, over several boards.

Without a model, `reason` alone is changed, and its new code is made of expressions that it holds
already or that stand in a table, so it runs in place. What a model writes is not trusted: see ``--trust``.
"""

from __future__ import annotations

import argparse
import random
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import tracegraph as tg
from optimizers import Evolve, OptoPrime
from optimizers.search import examples_of, nearest, suspects

SIZE = 8
FLEET = (4, 3, 3, 2)
SHOTS = 24
STEPS = {"evolve": 160, "synthesise": 2}
BOARDS = {"evolve": 12, "synthesise": 36}  # few candidates play, so each may play more
OPEN, HIT, MISS = ".", "X", "o"

Square = tuple[int, int]
View = dict[Square, str]
Known = tuple[int, int, int, int]


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


# The player: two functions that an optimizer may change


def reason(squares: list[Known]) -> list[float]:
    """Give every open square (row, column, hits beside it, misses beside it) a number."""
    return [hits + misses - row - column for row, column, hits, misses in squares]


def act(squares: list[Known], worth: list[float]) -> Known:
    """Choose the open square to shoot at from the numbers."""
    return squares[worth.index(max(worth))]


def player(*, trust: bool, profile: bool = False) -> tuple[Any, Any]:
    """The two functions as trainable bundles, with their code as it stands in this file.

    Args:
        trust: run code that an optimizer wrote in this process; without it, in the sandbox.
        profile: remember which lines run, for blame; it slows games down.
    """
    trainable = tg.bundle(trainable=True, trust=trust, profile=profile)
    return trainable(reason), trainable(act)


# The game


def open_squares(view: View) -> list[Known]:
    """The squares that can be shot at, each with the hits and the misses beside it."""
    found = []
    for (row, column), mark in view.items():
        if mark == OPEN:
            places = (row - 1, column), (row + 1, column), (row, column - 1), (row, column + 1)
            near = [view.get(place) for place in places]
            found.append((row, column, near.count(HIT), near.count(MISS)))
    return found


@tg.bundle
def fire(ships: frozenset[Square], squares: list[Known], chosen: Known) -> str:
    """Shoot at an open square: a hit or a miss.

    Raises:
        ValueError: what was chosen is none of the open squares.
    """
    if chosen not in squares:
        raise ValueError(f"act chose {chosen!r}; it must choose one of `squares`")
    return HIT if tuple(chosen[:2]) in ships else MISS


@tg.bundle
def share_hit(marks: list[str]) -> float:
    """The share of the fleet's squares that was hit."""
    return marks.count(HIT) / sum(FLEET)


def play(board: Board, plan: Any, shoot: Any) -> tuple[Any, View]:
    """One game: the share of the fleet that was hit, and the board as it is known at the end."""
    view = {(row, column): OPEN for row in range(SIZE) for column in range(SIZE)}
    marks = []
    for _ in range(SHOTS):
        squares = tg.node(open_squares(view))
        shot = shoot(squares, plan(squares))
        mark = fire(board.ships, squares, shot)
        row, column = tg.unwrap(shot)[:2]
        view[row, column] = tg.unwrap(mark)
        marks.append(mark)
    return share_hit(marks), view


def drawing(view: View) -> str:
    """The board as lines of text."""
    return "\n".join("".join(view[row, column] for column in range(SIZE)) for row in range(SIZE))


def boards(count: int, seed: int) -> list[Board]:
    """Boards with a fleet each, the same for the same seed."""
    chance = random.Random(seed)
    return [Board.drawn(chance) for _ in range(count)]


def shares(games: list[Board], plan: Any, shoot: Any) -> list[Any]:
    """The recorded share of the fleet that a player hits on each board."""
    return [play(board, plan, shoot)[0] for board in games]


def mean_share(games: list[Board], plan: Any, shoot: Any) -> float:
    """The mean share of the fleet that a player hits, without recording."""
    with tg.stop_tracing():
        return sum(float(tg.unwrap(share)) for share in shares(games, plan, shoot)) / len(games)


# Baselines, which no optimizer sees


def at_random(seed: int) -> tuple[Any, Any]:
    """A player who shoots anywhere."""
    chance = random.Random(seed)
    return (lambda squares: None), (lambda squares, worth: chance.choice(squares))


def by_hand() -> tuple[Any, Any]:
    """A player that a person wrote: beside hits first, else every second square."""

    def plan(squares: list[Known]) -> list[float]:
        return [
            10 * hits + (row + column) % 2 - misses / 4 for row, column, hits, misses in squares
        ]

    return plan, lambda squares, worth: squares[worth.index(max(worth))]


# Three ways to improve the player

Advance = Callable[[str], None]


def evolve(
    pair: tuple[Any, Any],
    games: list[Board],
    steps: int,
    seed: int,
    advance: Advance,
    *,
    blame: bool = False,
) -> None:
    """Edit the code of `reason`, and keep what hits more; `act` stays, as it is hardly improved.

    With `blame` the games are recorded, and lines are changed first that ran for shots which missed.
    """
    optimizer = Evolve(pair[0], seed=seed)
    for step in range(1, steps + 1):
        (candidate,) = optimizer.ask()
        optimizer.apply(candidate)
        try:
            with nullcontext() if blame else tg.stop_tracing():
                ends = shares(games, *pair)
        except Exception as error:  # changed code may do anything; then it has failed
            optimizer.tell(candidate, None, feedback=f"{type(error).__name__}: {error}")
            said = f"failed ({type(error).__name__})"
        else:
            share = sum(float(tg.unwrap(end)) for end in ends) / len(ends)
            marks = [mark for end in ends if blame for mark in end.parents]
            runs = [(mark, mark.data == HIT) for mark in marks]
            blamed = suspects(runs, optimizer.named_parameters)
            optimizer.tell(candidate, share, suspects=blamed)
            said = f"{share:.1%} of the fleet hit"
        advance(f"step {step}: {said}, best so far {optimizer.best_score:.1%}")
    optimizer.finish()


def misplaced(worth: list[float], ships: list[bool]) -> float:
    """The share of squares that were worth more than one with a ship; those worth the same count half.

    Raises:
        TypeError: a worth is no number.
    """
    order = sorted(float(number) for number in worth)
    hidden = [w for w, ship in zip(worth, ships, strict=True) if ship]
    below = sum(bisect_left(order, w) + bisect_right(order, w) for w in hidden) / 2
    return 1 - below / (len(order) * len(hidden)) if hidden else 0.0


def synthesise(
    pair: tuple[Any, Any], games: list[Board], rounds: int, seed: int, advance: Advance
) -> None:
    """Write `reason` anew from what recorded games show once they are over: where the ships were.

    No function fits that, so the nearest ones are asked for, and play. In the first round shots go
    anywhere, as a player sees little of what he never tries; later rounds add the games of the best (S. Ross,
    G. Gordon and J. A. Bagnell, "A reduction of imitation learning and structured prediction to no-regret
    online learning", AISTATS 2011).
    """
    (plan, shoot), chance = pair, random.Random(seed)
    known: list[Any] = []
    best = (mean_share(games, *pair), plan.parameter.data)
    for number in range(1, rounds + 1):
        ends = shares(games, plan, shoot if number > 1 else tg.bundle(at_random(seed)[1]))
        for board, end in zip(games, ends, strict=True):
            for given, _ in examples_of([end], plan):
                known.append((given, [square[:2] in board.ships for square in given["squares"]]))
        some = chance.sample(known, min(len(known), 48))
        for _, text in nearest(best[1], some, loss=misplaced, count=12, most=8_000):
            plan.parameter.assign(text, origin="optimizer")
            with suppress(Exception):  # what runs on all that was shown may fail elsewhere
                best = max(best, (mean_share(games, *pair), text), key=lambda one: one[0])
        plan.parameter.assign(best[1], origin="optimizer")
        advance(f"round {number}: best so far {best[0]:.1%} of the fleet hit")


def ask_model(
    pair: tuple[Any, Any], games: list[Board], steps: int, model: Any, advance: Advance
) -> None:
    """Let a model read one game and rewrite the code; keep the best."""
    optimizer = OptoPrime(
        list(pair), llm=model, objective=f"Hit as much of the fleet as possible in {SHOTS} shots."
    )
    best: tuple[float, list[str]] = (-1.0, [])
    feedback: tuple[Any, Any]
    for step in range(1, steps + 1):
        try:
            output, view = play(games[0], *pair)  # one game is recorded, all count
            score = mean_share(games, *pair)
        except Exception as error:  # changed code may do anything; its failure is the feedback
            said, feedback = "failed", (tg.failed_node(error) or output, error)
        else:
            if score > best[0]:
                best = (score, [function.parameter.data for function in pair])
            said = f"{score:.1%}"
            words = (
                f"{said} of the fleet hit over {len(games)} boards. The first board, at the end:"
            )
            feedback = (output, f"{words}\n{drawing(view)}")
        advance(f"step {step}: {said} of the fleet hit, best so far {max(best[0], 0):.1%}")
        optimizer.zero_feedback()
        optimizer.backward([feedback])
        if step < steps:
            optimizer.step()
    for function, code in zip(pair, best[1], strict=False):
        function.parameter.assign(code, origin="optimizer")


def main(arguments: list[str] | None = None, *, model: Any = None) -> float:
    """Run the example; gives the share that the best player hits on boards it never saw.

    Args:
        arguments: as on the command line.
        model: a `LanguageModel` in the place of a model's name.
    """
    options = _options(arguments)
    model = model or options.model
    steps = options.steps or (10 if model else STEPS[options.by])
    count, most = BOARDS[options.by], 48
    if options.quick:
        steps, count, most = min(steps, 80), count // 3, 16
    games, fresh = boards(count, options.seed), boards(most, options.seed + 1_000)
    pair = player(trust=options.trust or model is None, profile=options.blame)
    console = Console()
    baselines = {
        "at random": mean_share(fresh, *at_random(options.seed)),
        "the start": mean_share(fresh, *pair),
        "written by hand": mean_share(fresh, *by_hand()),
    }
    for name, share in baselines.items():
        console.print(f"{name}: {share:.1%} of the fleet hit", highlight=False)
    with _progress(console, steps) as advance:
        if model:
            ask_model(pair, games, steps, model, advance)
        elif options.by == "synthesise":
            synthesise(pair, games, steps, options.seed, advance)
        else:
            evolve(pair, games, steps, options.seed, advance, blame=options.blame)
    after = mean_share(fresh, *pair)
    for function in pair:
        console.print(f"\n{function.parameter.data.rstrip()}", highlight=False, markup=False)
    console.print(
        f"\nlearned: {after:.1%} of the fleet hit on {len(fresh)} boards that it never saw "
        f"(the start: {baselines['the start']:.1%})",
        highlight=False,
    )
    return after


@contextmanager
def _progress(console: Console, steps: int) -> Iterator[Advance]:
    """A bar on a terminal, plain lines elsewhere; a line for each step in both."""
    columns = TextColumn("playing"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=steps)

        def advance(line: str) -> None:
            console.print(line, highlight=False, markup=False)
            bar.advance(task)

        yield advance


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", help="a model's name for litellm, which then writes the code")
    parser.add_argument(
        "--by", choices=[*STEPS], default="evolve", help="how code changes without a model"
    )
    parser.add_argument(
        "--steps", type=int, help="how many (evolve 160, synthesise 2, with a model 10)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the boards and the search")
    parser.add_argument(
        "--blame", action="store_true", help="let evolve change lines first whose shots miss"
    )
    parser.add_argument("--quick", action="store_true", help="fewer steps and boards")
    parser.add_argument(
        "--trust",
        action="store_true",
        help="run code that a model wrote in this process, not in the sandbox",
    )
    options = parser.parse_args(arguments)
    if options.by == "synthesise" and (options.blame or options.model):
        parser.error(
            "--by synthesise asks no model and changes no lines: leave --model and --blame out"
        )
    return options


if __name__ == "__main__":
    main()
