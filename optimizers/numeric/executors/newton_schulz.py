"""Newton-Schulz iterations on a GPU, for a batch of matrices, in three launches each.

One kernel computes ``alpha L R + beta D``: the Gram matrix, the polynomial of it, and the step, with
the scaling and the sum done while the product is still in registers. The first two results are
symmetric: only blocks on and above the diagonal are computed, and each is written twice.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from optimizers.numeric.executors.device import on

__all__ = ["iterate", "product", "tiles"]

TYPES = {torch.float32: tl.float32, torch.bfloat16: tl.bfloat16}


@triton.jit
def product(
    out,
    left,
    right,
    add,
    rows,
    columns,
    inner,
    left_batch,
    left_row,
    left_column,
    right_batch,
    right_row,
    right_column,
    alpha,
    beta,
    ADD: tl.constexpr,
    SYMMETRIC: tl.constexpr,
    BLOCK: tl.constexpr,
    INNER: tl.constexpr,
    T: tl.constexpr,
):
    """One block of ``out = alpha left right + beta add``; `out` and `add` lie row by row."""
    across = tl.cdiv(columns, BLOCK)
    down, over = tl.program_id(0) // across, tl.program_id(0) % across
    if SYMMETRIC and down > over:
        return
    batch = tl.program_id(1).to(tl.int64)
    r = down * BLOCK + tl.arange(0, BLOCK)
    c = over * BLOCK + tl.arange(0, BLOCK)
    k = tl.arange(0, INNER)
    l_at = left + batch * left_batch + r[:, None] * left_row + k[None, :] * left_column
    r_at = right + batch * right_batch + k[:, None] * right_row + c[None, :] * right_column
    total = tl.zeros((BLOCK, BLOCK), dtype=tl.float32)
    for start in range(0, inner, INNER):
        rest = inner - start
        x = tl.load(l_at, mask=(r[:, None] < rows) & (k[None, :] < rest), other=0.0)
        y = tl.load(r_at, mask=(k[:, None] < rest) & (c[None, :] < columns), other=0.0)
        total = tl.dot(x, y, total, input_precision="ieee")
        l_at += INNER * left_column
        r_at += INNER * right_row
    total *= alpha
    place = batch * rows * columns
    at = place + r[:, None] * columns + c[None, :]
    inside = (r[:, None] < rows) & (c[None, :] < columns)
    if ADD:
        total += beta * tl.load(add + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at, total.to(T), mask=inside)
    if SYMMETRIC and down < over:
        mirrored = place + c[None, :] * columns + r[:, None]
        tl.store(out + mirrored, total.to(T), mask=inside)


def tiles(short: int, dtype: torch.dtype) -> dict[str, int]:
    """How a product is cut, of matrices whose shorter side is `short`: what was fastest on an H100."""
    if short < 128:
        return {"BLOCK": 64, "INNER": 64, "num_warps": 4, "num_stages": 3}
    if dtype == torch.float32:
        return {"BLOCK": 128, "INNER": 32, "num_warps": 8, "num_stages": 3}
    return {"BLOCK": 128, "INNER": 64, "num_warps": 4, "num_stages": 3}


def _multiplied(
    left: Tensor,
    right: Tensor,
    *,
    alpha: float = 1.0,
    beta: float = 0.0,
    add: Tensor | None = None,
    symmetric: bool = False,
) -> Tensor:
    batch, rows, inner = left.shape
    columns = right.shape[2]
    out = torch.empty(batch, rows, columns, dtype=left.dtype, device=left.device)
    tile = tiles(min(rows, columns), left.dtype)
    blocks = -(-rows // tile["BLOCK"]) * -(-columns // tile["BLOCK"])
    with on(left.device):
        product[(blocks, batch)](
            out,
            left,
            right,
            out if add is None else add,
            rows,
            columns,
            inner,
            *left.stride(),
            *right.stride(),
            alpha,
            beta,
            ADD=add is not None,
            SYMMETRIC=symmetric,
            T=TYPES[left.dtype],
            **tile,
        )
    return out


def iterate(x: Tensor, steps: int, coefficients: tuple[float, float, float]) -> Tensor:
    """`steps` times ``x = a x + (b A + c A A) x`` with ``A = x x^T``.

    `x` is a contiguous batch of matrices, not taller than wide, float32 or bfloat16; sums are
    float32.
    """
    a, b, c = coefficients
    for _ in range(steps):
        gram = _multiplied(x, x.mT, symmetric=True)
        polynomial = _multiplied(gram, gram, alpha=c, beta=b, add=gram, symmetric=True)
        x = _multiplied(polynomial, x, beta=a, add=x)
    return x
