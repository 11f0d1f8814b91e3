# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading and writing documents of any length without keeping the event loop waiting.

Apart from xmldoc.py, which the command imports: it needs no event loop.
"""

from __future__ import annotations

import asyncio
from typing import Any, Callable, TypeVar

T = TypeVar("T")

# Characters of a document that is not read on the event loop: it takes milliseconds. Those of most
# VMs have fewer, and a thread would cost them more.
LONG = 16 * 1024
# Devices that take about as long to read or to write as a document of that length.
MANY_DEVICES = 20


async def aside(read: Callable[..., T], text: str, *args: Any) -> T:
    """What read(text, *args) gives: read in a thread if the text is long enough to keep others
    waiting, for lxml lets them run while it parses.
    """
    return await apart(len(text) >= LONG, read, text, *args)


async def apart(long: bool, work: Callable[..., T], *args: Any) -> T:
    """What work(*args) gives: done in a thread if it takes long."""
    return await asyncio.to_thread(work, *args) if long else work(*args)
