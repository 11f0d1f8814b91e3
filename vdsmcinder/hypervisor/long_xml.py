# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading XML documents of any length without keeping the event loop waiting.

Apart from xmldoc.py, which the command imports: it needs no event loop.
"""

from __future__ import annotations

import asyncio
from typing import Any, Callable, TypeVar

T = TypeVar("T")

# Characters of a document that is not read on the event loop: it takes milliseconds. Those of most
# VMs have fewer, and a thread would cost them more.
LONG = 16 * 1024


async def aside(read: Callable[..., T], text: str, *args: Any) -> T:
    """What read(text, *args) gives: read in a thread if the text is long enough to keep others
    waiting, for lxml lets them run while it parses.
    """
    if len(text) < LONG:
        return read(text, *args)
    return await asyncio.to_thread(read, text, *args)
