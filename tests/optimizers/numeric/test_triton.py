"""The Triton kernel: right in the interpreter, and well compiled for a GPU that is not there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytest.importorskip("triton")

INTERPRETED = """
    import numpy as np, torch
    from optimizers.numeric.codecs.plain import FP32
    from optimizers.numeric.executors.batch import Batch
    from optimizers.numeric.executors.triton import Triton
    from optimizers.numeric.rules.rule import define
    from tests.optimizers.numeric.family import FAMILY

    rng = np.random.default_rng(0)
    for row in FAMILY:
        if not row.pure:
            continue
        starts = [rng.normal(size=n).astype(np.float32) for n in (5, 1024, 1500)]
        params = [torch.tensor(x) for x in starts]
        optimizer = row([torch.zeros(1)], weight_decay=0.1)
        hyper = dict(optimizer.defaults, backend="triton")
        rule = optimizer.rule(hyper)
        states = [[[torch.zeros_like(p) for p in params]] for _ in rule.states]
        gs = []
        for t in range(1, 7):
            grads = [torch.tensor(rng.normal(size=p.shape).astype(np.float32)) for p in params]
            gs.append(grads)
            batch = Batch(rule, rule.scalars(hyper, t), FP32, params, grads, states)
            assert Triton().takes(batch)
            Triton().run(batch)
        for i, (p, x) in enumerate(zip(params, starts)):
            gold, _ = define(rule, x.astype(np.float64), [g[i].double().numpy() for g in gs], hyper)
            off = np.abs(p.double().numpy() - gold) > 1e-5 * (1 + np.abs(gold))
            assert off.mean() <= (0.01 if row.name == "Lion" else 0), (row.name, off.mean())
    print("agreed")
"""

COMPILED = """
    import subprocess, torch, triton
    from pathlib import Path
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource
    import triton.language as tl
    from optimizers.numeric.executors.triton import BLOCK, device_function, multi_tensor
    from optimizers.numeric.rules.table import RULES
    from tests.optimizers.numeric.family import named

    rule = RULES[{name!r}]
    pointers = dict(table="*i64", numel="*i64", tensor_of="*i32", chunk_of="*i32", hyper="*fp32")
    constants = dict(
        BODY=device_function(rule), NS=len(rule.states), NH={scalars},
        P=tl.float32, S=tl.float32, BLOCK=BLOCK,
    )
    names = multi_tensor.arg_names
    signature = {{n: pointers.get(n, "i32" if n == "tensors" else "constexpr") for n in names}}
    made = triton.compile(
        ASTSource(multi_tensor, signature, {{(names.index(k),): v for k, v in constants.items()}}),
        target=GPUTarget("cuda", 90, 32),
    )
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    binary = Path("{binary}")
    binary.write_bytes(made.asm["cubin"])
    for what in ("-res-usage", "-sass"):
        print(subprocess.run([tools, what, binary], capture_output=True, text=True).stdout)
"""


def python(text: str, tmp_path: Path, **environment: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(text)],
        capture_output=True,
        text=True,
        env={**os.environ, "TRITON_CACHE_DIR": str(tmp_path), **environment},
        timeout=110,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_every_rule_agrees_with_the_definition_in_the_interpreter(tmp_path: Path) -> None:
    assert python(INTERPRETED, tmp_path, TRITON_INTERPRET="1").strip() == "agreed"


def test_compiled_for_a_gpu_it_spills_nothing_and_moves_128_bits(tmp_path: Path) -> None:
    listing = python(
        COMPILED.format(name="adamw", scalars=6, binary=tmp_path / "kernel.cubin"), tmp_path
    )
    assert "STACK:0" in listing
    assert not re.findall(r"\b(?:LDL|STL)\b", listing)  # what a spill looks like
    assert len(re.findall(r"LDG\.E\.128", listing)) >= 4  # p, g, m, v
    assert len(re.findall(r"STG\.E\.128", listing)) >= 3  # p, m, v
