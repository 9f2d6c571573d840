"""Compile the kernels for a GPU of compute capability 9.0 and list the machine code: no GPU needed.

``python -m tests.optimizers.numeric.triton_compiled`` prints registers, stack and memory accesses
of each kernel, as JSON, a line each.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from optimizers.numeric.codecs.table import codec_named
from optimizers.numeric.executors.newton_schulz import product, tiles
from optimizers.numeric.executors.stored import CODECS, ROUNDINGS
from optimizers.numeric.executors.tables import cut
from optimizers.numeric.executors.triton import GROUPS, device_function, multi_tensor
from optimizers.numeric.rules.adam import ADAMW

KINDS = [
    (tl.float32, "fp32", tl.float32, "nearest", tl.float32),
    (tl.float32, "8bit", tl.uint8, "nearest", tl.float32),
    (tl.bfloat16, "bf16", tl.bfloat16, "nearest", tl.bfloat16),
    (tl.bfloat16, "bf16-stochastic", tl.bfloat16, "nearest", tl.bfloat16),
    (tl.bfloat16, "8bit-dynamic", tl.uint8, "nearest", tl.bfloat16),
    (tl.bfloat16, "fp32", tl.float32, "stochastic", tl.bfloat16),
    (tl.bfloat16, "fp32", tl.float32, "24bit", tl.int8),
    (tl.bfloat16, "fp32", tl.float32, "32bit", tl.int16),
    (tl.bfloat16, "8bit", tl.uint8, "24bit", tl.int8),
]
"""Parameters, how state is stored and as what, how parameters are rounded and the rest's type."""


def compiled(kernel: Any, kinds: dict[str, str], constants: dict[str, Any], **options: Any) -> Any:
    """What the machine code of `kernel` uses; pointers and sizes of matrices are multiples of 16."""
    names = kernel.arg_names
    signature = {n: "constexpr" if n in constants else kinds.get(n, "i32") for n in names}
    loose = {
        "tensors",
        "pitch",
        "shift",
        "place",
        *(n for n, kind in kinds.items() if kind == "fp32"),
    } | constants.keys()
    aligned = {(names.index(n),): [["tt.divisibility", 16]] for n in names if n not in loose}
    made = triton.compile(
        ASTSource(kernel, signature, {(names.index(k),): v for k, v in constants.items()}, aligned),
        target=GPUTarget("cuda", 90, 32),
        options=options,
    )
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(made.asm["cubin"])
        listing = "".join(
            subprocess.run(
                [tool, what, file.name], capture_output=True, text=True, check=True
            ).stdout
            for what in ("-res-usage", "-sass")
        )
    (registers, stack) = re.findall(r"REG:(\d+).*?STACK:(\d+)", listing)[0]
    return {
        "registers": int(registers),
        "stack": int(stack),
        "spills": len(re.findall(r"\b(?:LDL|STL)\b", listing)),
        "accesses": Counter(re.findall(r"\b((?:LDG|STG)\.E(?:\.\w+)*)", listing)),
        "matrix": sorted(set(re.findall(r"\b[HQ]G?MMA\.[.\w]+", listing))),
    }


def rules() -> dict[str, Any]:
    """AdamW over parameters of both dtypes and every way to store state.

    One that takes tensors anywhere, not only at multiples of 16 bytes, reads device-counted numbers.
    """
    pointers = {"table": "*i64", "numel": "*i64", "tensor_of": "*i32", "piece_of": "*i32"}
    pointers |= {"rows": "*fp64", "books": "*fp32"}
    found = {}
    rows = [(*row, True) for row in KINDS] + [(*KINDS[-1], False)]
    for p, codec, stored, rounding, rest, aligned in rows:
        how = cut(codec_named(codec))
        constants = {
            "BODY": device_function(ADAMW),
            "SIGNS": tuple(kind.signed for kind in ADAMW.states),
            "CODEC": CODECS[codec],
            "ROUND": ROUNDINGS[rounding],
            "NH": 6,
            "P": p,
            "S": stored,
            "R": rest,
            "GROUP": GROUPS.get(codec, 1),
            "BLOCK": how.block,
            "CHUNKS": how.chunks,
            "COUNTED": not aligned,
            "ALIGNED": aligned,
        }
        name = f"{p} {codec}" if rounding == "nearest" else f"{p} {codec} {rounding}"
        found[name if aligned else f"{name} anywhere"] = compiled(
            multi_tensor,
            pointers,
            constants,
            num_warps=how.warps,
            maxnreg=how.registers if aligned else None,
        )
    return found


def newton_schulz() -> dict[str, Any]:
    """The three products of an iteration, on large blocks of bfloat16."""
    found = {}
    of = dict.fromkeys(("out", "left", "right", "add"), "*bf16")
    scalars = {"alpha": "fp32", "beta": "fp32"}
    for what, add, symmetric, unit in (
        ("gram", False, True, "right_row"),
        ("polynomial", True, True, "right_column"),
        ("step", True, False, "right_column"),
    ):
        tile = tiles(4096, torch.bfloat16)
        options = {key: tile.pop(key) for key in ("num_warps", "num_stages")}
        constants = {"ADD": add, "SYMMETRIC": symmetric, "T": tl.bfloat16, **tile}
        constants |= {"left_column": 1, unit: 1}
        found[f"newton-schulz {what}"] = compiled(product, of | scalars, constants, **options)
    return found


if __name__ == "__main__":
    for name, facts in (rules() | newton_schulz()).items():
        print(json.dumps({"kernel": name, **facts}))  # noqa: T201
