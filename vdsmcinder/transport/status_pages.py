# SPDX-License-Identifier: GPL-2.0-or-later
"""What the daemon tells of itself over HTTP, beside its verbs."""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, Callable, NamedTuple


class Page(NamedTuple):
    """An answer and the media type that it is of."""

    content_type: str
    body: bytes


@dataclass(frozen=True)
class Pages:
    """health: answered as JSON, with status 503 while 'ready' in it is false.

    metrics: answered as it is.
    """

    health: Callable[[], Mapping[str, Any]]
    metrics: Callable[[], Awaitable[Page]]
