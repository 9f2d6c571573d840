"""How fast a step is on a GPU, beside torch and others: ``python -m tests.benchmarks.gpu``.

Prints pages' tables, with date and device. For one large tensor and for 1000 small ones: milliseconds
on the device (median of CUDA events; the device waits until the host has said all it has to do),
milliseconds of the host, GB/s, the share of the copy bandwidth measured in the same run, and the ratios of
both times to `torch.optim` with ``fused=True``. bitsandbytes and torchao are measured where they are
installed. What fails is a row that says why. Without a GPU it says so and ends; ``--device cpu
--elements 5000`` goes through all of it on the processor, to see that it would run.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import date
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor

from optimizers.numeric.adabelief import AdaBelief
from optimizers.numeric.adam import AdamW
from optimizers.numeric.bases.matrix import orthogonal
from optimizers.numeric.exadam import EXAdam
from optimizers.numeric.lion import Lion
from optimizers.numeric.sgd import SGD

Make = Callable[[list[Tensor]], torch.optim.Optimizer]
FP32, BF16 = torch.float32, torch.bfloat16


@dataclass(frozen=True)
class Contestant:
    """An optimizer, the dtype of its parameters, and the bytes that a step must move for each."""

    name: str
    dtype: torch.dtype
    traffic: float
    make: Make
    replayed: bool = False
    """Whether a CUDA graph of the step is replayed."""


def _peer(module: str, name: str, **options: Any) -> Make:
    return lambda params: getattr(import_module(module), name)(params, **options)


def contestants() -> list[Contestant]:
    """Ours, which go by Triton on a GPU, and torch's; the peers' that are installed."""
    found = [
        Contestant("torch AdamW fused", FP32, 28, lambda p: torch.optim.AdamW(p, fused=True)),
        Contestant("AdamW", FP32, 28, lambda p: AdamW(p)),
        Contestant("AdamW, 8-bit state", FP32, 16.25, lambda p: AdamW(p, state="8bit")),
        Contestant("AdaBelief", FP32, 28, lambda p: AdaBelief(p)),
        Contestant("EXAdam", FP32, 28, lambda p: EXAdam(p)),
        Contestant(
            "torch SGD momentum fused",
            FP32,
            20,
            lambda p: torch.optim.SGD(p, momentum=0.9, fused=True),
        ),
        Contestant("SGD momentum", FP32, 20, lambda p: SGD(p, momentum=0.9)),
        Contestant("Lion", FP32, 20, lambda p: Lion(p)),
        Contestant("torch AdamW fused", BF16, 14, lambda p: torch.optim.AdamW(p, fused=True)),
        Contestant("AdamW, bf16 state", BF16, 14, lambda p: AdamW(p, state="bf16")),
        Contestant(
            "AdamW, bf16-stochastic state",
            BF16,
            14,
            lambda p: AdamW(p, state="bf16-stochastic"),
        ),
        Contestant("AdamW, 8-bit state", BF16, 10.25, lambda p: AdamW(p, state="8bit")),
        Contestant(
            "AdamW, 8-bit dynamic state",
            BF16,
            10.06,
            lambda p: AdamW(p, state="8bit-dynamic"),
        ),
        Contestant("Lion, bf16 state", BF16, 10, lambda p: Lion(p, state="bf16")),
        *(
            Contestant(
                f"AdamW, bf16 state, {way}",
                BF16,
                14 + beside,
                lambda p, way=way: AdamW(p, state="bf16", rounding=way),  # type: ignore[misc]
            )
            for way, beside in (("stochastic", 0), ("24bit", 2), ("32bit", 4))
        ),
        Contestant(
            "AdamW, 8-bit state, 24bit",
            BF16,
            12.25,
            lambda p: AdamW(p, state="8bit", rounding="24bit"),
        ),
    ]
    if torch.cuda.is_available():
        found += [
            Contestant(
                "torch AdamW fused, replayed",
                FP32,
                28,
                lambda p: torch.optim.AdamW(p, fused=True, capturable=True),
                replayed=True,
            ),
            Contestant("AdamW, replayed", FP32, 28, lambda p: AdamW(p, capturable=True), True),
        ]
    if find_spec("bitsandbytes") is not None:
        eight = _peer("bitsandbytes.optim", "AdamW8bit")
        found.append(Contestant("bitsandbytes AdamW8bit", BF16, 10.06, eight))
    if find_spec("torchao") is not None:
        eight = _peer("torchao.optim", "AdamW8bit")
        found.append(Contestant("torchao AdamW8bit", BF16, 10.06, eight))
    return found


def milliseconds(act: Callable[[], object], rounds: int, device: str) -> tuple[float, float]:
    """The median time of a call on the device, and on the host, which is ahead of it."""
    for _ in range(3):
        start = time.perf_counter()
        act()
    ahead = int(
        4e6 * (1 + 1e3 * (time.perf_counter() - start))
    )  # cycles: twice what the host takes
    on_device, on_host = [], []
    for _ in range(rounds):
        if device == "cpu":
            start = time.perf_counter()
            act()
            on_host.append((time.perf_counter() - start) * 1e3)
            on_device.append(on_host[-1])
            continue
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
        torch.cuda._sleep(ahead)  # type: ignore[no-untyped-call]
        begin.record()
        start = time.perf_counter()
        act()
        on_host.append((time.perf_counter() - start) * 1e3)
        end.record()
        torch.cuda.synchronize()
        on_device.append(begin.elapsed_time(end))
    return median(on_device), median(on_host)


def copy_bandwidth(elements: int, rounds: int, device: str) -> float:
    """GB/s of copying `elements` of float32 on the device, read and written."""
    a = torch.empty(elements, device=device)
    b = torch.empty_like(a)
    return 2 * a.nbytes / milliseconds(lambda: b.copy_(a), rounds, device)[0] / 1e6


@dataclass
class Line:
    """One measured optimizer."""

    tensors: str
    name: str
    dtype: str
    ms: float
    host_ms: float
    gb_s: float
    of_copy: float
    to_fused: float | None
    host_to_fused: float | None

    def __str__(self) -> str:
        to, host = ("" if x is None else f"{x:.2f}" for x in (self.to_fused, self.host_to_fused))
        return (
            f"| {self.name} ({self.dtype}) | {self.ms:.3f} | {self.gb_s:.0f} | {self.of_copy:.0%} "
            f"| {to} | {self.host_ms:.3f} | {host} |"
        )


def replay(step: Callable[[], object]) -> Callable[[], object]:
    """A replay of a CUDA graph of the step, warmed up on a stream of its own as torch asks."""
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def measured(
    one: Contestant,
    count: int,
    size: int,
    roof: float,
    rounds: int,
    fused: dict[str, tuple[float, float]],
    device: str,
) -> Line:
    """Step `one` on `count` tensors of `size`; `fused` remembers the times of torch's."""
    params = [torch.randn(size, device=device).to(one.dtype).requires_grad_() for _ in range(count)]
    for p in params:
        p.grad = torch.randn_like(p)
    optimizer = one.make(params)
    act = replay(optimizer.step) if one.replayed else optimizer.step
    ms, host = milliseconds(act, rounds, device)
    dtype = str(one.dtype).removeprefix("torch.")
    kind = f"{'SGD' if 'SGD' in one.name else 'AdamW'} {dtype} {one.replayed}"
    if "fused" in one.name:
        fused[kind] = (ms, host)
    rate = one.traffic * count * size / ms / 1e6
    to, host_to = (ms / fused[kind][0], host / fused[kind][1]) if kind in fused else (None, None)
    tensors = f"{count} x {size:,}"
    return Line(tensors, one.name, dtype, ms, host, rate, rate / roof, to, host_to)


