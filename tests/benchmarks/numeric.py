"""How fast a step is, beside torch: ``python -m tests.benchmarks.numeric``.

Prints milliseconds (the best of several steps), GB/s, and the share of the in-place copy roof for one
tensor of 10M float32 elements and for 1000 tensors of 10k. The roof is the best of as many passes of
``x.mul_(c)`` over one large tensor, taken in turns with the steps, so that both meet the same machine and
no step finds its tensors in the cache. It goes over one array and reads as much as it writes; a rule goes
over three or four and reads more than it writes. The rows "least" do that with one sum per array, in
the same kernel: what is left between them and a rule is the rule's arithmetic. Shares may be above 100 %.

Then comes a step of 8 tensors of 500, in which all time is Python's; and, where Triton is installed, the
host's part of a step of 1,000 small tensors that would be counted on a GPU: tensors of the processor stand
in for those of the device, no number is read and no kernel launched. Beside it torch's fused step of a
processor, which computes as well.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any
from unittest import mock

import torch
from typing_extensions import override

from optimizers.numeric.adabelief import AdaBelief
from optimizers.numeric.adam import AdamW
from optimizers.numeric.exadam import EXAdam
from optimizers.numeric.lion import Lion
from optimizers.numeric.rule_optimizer import RuleOptimizer
from optimizers.numeric.rules.rule import Rule, State
from optimizers.numeric.sgd import SGD

Make = Callable[[list[torch.Tensor]], torch.optim.Optimizer]


def _sums(p: Any, g: Any, s: Any, h: Any) -> Any:
    return p - h[0] * g, [x + g for x in s]


class Least(RuleOptimizer):
    """One sum for the parameter and one for each of `states` states: memory, and hardly anything else."""

    counts = False

    def __init__(self, params: Any, states: int) -> None:
        names = tuple(State(name) for name in ("exp_avg", "exp_avg_sq")[:states])
        self._least = Rule(f"least_{states}", _sums, lambda o, t: (o["lr"],), names)
        super().__init__(params, {"lr": 1e-3}, backend="native")

    @override
    def rule(self, group: dict[str, Any]) -> Rule:
        return self._least


CONTESTANTS: dict[str, tuple[int, Make]] = {
    "torch AdamW fused": (28, lambda p: torch.optim.AdamW(p, fused=True)),
    "torch AdamW foreach": (28, lambda p: torch.optim.AdamW(p, foreach=True)),
    "torch SGD momentum fused": (20, lambda p: torch.optim.SGD(p, momentum=0.9, fused=True)),
    "AdamW native": (28, lambda p: AdamW(p, backend="native")),
    "AdamW foreach": (28, lambda p: AdamW(p, backend="foreach")),
    "AdamW native, bf16 state": (20, lambda p: AdamW(p, backend="native", state="bf16")),
    "AdamW native, 8-bit state": (16, lambda p: AdamW(p, backend="native", state="8bit")),
    "SGD momentum native": (20, lambda p: SGD(p, momentum=0.9, backend="native")),
    "Lion native": (20, lambda p: Lion(p, backend="native")),
    "AdaBelief native": (28, lambda p: AdaBelief(p, backend="native")),
    "EXAdam native": (28, lambda p: EXAdam(p, backend="native")),
    "least, 3 arrays": (20, lambda p: Least(p, 1)),
    "least, 4 arrays": (28, lambda p: Least(p, 2)),
}

FEW: dict[str, Make] = {
    "torch AdamW foreach": lambda p: torch.optim.AdamW(p, foreach=True),
    "AdamW foreach": lambda p: AdamW(p, backend="foreach"),
    "torch SGD momentum foreach": lambda p: torch.optim.SGD(p, momentum=0.9, foreach=True),
    "SGD momentum foreach": lambda p: SGD(p, momentum=0.9, backend="foreach"),
}


def seconds(act: Callable[[], object], rounds: int) -> Iterator[float]:
    """The time of each of `rounds` calls."""
    for _ in range(rounds):
        start = time.perf_counter()
        act()
        yield time.perf_counter() - start


def random(count: int, size: int) -> list[torch.Tensor]:
    """Parameters with gradients."""
    params = [torch.randn(size, requires_grad=True) for _ in range(count)]
    for p in params:
        p.grad = torch.randn(size)
    return params


def few(only: str) -> None:
    """Print microseconds of a step of 8 tensors of 500, the best of many taken in turns."""
    made = {name: make(random(8, 500)) for name, make in FEW.items() if only in name}
    best = dict.fromkeys(made, float("inf"))
    for _ in range(1000):
        for name, optimizer in made.items():
            best[name] = min(best[name], *seconds(optimizer.step, 1))
    print("\n8 x 500 float32")
    for name, found in best.items():
        print(f"{name:28}{found * 1e6:8.0f} us")


class _Nowhere:
    """Takes the place of a kernel, and launches nothing."""

    def __getitem__(self, grid: Any) -> Callable[..., None]:
        return lambda *arguments, **options: None


def counted(only: str) -> None:
    """Print what the host takes for steps that count on a device."""
    if find_spec("triton") is None:
        return
    from optimizers.numeric import captured
    from optimizers.numeric.executors import triton

    here: dict[str, Any] = {"capturable": True, "backend": "triton"}
    careful: dict[str, Any] = {"nonfinite": "skip", "clip_norm": 1.0}
    made: dict[str, torch.optim.Optimizer] = {
        "torch AdamW fused": torch.optim.AdamW(random(1000, 16), fused=True),
        "AdamW on the host": AdamW(random(1000, 16)),
        "AdamW counted": AdamW(random(1000, 16), **here),
        "AdamW counted, skip and clip": AdamW(random(1000, 16), **here, **careful),
    }
    best = {name: float("inf") for name in made if only in name}
    with (
        mock.patch.object(captured, "_is_read", return_value=False),
        mock.patch.object(triton, "multi_tensor", _Nowhere()),
    ):
        for _ in range(50):
            for name in best:
                best[name] = min(best[name], *seconds(made[name].step, 1))
    print("\n1000 x 16 float32, the host's part")
    for name, found in best.items():
        print(f"{name:28}{found * 1e3:8.2f} ms")


def main() -> None:
    """Run the contestants whose name contains the given word."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="")
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    large = torch.ones(50_000_000)
    for count, size in ((1, 10_000_000), (1000, 10_000)):
        print(f"\n{count} x {size} float32, {torch.get_num_threads()} threads")
        print(f"{'':28}{'ms':>8}{'GB/s':>8}{'roof':>8}{'share':>8}")
        for name, (traffic, make) in CONTESTANTS.items():
            if options.only not in name:
                continue
            optimizer = make(random(count, size))
            for _ in range(3):
                optimizer.step()
            copies: list[float] = []
            steps: list[float] = []
            for _ in range(options.rounds):
                copies += seconds(lambda: large.mul_(1.0), 1)
                steps += seconds(optimizer.step, 1)
            best, top = min(steps), 8 * large.numel() / min(copies) / 1e9
            rate = traffic * count * size / best / 1e9
            print(f"{name:28}{best * 1e3:8.2f}{rate:8.1f}{top:8.1f}{rate / top:8.0%}")
    few(options.only)
    counted(options.only)


if __name__ == "__main__":
    main()
