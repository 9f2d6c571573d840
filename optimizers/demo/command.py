"""The command ``demo``: watch two prompts and one function improve, without a key.

Errors are those of the library; whoever runs the command says them in a line (`main` does).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import Annotated, Any

import typer

from optimizers.demo.desk import Desk
from optimizers.demo.server import Server, asked
from optimizers.demo.show import Lines, Picture
from optimizers.demo.standin import StandIn
from optimizers.llm.optoprime import OptoPrime
from optimizers.training.acceptance import Paired
from optimizers.training.loop import fit
from optimizers.training.result import Result
from tracegraph.errors import TracegraphError
from tracegraph.llm import Budgeted, LanguageModel, Request, as_language_model

__all__ = ["STAND_IN", "demo", "main"]

STAND_IN = "a deterministic stand-in answers, not a language model"
"""What is said of the model where no other one was asked for."""

_OBJECTIVE = (
    "The tickets of a help desk should be right: topic, team and hours. Change the prompts and the "
    "function by what the feedback says. State a rule in a prompt as a line "
    '"word" means "answer", and keep the rules that are right.'
)


def demo(
    model: Annotated[
        str | None,
        typer.Option(help="A real model by its litellm name; without it a stand-in answers."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Draws the rules and the messages.")] = 0,
    runs: Annotated[int, typer.Option(min=40, help="At most so many runs of the desk.")] = 300,
    calls: Annotated[int, typer.Option(min=1, help="At most so many calls of the model.")] = 1_000,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print only the result, as JSON.")
    ] = False,
) -> None:
    """Watch a help desk of two prompts and one function improve, without a key."""
    with ExitStack() as opened:
        llm = Budgeted(_model(model, seed, opened), calls=calls)
        desk = Desk(seed, lambda messages: llm(messages).text)
        title = f"tracegraph demo: {STAND_IN if model is None else f'{model} answers'}"
        show: Any = None
        if not as_json:
            show = _shown(title, desk, lambda: _spent(llm), opened)
        result = fit(
            desk.run, desk.train, desk.guide, validation=desk.validation, budget=runs, seed=seed,
            optimizer=OptoPrime(desk.parameters, llm=llm, objective=_OBJECTIVE),
            acceptance=Paired(alpha=1.0), batch_size=8, perfect=1.0, target=1.0, patience=6,
            progress=False, on=() if show is None else (show,),
        )  # fmt: skip
        if isinstance(result.error, KeyboardInterrupt):
            raise result.error
    if as_json:
        typer.echo(json.dumps(_facts(model, seed, desk, result, llm), indent=2))
        return
    typer.echo(f"\n{title}")
    for name, text in _values(desk).items():
        typer.echo(f"\n{name}:\n{text}")
    typer.echo(
        f"\nscore {result.baseline:.2f} -> {result.score:.2f} on {len(desk.validation)} messages that "
        f"no proposal was made from; {_spent(llm)}; {result.stopped}"
    )
    if model is None:
        typer.echo(
            "This shows the way of the feedback, and says nothing of what a language model can do. "
            "With one: --model NAME."
        )


def main() -> None:
    """Run the command alone; errors are one line on stderr, exit code 1, and 130 after Ctrl-C."""
    app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False, add_completion=False)
    app.command()(demo)
    try:
        app(prog_name="python -m optimizers.demo")
    except KeyboardInterrupt:
        sys.exit(130)
    except (TracegraphError, OSError) as error:
        typer.echo(f"error: {' '.join(str(error).split())}", err=True)
        sys.exit(1)


def _model(name: str | None, seed: int, opened: ExitStack) -> LanguageModel:
    """The stand-in behind its server, or a real model that has answered once."""
    if name is not None:
        real = as_language_model(name)
        real.ask(
            Request.of("Answer with the word ready.")
        )  # says now what is missing: the extra, a key, the line
        return real
    server = opened.enter_context(Server(StandIn(seed).respond))

    def stand_in(messages: list[dict[str, str]]) -> Mapping[str, Any]:
        return asked(server.base, messages)

    return as_language_model(stand_in)


def _shown(title: str, desk: Desk, spent: Callable[[], str], opened: ExitStack) -> Any:
    from rich.console import Console

    def values() -> dict[str, str]:
        return _values(desk)

    console = Console()
    if console.is_terminal:
        return opened.enter_context(Picture(console, title, values, spent))
    typer.echo(title)
    return Lines(typer.echo, values, spent)


def _values(desk: Desk) -> dict[str, str]:
    return {name: str(p.data).strip() for name, p in desk.parameters.items()}


def _spent(llm: Budgeted) -> str:
    spent = llm.spent
    dollars = f", ${spent.dollars:.4f}" if spent.dollars else ""
    return f"{spent.calls:,} calls, {spent.tokens:,} tokens{dollars}"


def _facts(
    model: str | None, seed: int, desk: Desk, result: Result, llm: Budgeted
) -> dict[str, Any]:
    before = {name: str(p.initial).strip() for name, p in desk.parameters.items()}
    spent = llm.spent
    return {
        "model": model or "stand-in",
        "is_stand_in": model is None,
        "seed": seed,
        "score": {"before": result.baseline, "after": result.score},
        "spent": {
            "runs": result.spend.runs,
            "calls": spent.calls,
            "tokens": spent.tokens,
            "dollars": spent.dollars,
        },
        "parameters": {
            name: {"before": before[name], "after": text} for name, text in _values(desk).items()
        },
        "stopped": result.stopped,
    }