def newton_schulz(shapes: tuple[tuple[int, int], ...], rounds: int, device: str) -> None:
    """Five iterations on square matrices, beside torch's own products with their sums."""
    print("\n| Newton-Schulz, 5 steps, bfloat16 | ms | TFLOP/s | to torch |\n|---|---|---|---|")
    for batch, n in shapes:
        g = torch.randn(batch, n, n, device=device)

        def plain(g: Tensor = g) -> Any:
            x = g.bfloat16()
            x = x / torch.linalg.matrix_norm(x, keepdim=True)
            for _ in range(5):
                gram = torch.bmm(x, x.mT)
                polynomial = torch.baddbmm(gram, gram, gram, beta=-4.775, alpha=2.0315)
                x = torch.baddbmm(x, polynomial, x, beta=3.4445)
            return x

        ours, _ = milliseconds(lambda g=g: orthogonal(g), rounds, device)  # type: ignore[misc]
        torchs, _ = milliseconds(plain, rounds, device)
        flops = 5 * 3 * 2 * batch * n**3 / ours / 1e9
        print(f"| {batch} x {n} x {n} | {ours:.3f} | {flops:.1f} | {ours / torchs:.2f} |")


def main(arguments: list[str] | None = None) -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="contestants whose name contains this")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--elements", type=int, default=100_000_000, help="of the large tensor")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--json", type=Path, help="also write the lines to this file")
    options = parser.parse_args(arguments)
    device, rounds = options.device, options.rounds
    if device == "cuda" and not torch.cuda.is_available():
        print("There is no CUDA GPU here: nothing was measured.")
        return
    name = torch.cuda.get_device_name() if device == "cuda" else "processor (a trial, no GPU)"
    large = device == "cuda"
    roof = copy_bandwidth(1 << 28 if large else options.elements, rounds, device)
    print(f"{date.today()}, {name}, torch {torch.__version__}, copy {roof:,.0f} GB/s")
    lines = []
    for count, size in ((1, options.elements), (1000, 10_000) if large else (10, 100)):
        fused: dict[str, tuple[float, float]] = {}
        print(f"\n| {count} x {size:,} | ms | GB/s | of copy | to fused | host ms | to fused |")
        print("|---|---|---|---|---|---|---|")
        for one in contestants():
            if options.only not in one.name:
                continue
            try:
                line = measured(one, count, size, roof, rounds, fused, device)
            except Exception as error:  # another's package; the rest is still to be measured
                print(
                    f"| {one.name} | failed: {type(error).__name__}: {str(error)[:80]} | | | | | |"
                )
                continue
            lines.append(line)
            print(line, flush=True)
            torch.cuda.empty_cache()
    newton_schulz(
        ((1, 4096), (1, 2048), (1, 1024), (8, 1024), (64, 256)) if large else ((2, 16),),
        rounds,
        device,
    )
    if options.json:
        facts = {"date": str(date.today()), "device": name, "copy_gb_s": roof}
        options.json.write_text(json.dumps({**facts, "lines": [asdict(line) for line in lines]}))


if __name__ == "__main__":
    main()
