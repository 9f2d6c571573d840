"""How fast a step is on a GPU, beside torch and others: ``python -m tests.benchmarks.gpu``.

For one large tensor and for 1000 small ones: milliseconds (median of CUDA events), GB/s, the share
of the copy bandwidth measured in the same run, and the ratio to `torch.optim` with ``fused=True``.
bitsandbytes and torchao are measured where they are installed. Without a GPU it says so and ends.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
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
    if find_spec("bitsandbytes") is not None:
        eight = _peer("bitsandbytes.optim", "AdamW8bit")
        found.append(Contestant("bitsandbytes AdamW8bit", BF16, 10.06, eight))
    if find_spec("torchao") is not None:
        eight = _peer("torchao.optim", "AdamW8bit")
        found.append(Contestant("torchao AdamW8bit", BF16, 10.06, eight))
    return found


def milliseconds(act: Callable[[], object], rounds: int) -> tuple[float, float]:
    """The median time of a call on the GPU, and on the host (which goes on in between)."""
    on_device, on_host = [], []
    for _ in range(3):
        act()
    for _ in range(rounds):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
        torch.cuda.synchronize()
        start = time.perf_counter()
        begin.record()
        act()
        end.record()
        on_host.append((time.perf_counter() - start) * 1e3)
        torch.cuda.synchronize()
        on_device.append(begin.elapsed_time(end))
    return median(on_device), median(on_host)


def copy_bandwidth(rounds: int) -> float:
    """GB/s of copying a gigabyte on the device, read and written."""
    a = torch.empty(1 << 28, device="cuda")
    b = torch.empty_like(a)
    return 2 * a.nbytes / milliseconds(lambda: b.copy_(a), rounds)[0] / 1e6


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


def measured(
    one: Contestant, count: int, size: int, roof: float, rounds: int, fused: dict[str, float]
) -> Line:
    """Step `one` on `count` tensors of `size`."""
    params = [
        torch.randn(size, device="cuda", dtype=one.dtype).requires_grad_() for _ in range(count)
    ]
    for p in params:
        p.grad = torch.randn_like(p)
    optimizer = one.make(params)
    ms, host = milliseconds(optimizer.step, rounds)
    dtype = str(one.dtype).removeprefix("torch.")
    kind = f"{'SGD' if 'SGD' in one.name else 'AdamW'} {dtype}"
    if "fused" in one.name:
        fused[kind] = ms
    rate = one.traffic * count * size / ms / 1e6
    peer = fused.get(kind)
    return Line(
        f"{count} x {size:,}", one.name, dtype, ms, host, rate, rate / roof, peer and ms / peer
    )


def newton_schulz(rounds: int) -> None:
    """Five iterations on square matrices, beside torch's own products."""
    print(f"\n{'Newton-Schulz, 5 steps, bf16':34}{'ms':>9}{'TFLOP/s':>9}{'to torch':>9}")
    for batch, n in ((1, 4096), (8, 1024), (64, 256)):
        g = torch.randn(batch, n, n, device="cuda")

        def plain(g: Tensor = g) -> Any:
            x = g.bfloat16()
            x = x / torch.linalg.matrix_norm(x, keepdim=True)
            for _ in range(5):
                gram = x @ x.mT
                x = 3.4445 * x + (-4.775 * gram + 2.0315 * (gram @ gram)) @ x
            return x

        ours, _ = milliseconds(lambda g=g: orthogonal(g), rounds)  # type: ignore[misc]
        torchs, _ = milliseconds(plain, rounds)
        flops = 5 * 3 * 2 * batch * n**3 / ours / 1e9
        print(f"{f'{batch} x {n} x {n}':34}{ours:9.3f}{flops:9.1f}{ours / torchs:9.2f}")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="contestants whose name contains this")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--elements", type=int, default=100_000_000, help="of the large tensor")
    parser.add_argument("--json", type=Path, help="also write the lines to this file")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("There is no CUDA GPU here: nothing was measured.")
        return
    roof = copy_bandwidth(options.rounds)
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, copy {roof:,.0f} GB/s")
    lines = []
    for count, size in ((1, options.elements), (1000, 10_000)):
        fused: dict[str, float] = {}
        print(
            f"\n{f'{count} x {size:,}':34}{'ms':>9}{'host ms':>9}{'GB/s':>8}{'of copy':>9}{'to fused':>9}"
        )
        for one in contestants():
            if options.only not in one.name:
                continue
            line = measured(one, count, size, roof, options.rounds, fused)
            lines.append(line)
            ratio = "-" if line.to_fused is None else f"{line.to_fused:.2f}"
            print(
                f"{f'{line.name} ({line.dtype})':34}{line.ms:9.3f}{line.host_ms:9.3f}"
                f"{line.gb_s:8.0f}{line.of_copy:9.0%}{ratio:>9}"
            )
            torch.cuda.empty_cache()
    newton_schulz(options.rounds)
    if options.json:
        facts = {"device": torch.cuda.get_device_name(), "copy_gb_s": roof}
        options.json.write_text(json.dumps({**facts, "lines": [asdict(line) for line in lines]}))


if __name__ == "__main__":
    main()
