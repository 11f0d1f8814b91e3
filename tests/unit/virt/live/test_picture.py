# SPDX-License-Identifier: GPL-2.0-or-later
"""PPM to PNG: the pixels come through, and what is no PPM is refused."""

from __future__ import annotations

import struct
import zlib

import pytest

from vdsmcinder.virt.live.picture import PNG_SIGNATURE, png

RED, GREEN, BLUE, WHITE = b"\xff\0\0", b"\0\xff\0", b"\0\0\xff", b"\xff\xff\xff"


def chunks(data):
    offset = len(PNG_SIGNATURE)
    while offset < len(data):
        (length,) = struct.unpack_from(">I", data, offset)
        body = data[offset + 4 : offset + 8 + length]
        assert struct.unpack_from(">I", data, offset + 8 + length) == (zlib.crc32(body),)
        yield body[:4], body[4:]
        offset += 12 + length


@pytest.mark.parametrize("head", [b"P6\n3 2\n255\n", b"P6 3 2 255 ", b"P6\n# drawn\n3 2\n255\n"])
def test_pixels_come_through(head):
    rows = (RED + GREEN + BLUE, WHITE + RED + WHITE)
    picture = png(head + b"".join(rows))
    assert picture.startswith(PNG_SIGNATURE)
    parts = dict(chunks(picture))
    assert list(parts) == [b"IHDR", b"IDAT", b"IEND"]
    assert parts[b"IHDR"] == struct.pack(">IIBBBBB", 3, 2, 8, 2, 0, 0, 0)
    assert zlib.decompress(parts[b"IDAT"]) == b"\0" + rows[0] + b"\0" + rows[1]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not a binary PPM"),
        (b"P3\n1 1\n255\n0 0 0", "not a binary PPM"),
        (b"P6\n1 1\n65535\n123456", "not a binary PPM"),
        (b"P6\n2 2\n255\n12345", "2 x 2 that ends after 5 bytes"),
    ],
)
def test_what_is_no_picture(data, words):
    with pytest.raises(ValueError, match=words):
        png(data)
