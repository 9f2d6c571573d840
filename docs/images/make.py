"""Draw the pictures of the documentation from real runs: ``python docs/images/make.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

import tracegraph as tg

HERE = Path(__file__).resolve().parent


@tg.bundle
def customers(sign: str, discount: float) -> float:
    """How many people come in a day."""
    return {"Sale": 80, "Fresh": 100, "Last": 90}[sign] * (1 + 4 * discount)


@tg.bundle
def profit(customers: float, discount: float) -> float:
    """What a day earns: a piece costs 4 and sells for 10, less the discount."""
    return customers * (10 * (1 - discount) - 4)


@tg.bundle
def per_customer(profit: float, customers: float) -> float:
    """What a customer leaves."""
    return profit / (customers - 80)


def stall() -> str:
    """The market stall of the README, with feedback in words."""
    sign = tg.node("Sale", name="sign", trainable=True, constraint=Literal["Sale", "Fresh", "Last"])
    discount = tg.node(
        0.0, name="discount", trainable=True, constraint=Annotated[float, Field(ge=0, le=0.5)]
    )
    earned = profit(customers(sign, discount), discount)
    earned.backward("Too little: other stalls earn 700.")
    return tg.Graph.of(earned).to_svg()


def failure() -> str:
    """A call that failed, and the way that its error took back."""
    sign = tg.node("Sale", name="sign", trainable=True)
    came = customers(sign, 0.0)
    try:
        output = per_customer(profit(came, 0.0), came)
    except tg.ExecutionError as error:
        output = error.exception_node
        output.backward(error)
    return tg.Graph.of(output).to_svg()


if __name__ == "__main__":
    for draw in (stall, failure):
        (HERE / f"{draw.__name__}.svg").write_text(draw(), encoding="utf-8")
