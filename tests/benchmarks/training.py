"""How far every numeric optimizer gets on real data: ``python -m tests.benchmarks.training``.

Two small models: a transformer that guesses the next character of Python's own language reference,
which ships with Python, and a vision transformer for the handwritten digits that ship with
scikit-learn. Every optimizer has the same budget: the same number of steps, and the same number of
runs to find its learning rate, by a search that starts at a usual one. What is reported is the loss
on held-out data with other seeds than those of the search. Prints a table in Markdown.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, fields
from functools import cache
from itertools import repeat
from multiprocessing import get_context
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.lr_scheduler import LambdaLR

import optimizers as o

STEPS, WARMUP, WIDTH = 100, 10, 48
FACTOR = math.sqrt(10)
HEADS = 2


class Block(nn.Module):
    """One layer of a transformer, normalized first."""

    def __init__(self, width: int, *, causal: bool) -> None:
        super().__init__()
        self.causal = causal
        self.before, self.between = nn.LayerNorm(width), nn.LayerNorm(width)
        self.mix, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Attend, then compute place by place."""
        batch, places, width = x.shape
        heads = self.mix(self.before(x)).view(batch, places, 3, HEADS, width // HEADS)
        q, k, v = heads.permute(2, 0, 3, 1, 4)
        # spelled out: torch's fused attention has no second derivative, which AdaHessian takes
        score = q @ k.mT * (width // HEADS) ** -0.5
        if self.causal:
            score = score + torch.full((places, places), -math.inf).triu(1)
        mixed = score.softmax(dim=-1) @ v
        x = x + self.out(mixed.transpose(1, 2).reshape(x.shape))
        hidden: Tensor = self.down(functional.gelu(self.up(self.between(x))))
        return x + hidden


class Transformer(nn.Module):
    """A block between an embedding and a head, with one answer per place or one from all places."""

    def __init__(
        self, embed: nn.Module, places: int, answers: int, width: int, *, causal: bool
    ) -> None:
        super().__init__()
        self.embed, self.causal = embed, causal
        self.place = nn.Parameter(0.02 * torch.randn(places, width))
        self.block, self.norm = Block(width, causal=causal), nn.LayerNorm(width)
        self.head = nn.Linear(width if causal else places * width, answers)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.norm(self.block(self.embed(x) + self.place))
        answer: Tensor = self.head(x if self.causal else x.flatten(1))
        return answer


Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Task:
    """A model to train and its data."""

    name: str
    model: Callable[[int], nn.Module]
    batch: Callable[[torch.Generator], Batch]
    held: Callable[[], Batch]

    def loss(self, logits: Tensor, y: Tensor) -> Tensor:
        """Cross-entropy in nats."""
        return functional.cross_entropy(logits.flatten(0, -2), y.flatten())


CONTEXT = 32


@cache
def _text() -> tuple[Tensor, int]:
    """Python's language reference as numbers of characters, and how many characters there are."""
    from pydoc_data import topics

    text = "\n".join(topics.topics[key] for key in sorted(topics.topics))
    letters = {c: i for i, c in enumerate(sorted(set(text)))}
    return torch.tensor([letters[c] for c in text]), len(letters)


def _windows(starts: Tensor) -> Batch:
    text, _ = _text()
    places = starts[:, None] + torch.arange(CONTEXT)
    return text[places], text[places + 1]


def _text_batch(generator: torch.Generator) -> Batch:
    return _windows(torch.randint(len(_text()[0]) * 9 // 10 - CONTEXT, (16,), generator=generator))


def _text_held() -> Batch:
    first, last = len(_text()[0]) * 9 // 10, len(_text()[0]) - CONTEXT - 1
    return _windows(torch.linspace(first, last, 128).long())


def _text_model(width: int) -> nn.Module:
    letters = _text()[1]
    return Transformer(nn.Embedding(letters, width), CONTEXT, letters, width, causal=True)


@cache
def _digits() -> Batch:
    """The images as 16 patches of 4 pixels, and what digit they show, in one fixed random order."""
    from sklearn.datasets import load_digits

    found = load_digits()
    order = torch.randperm(len(found.target), generator=torch.Generator().manual_seed(0))
    images = torch.tensor(found.images, dtype=torch.float32)[order] / 16
    patches = images.view(-1, 4, 2, 4, 2).permute(0, 1, 3, 2, 4).reshape(-1, 16, 4)
    return patches, torch.tensor(found.target)[order]


DIGITS_HELD = 360


def _digits_batch(generator: torch.Generator) -> Batch:
    x, y = _digits()
    chosen = torch.randint(DIGITS_HELD, len(x), (32,), generator=generator)
    return x[chosen], y[chosen]


def _digits_held() -> Batch:
    x, y = _digits()
    return x[:DIGITS_HELD], y[:DIGITS_HELD]


def _digits_model(width: int) -> nn.Module:
    return Transformer(nn.Linear(4, width), 16, 10, width, causal=False)


TASKS = {
    task.name: task
    for task in (
        Task("text", _text_model, _text_batch, _text_held),
        Task("digits", _digits_model, _digits_batch, _digits_held),
    )
}


# -- how each optimizer is used ------------------------------------------------------------------

Forward = Callable[[], tuple[Tensor, Tensor]]
"""The loss on the present batch, and the logits."""


class Use:
    """An optimizer in a training loop: the usual way."""

    def __init__(self, *parts: Any) -> None:
        self.parts = parts

    @property
    def scheduled(self) -> list[torch.optim.Optimizer]:
        """The optimizers of torch's kind, whose rates decay."""
        return [
            part if isinstance(part, torch.optim.Optimizer) else part.inner for part in self.parts
        ]

    def step(self, t: int, forward: Forward) -> None:
        """Do step `t`, from 0."""
        for part in self.parts:
            part.zero_grad()
        forward()[0].backward()  # type: ignore[no-untyped-call]
        for part in self.parts:
            part.step()

    def evaluating(self) -> None:
        """Make the parameters those that are to be judged."""


class Closure(Use):
    """One that calls back for the loss, with its gradient or without."""

    def __init__(self, part: Any, *, gradient: bool) -> None:
        super().__init__(part)
        self.gradient = gradient

    def step(self, t: int, forward: Forward) -> None:
        def closure() -> Tensor:
            loss = forward()[0]
            if self.gradient:
                self.parts[0].zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
            return loss

        self.parts[0].step(closure)


class Ranking(Use):
    """One that is told which of several nearby points are better."""

    def step(self, t: int, forward: Forward) -> None:
        (part,) = self.parts
        with torch.no_grad():
            losses = [float(forward()[0]) for _ in part.candidates()]
        part.step(sorted(range(len(losses)), key=losses.__getitem__))


class SampledLabels(Use):
    """Sophia-G: every ten steps the curvature by labels that the model draws."""

    def step(self, t: int, forward: Forward) -> None:
        (part,) = self.parts
        if t % 10 == 0:
            generator = torch.Generator().manual_seed(t)
            part.update_gauss_newton(forward()[1].flatten(0, -2), generator=generator)
        super().step(t, forward)


class Curvature(Use):
    """AdaHessian: the Hessian's diagonal at every step."""

    def step(self, t: int, forward: Forward) -> None:
        (part,) = self.parts
        part.zero_grad()
        loss = forward()[0]
        part.estimate(loss)
        loss.backward()  # type: ignore[no-untyped-call]
        part.step()


class Averaging(Use):
    """Schedule-free: judged at the average; its rate does not decay."""

    @property
    def scheduled(self) -> list[torch.optim.Optimizer]:
        return []

    def evaluating(self) -> None:
        self.parts[0].eval()


@dataclass(frozen=True)
class Recipe:
    """One row: how to make it at a rate, the usual rate, and passes per step beside one forward.

    `gain` is how many nats a short run must win; small for those that see no gradient.
    """

    name: str
    make: Callable[[nn.Module, float], Use]
    rate: float
    passes: str = "1"
    gain: float = 0.1


def _plain(cls: Any, rate: float, *, name: str = "", **options: Any) -> Recipe:
    def make(model: nn.Module, lr: float) -> Use:
        return Use(cls(model.parameters(), lr=lr, **options))

    return Recipe(name or cls.__name__, make, rate)


def _with_adamw(cls: Any, rate: float, **options: Any) -> Recipe:
    """The matrices inside by `cls`; the embedding, the head and vectors by AdamW at a usual rate."""

    def make(model: nn.Module, lr: float) -> Use:
        inside = [p for n, p in model.named_parameters() if n.startswith("block.") and p.ndim == 2]
        ids = {id(p) for p in inside}
        rest = [p for p in model.parameters() if id(p) not in ids]
        return Use(cls(inside, lr=lr, **options), o.AdamW(rest, lr=1e-2))

    return Recipe(f"{cls.__name__} and AdamW", make, rate)


def _around(cls: Any, rate: float, passes: str, **options: Any) -> Recipe:
    def make(model: nn.Module, lr: float) -> Use:
        return Closure(cls(o.AdamW(model.parameters(), lr=lr), **options), gradient=True)

    return Recipe(f"{cls.__name__} of AdamW", make, rate, passes)


LOW_RANK: dict[str, Any] = {"rank": 12, "refresh_interval": 50}

RECIPES = (
    _plain(o.SGD, 0.1),
    _plain(o.SGD, 0.1, name="SGD, momentum", momentum=0.9),
    _plain(o.SGD, 0.1, name="SGD, Nesterov", momentum=0.9, nesterov=True),
    _plain(torch.optim.AdamW, 1e-2, name="torch.optim.AdamW"),
    _plain(o.Adam, 1e-2),
    _plain(o.AdamW, 1e-2),
    _plain(o.AdamW, 1e-2, name="AdamW, amsgrad", amsgrad=True),
    _plain(o.AdamW, 1e-2, name="AdamW, 8-bit state", state="8bit"),
    _plain(o.AdamW, 1e-2, name="AdamW, bf16 state", state="bf16-stochastic"),
    _plain(o.NadamW, 1e-2),
    _plain(o.Lion, 1e-3),
    _plain(o.LionK, 1e-3, name="LionK, Huber", kappa="huber", delta=1e-3),
    _plain(o.AdaBelief, 1e-2),
    _plain(o.EXAdam, 1e-3),
    _plain(o.AdamP, 1e-2),
    _plain(o.SGDP, 0.1),
    _plain(o.SPAM, 1e-2),
    _plain(o.StableSPAM, 1e-2),
    _plain(o.Adafactor, 0.1),
    _plain(o.SOAP, 1e-2),
    _plain(o.Shampoo, 1e-2),
    _plain(o.COSMOS, 0.1, rank=12),
    _plain(o.GaLore, 3e-2, **LOW_RANK),
    _plain(o.NaturalGaLore, 3e-2, **LOW_RANK),
    _plain(o.Fira, 1e-2, **LOW_RANK),
    _plain(o.FRUGAL, 3e-3, refresh_interval=50),
    _plain(o.DCTAdamW, 1e-2, rank=12),
    _with_adamw(o.Muon, 3e-2),
    _with_adamw(o.Trion, 3e-2, rank=12),
    Recipe(
        "ScheduleFreeAdamW",
        lambda model, lr: Averaging(
            o.ScheduleFreeAdamW(model.parameters(), lr=lr, warmup_steps=WARMUP)
        ),
        1e-2,
    ),
    Recipe(
        "Sophia-G",
        lambda model, lr: SampledLabels(o.Sophia(model.parameters(), lr=lr, batch_size=512.0)),
        1e-3,
        "1.1",
    ),
    Recipe(
        "AdaHessian",
        lambda model, lr: Curvature(
            o.AdaHessian(model.parameters(), lr=lr, generator=torch.Generator().manual_seed(0))
        ),
        3e-2,
        "2",
    ),
    _around(o.SAM, 1e-2, "2"),
    _around(o.LookSAM, 1e-2, "1.5", interval=2, alpha=0.3),
    _around(o.StaleSAM, 1e-2, "1"),
    Recipe(
        "RandomSubspace of Adam, 50 numbers",
        lambda model, lr: Use(o.RandomSubspace(model.parameters(), 50, lambda z: o.Adam(z, lr=lr))),
        0.3,
    ),
    Recipe(
        "MeZO, 4 samples",
        lambda model, lr: Closure(o.MeZO(model.parameters(), lr=lr, samples=4), gradient=False),
        1e-3,
        "0 (8 forward)",
        0.0,
    ),
    Recipe(
        "RankDescent of Adam",
        lambda model, lr: Ranking(o.RankDescent(o.Adam(model.parameters(), lr=lr))),
        1e-3,
        "0 (8 forward)",
        0.0,
    ),
)


# -- running ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Result:
    """Held-out loss and the share of right answers, before and after, and the bytes of state."""

    first: float
    loss: float
    right: float
    state_bytes: float


@torch.no_grad()
def _judged(task: Task, model: nn.Module) -> tuple[float, float]:
    x, y = task.held()
    logits = model(x)
    right = (logits.argmax(dim=-1) == y).double().mean()
    loss = float(task.loss(logits, y))
    return loss if math.isfinite(loss) else math.inf, float(right)


def _held_bytes(use: Use, elements: int) -> float:
    def tensors(value: Any) -> Iterator[Tensor]:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, dict):
            for item in value.values():
                yield from tensors(item)

    total = 0
    for part in use.scheduled or use.parts:
        for state in part.state.values():
            total += sum(x.numel() * x.element_size() for x in tensors(state) if x.ndim)
    return total / elements


def train(
    task: Task, recipe: Recipe, rate: float, seed: int, *, steps: int = STEPS, width: int = WIDTH
) -> Result:
    """One run: `steps` steps with a linear decay of the rate after a short warm-up."""
    torch.manual_seed(seed)
    model = task.model(width)
    first, _ = _judged(task, model)
    use = recipe.make(model, rate)
    schedules = [LambdaLR(part, o.LinearDecay(steps, WARMUP)) for part in use.scheduled]
    generator = torch.Generator().manual_seed(1000 + seed)
    for t in range(steps):
        x, y = task.batch(generator)

        def forward(x: Tensor = x, y: Tensor = y) -> tuple[Tensor, Tensor]:
            logits = model(x)
            return task.loss(logits, y), logits

        use.step(t, forward)
        for schedule in schedules:
            schedule.step()
    use.evaluating()
    loss, right = _judged(task, model)
    elements = sum(p.numel() for p in model.parameters())
    return Result(first, loss, right, _held_bytes(use, elements))


@dataclass(frozen=True)
class Budget:
    """What every optimizer is given: steps per run, runs to find its rate, and runs to report."""

    steps: int = STEPS
    search: int = 5
    seeds: int = 3


def search(task: Task, recipe: Recipe, budget: Budget) -> tuple[float, bool]:
    """The best rate of those tried with seed 0, and whether worse ones were seen on both sides.

    Rates are a factor of about 3 apart: the usual one, its neighbours, then on from the best.
    """
    seen: dict[int, float] = {}
    wanted = [0, 1, -1]
    for _ in range(budget.search):
        at = wanted.pop(0)
        seen[at] = train(task, recipe, recipe.rate * FACTOR**at, 0, steps=budget.steps).loss
        best = min(seen, key=seen.__getitem__)
        if not wanted:
            wanted = [next(k for k in (best + 1, best - 1, max(seen) + 1) if k not in seen)]
    best = min(seen, key=seen.__getitem__)
    return recipe.rate * FACTOR**best, best - 1 in seen and best + 1 in seen


@dataclass(frozen=True)
class Row:
    """What is said of one optimizer on one task."""

    rate: float
    inside: bool
    results: tuple[Result, ...]

    @property
    def loss(self) -> float:
        """The mean of the held-out losses."""
        return statistics.mean(r.loss for r in self.results)


def row(task: str, recipe: int, budget: Budget) -> Row:
    """Search for the rate, then run with the other seeds."""
    torch.set_num_threads(1)
    rate, inside = search(TASKS[task], RECIPES[recipe], budget)
    seeds = range(1, 1 + budget.seeds)
    results = [train(TASKS[task], RECIPES[recipe], rate, s, steps=budget.steps) for s in seeds]
    found = Row(rate, inside, tuple(results))
    print(f"{RECIPES[recipe].name}, {task}: {found}", file=sys.stderr, flush=True)
    return found


def _cell(found: Row) -> str:
    spread = max(r.loss for r in found.results) - min(r.loss for r in found.results)
    return f"{found.loss:.3f} ± {spread / 2:.3f}"


def _rate(found: Row) -> str:
    return f"{found.rate:.1g}" + ("" if found.inside else " *")


def table(rows: dict[tuple[str, int], Row]) -> Iterator[str]:
    """The lines of the table, by the sum of the places on both tasks."""
    places = dict.fromkeys(range(len(RECIPES)), 0)
    for task in TASKS:
        for place, k in enumerate(sorted(places, key=lambda k: rows[task, k].loss)):
            places[k] += place
    yield "| optimizer | text | rate | digits | right | rate | passes | bytes |"
    yield "|---|---|---|---|---|---|---|---|"
    for k in sorted(places, key=places.__getitem__):
        text, digits = rows["text", k], rows["digits", k]
        right = statistics.mean(r.right for r in digits.results)
        held = text.results[0].state_bytes
        yield (
            f"| {RECIPES[k].name} | {_cell(text)} | {_rate(text)} | {_cell(digits)} | {right:.1%} "
            f"| {_rate(digits)} | {RECIPES[k].passes} | {held:.1f} |"
        )


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--processes", type=int, default=2)
    for part in fields(Budget):
        parser.add_argument(f"--{part.name}", type=int, default=part.default)
    options = parser.parse_args()
    budget = Budget(options.steps, options.search, options.seeds)
    keys = [(task, k) for k in range(len(RECIPES)) for task in TASKS]
    with ProcessPoolExecutor(options.processes, mp_context=get_context("spawn")) as pool:
        found = list(pool.map(row, *zip(*keys, strict=True), repeat(budget)))
    for line in table(dict(zip(keys, found, strict=True))):
        print(line)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
