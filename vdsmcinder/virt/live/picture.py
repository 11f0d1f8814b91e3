# SPDX-License-Identifier: GPL-2.0-or-later
"""Turning the PPM that QEMU draws into the PNG that everything shows, a fifth of its size or less.

It is pure. Formats: https://netpbm.sourceforge.net/doc/ppm.html and the PNG specification,
https://www.w3.org/TR/png/.
"""

from __future__ import annotations

import re
import struct
import zlib

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"

_PPM_HEAD = re.compile(rb"P6\s+(?:#[^\n]*\n\s*)*(\d+)\s+(\d+)\s+(\d+)\s")
_RGB, _BITS = 2, 8


def png(ppm: bytes) -> bytes:
    """A binary PPM of 8 bits a colour as PNG. Raises ValueError for anything else."""
    head = _PPM_HEAD.match(ppm)
    if head is None or int(head[3]) != 255:
        raise ValueError("not a binary PPM of 8 bits a colour")
    width, height = int(head[1]), int(head[2])
    row = 3 * width
    pixels = memoryview(ppm)[head.end() :]
    if len(pixels) < row * height:
        raise ValueError(f"a PPM of {width} x {height} that ends after {len(pixels)} bytes")
    # Each row begins with the number of its filter: 0, none.
    rows = b"".join(b"\0" + pixels[y * row : (y + 1) * row] for y in range(height))
    shape = struct.pack(">IIBBBBB", width, height, _BITS, _RGB, 0, 0, 0)
    chunks = ((b"IHDR", shape), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    return PNG_SIGNATURE + b"".join(_chunk(name, data) for name, data in chunks)


def _chunk(name: bytes, data: bytes) -> bytes:
    checksum = zlib.crc32(name + data)
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", checksum)
