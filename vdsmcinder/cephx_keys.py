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
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

MASK = "********"

_HEADER = struct.Struct("<HIIH")
# Bytes that a key of a type has: AES-128, and AES-256 of later releases.
_LENGTHS = {1: 16, 2: 32}
_HEADER_CHARACTERS = 16
# Base64 in its own alphabet and in that of URLs. A key begins with one of two types.
_START = re.compile(r"A[Qg](?=[A-Za-z0-9+/_-]{14})")
_REST = re.compile(r"(?:[A-Za-z0-9+/_-]|%2[BbFf])*(?:=|%3[Dd]){0,2}")
# The same text in base64 once more, as Kubernetes' secrets hold it.
_AGAIN = re.compile(r"Q(?:VF|Wd)[A-Za-z0-9+/_-]{21,}={0,2}")
_BLANKS = re.compile(r"\s+")
# Members of objects in which keys have their place.
_PLACES = ("password", "keyring")


def masked(text: str) -> str:
    """The text with each key in it replaced."""
    found = list(_spans(text))
    for start, end in reversed(found):
        text = f"{text[:start]}{MASK}{text[end:]}"
    return text


def holds_key(text: str) -> bool:
    """Whether a key stands in the text: as it is, percent-encoded, in base64 once more, or broken
    into lines."""
    if _has(text):
        return True
    if "%" in text and _has(unquote(text)):
        return True
    compact = _BLANKS.sub("", text)
    return compact != text and _has(compact)


def misplaced(value: Any, where: str = "") -> str | None:
    """Where in a value off the wire a key stands that should not be there; None if nowhere.

    where: the value's own path; empty for a whole request. Members called password and keyring are
    passed over. Names of members are looked at as well, and no path holds one that is a key.
    """
    if isinstance(value, str):
        return where if holds_key(value) else None
    if isinstance(value, Mapping):
        for name, member in value.items():
            if holds_key(name):
                return f"the name of a member of {where or 'the request'}"
            path = f"{where}.{name}" if where else name
            if name not in _PLACES and (found := misplaced(member, path)) is not None:
                return found
    elif isinstance(value, Sequence):
        for i, item in enumerate(value):
            if (found := misplaced(item, f"{where}[{i}]")) is not None:
                return found
    return None


def _has(text: str) -> bool:
    return next(_spans(text), None) is not None


def _spans(text: str) -> Iterator[tuple[int, int]]:
    """Where keys begin and end, in order."""
    end = 0
    for match in _START.finditer(text):
        start = match.start()
        if start >= end and _is_header(text[start : start + _HEADER_CHARACTERS]):
            rest = _REST.match(text, start)
            end = rest.end() if rest else start
            yield start, end
    for match in _AGAIN.finditer(text):
        inner = _decoded(match[0])
        if match.start() >= end and inner and _is_header(inner[:_HEADER_CHARACTERS]):
            end = match.end()
            yield match.span()


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
    """What base64 stands for, if that is ASCII; the end may be missing."""
    whole = text.rstrip("=").translate(_URL_ALPHABET)
    try:
        return base64.b64decode(whole[: len(whole) // 4 * 4]).decode("ascii")
    except (binascii.Error, ValueError):
        return ""


_URL_ALPHABET = str.maketrans("-_", "+/")
