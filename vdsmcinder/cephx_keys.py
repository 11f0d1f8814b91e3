# SPDX-License-Identifier: GPL-2.0-or-later
"""CEPHX keys in text that should hold none: found in whatever form they were pasted, and masked.

A key is base64 of a header and of secret bytes (Ceph, src/auth/Crypto.cc, CryptoKey::encode). The
header is its type (2 bytes), when it was made (4 bytes of seconds, 4 of nanoseconds) and its length
(2 bytes), little-endian. It alone tells a key from all else that is base64, so that it does not
matter what stands around it, or whether its end is missing.
"""

from __future__ import annotations

import base64
import binascii
import re
import struct
from collections.abc import Iterator
from typing import Any
from urllib.parse import unquote

MASK = "********"

_HEADER = struct.Struct("<HIIH")
# Bytes that a key of a type has: AES-128, and AES-256 of later releases.
_LENGTHS = {1: 16, 2: 32}
# Of base64, so that no shorter text holds a key.
_HEADER_CHARACTERS = 16
# What the header comes to in base64, in its own alphabet and in that of URLs. All that a regular
# expression can tell is told by it, for clients choose how much text there is to look at.
_ANY = "[A-Za-z0-9+/_-]"
_START = re.compile(f"A(?=((?:Q[A-D]{_ANY}{{9}}[A-O][BRhx]|g[A-D]{_ANY}{{9}}[A-O][CSiy])AA))")
_REST = re.compile(f"(?:{_ANY}|%2[BbFf])*(?:=|%3[Dd]){{0,2}}")
_AGAIN = re.compile(f"Q(?=((?:VF|Wd)[B-E]{_ANY}{{12}}[Q-T][E-HU-Xk-n0-3][JNhl]BQ{_ANY}))")
_AGAIN_REST = re.compile(f"{_ANY}*={{0,2}}")
# What one sees nothing of: a text that was copied may have them in it.
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u2060\ufeff]+")
# Members of objects in which keys have their place.
_PLACES = ("password", "keyring")


def masked(text: str) -> str:
    """The text with each key in it replaced."""
    parts, end = [], 0
    for start, stop in _spans(text):
        parts += [text[end:start], MASK]
        end = stop
    return "".join([*parts, text[end:]]) if parts else text


def holds_key(text: str) -> bool:
    """Whether a key stands in the text: as it is, percent-encoded, in base64 once more, or broken
    into lines or by what cannot be seen."""
    if len(text) < _HEADER_CHARACTERS:
        return False
    if _has(text) or ("%" in text and _has(unquote(text))):
        return True
    compact = "".join(text.split())
    if not compact.isascii():
        compact = _INVISIBLE.sub("", compact)
    return len(compact) < len(text) and _has(compact)


def misplaced(value: Any) -> str | None:
    """Where in a value off the wire a key stands that should not be there; None if nowhere.

    Members called password and keyring are passed over. Names of members are looked at as well, and
    no path holds one that is a key.
    """
    found = _found(value)
    if found is None:
        return None
    is_name = bool(found) and found[0] is _A_NAME
    path = ""
    for part in reversed(found[1:] if is_name else found):
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path else str(part)
    return f"the name of a member of {path or 'the request'}" if is_name else path


def _found(value: Any) -> list[object] | None:
    """The way to a key, from its end: names and numbers of members, before them _A_NAME if the key
    is the name of one; None without a key.

    Lists and objects may have as many members as a request has bytes, so that nothing is made here
    unless there is a key.
    """
    if isinstance(value, str):
        return [] if holds_key(value) else None
    if isinstance(value, dict):
        for name, member in value.items():
            if len(name) >= _HEADER_CHARACTERS and holds_key(name):
                return [_A_NAME]
            if name not in _PLACES and (found := _found(member)) is not None:
                return [*found, name]
    elif isinstance(value, (list, tuple)):
        for i, item in enumerate(value):
            if (found := _found(item)) is not None:
                return [*found, i]
    return None


def _has(text: str) -> bool:
    return next(_spans(text), None) is not None


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """Where keys begin and end, in order."""
    end = 0
    for match in _START.finditer(text):
        start = match.start()
        if start >= end and _is_header(f"{match[0]}{match[1]}"):
            rest = _REST.match(text, start)
            end = rest.end() if rest else start
            yield start, end
    for match in _AGAIN.finditer(text):
        start = match.start()
        if start >= end and _is_header(_decoded(f"{match[0]}{match[1]}")):
            rest = _AGAIN_REST.match(text, start)
            end = rest.end() if rest else start
            yield start, end


def _is_header(text: str) -> bool:
    try:
        head = base64.b64decode(text.translate(_URL_ALPHABET), validate=True)
    except (binascii.Error, ValueError):
        return False
    if len(head) < _HEADER.size:
        return False
    kind, _, nanoseconds, length = _HEADER.unpack(head[: _HEADER.size])
    return bool(_LENGTHS.get(kind) == length and nanoseconds < 1_000_000_000)


def _decoded(text: str) -> str:
    """The header that its base64 stands for, if that is ASCII."""
    try:
        return base64.b64decode(f"{text.translate(_URL_ALPHABET)}==").decode("ascii")
    except (binascii.Error, ValueError):
        return ""


_A_NAME = object()
_URL_ALPHABET = str.maketrans("-_", "+/")
