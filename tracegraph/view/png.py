"""A small PNG (ISO/IEC 15948) from plain pixels, for the values of arrays; no filter, one chunk."""

from __future__ import annotations

import struct
import zlib

from tracegraph.errors import PictureError

__all__ = ["png"]

_COLOURS = {1: 0, 3: 2, 4: 6}  # grey, RGB, RGB with opacity


def png(pixels: bytes, width: int, height: int, channels: int) -> bytes:
    r"""The file that shows `pixels`: row by row, a byte for each of 1, 3 or 4 channels.

    Raises `PictureError` where the number of bytes does not fit.

    >>> png(b"\x00\xff", 2, 1, 1)[:8]
    b'\x89PNG\r\n\x1a\n'
    """
    if channels not in _COLOURS or width < 1 or height < 1:
        raise PictureError(f"no picture has {width} x {height} pixels of {channels} channels")
    line = width * channels
    if len(pixels) != line * height:
        raise PictureError(
            f"{width} x {height} pixels of {channels} channels are {line * height} bytes, got "
            f"{len(pixels)}"
        )
    rows = b"".join(b"\0" + pixels[at : at + line] for at in range(0, len(pixels), line))
    head = struct.pack(">IIBBBBB", width, height, 8, _COLOURS[channels], 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(rows, 6)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
        for kind, data in parts
    )
