# SPDX-License-Identifier: GPL-2.0-or-later
"""What a UUID looks like: the one check of it, for requests, documents and configuration alike."""

from __future__ import annotations

import re
from typing import Any

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.ASCII | re.IGNORECASE)


def is_uuid(value: Any) -> bool:
    """Whether the value is text of the form 8-4-4-4-12 in hexadecimal digits, in any case."""
    return isinstance(value, str) and _UUID.fullmatch(value) is not None


def parse(value: Any) -> str:
    """The UUID in lower case, as libvirt writes it. Raises ValueError for what is none."""
    if not is_uuid(value):
        raise ValueError
    return str(value).lower()


def same(one: str, other: str) -> bool:
    """Whether two ids are the same: UUIDs in any case, whatever else as it is written."""
    return one == other or (is_uuid(one) and one.lower() == other.lower())
