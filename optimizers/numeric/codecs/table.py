"""Every codec by the name that `state=` takes."""

from __future__ import annotations

from torch import Tensor

from optimizers.numeric.codecs.codec import Codec
from optimizers.numeric.codecs.companding import COMPANDING
from optimizers.numeric.codecs.dynamic import DYNAMIC
from optimizers.numeric.codecs.plain import BF16, BF16_STOCHASTIC, FP32

__all__ = ["CODECS", "SMALL", "codec_for", "codec_named"]

CODECS: dict[str, Codec] = {c.name: c for c in (FP32, BF16, BF16_STOCHASTIC, COMPANDING, DYNAMIC)}

SMALL = 4096
"""Below this many elements an 8-bit codec is not worth its error: the state stays float32."""


def codec_named(name: str) -> Codec:
    """The codec of that name, or a ValueError that lists the names."""
    if name not in CODECS:
        raise ValueError(f"state={name!r} is not a way to store state; use one of {sorted(CODECS)}")
    return CODECS[name]


def codec_for(name: str, p: Tensor) -> Codec:
    """The codec for one parameter: complex and small tensors keep float32 under 8-bit names.

    >>> import torch
    >>> codec_for("8bit", torch.zeros(10)).name
    'fp32'
    """
    codec = codec_named(name)
    if p.is_complex() or (name.startswith("8bit") and p.numel() < SMALL):
        return FP32
    return codec
