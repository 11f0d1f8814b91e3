# SPDX-License-Identifier: GPL-2.0-or-later
"""Results that tell of many VMs, as JSON: written in turns, one for each client at a time.

So a long one keeps nobody waiting, and a client that asks for many has one of them in memory.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Callable, TypeVar
from weakref import WeakValueDictionary

from vdsmcinder import logs
from vdsmcinder.errors import OutOfResources
from vdsmcinder.fair_scheduling import Pace, Turns
from vdsmcinder.rpc.envelope import Written
from vdsmcinder.rpc.method import Caller

T = TypeVar("T")

# The longest result, in bytes: full definitions of some thousand VMs.
MOST_BYTES = 32 * 1024 * 1024


class Listings:
    """Writes such results, each for the client whose call is under way."""

    def __init__(self) -> None:
        self._turns = Turns()
        self._of_client: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def array(self, things: Iterable[T], write: Callable[[T], bytes]) -> Written:
        """A list of what write() gives for each thing. Raises OutOfResources (1100)."""
        return Written(b"[%b]" % await self._joined(things, write))

    async def object(self, things: Iterable[T], write: Callable[[T], bytes]) -> Written:
        """An object of the members that write() gives. Raises OutOfResources (1100)."""
        return Written(b"{%b}" % await self._joined(things, write))

    async def _joined(self, things: Iterable[T], write: Callable[[T], bytes]) -> bytes:
        parts: list[bytes] = []
        size = 0
        async with self._of_client.setdefault(_client(), asyncio.Lock()):
            pace = Pace(self._turns)
            for thing in things:
                await pace.step()
                parts.append(write(thing))
                size += len(parts[-1]) + 1
                if size > MOST_BYTES:
                    raise OutOfResources(
                        f"The answer would be longer than {MOST_BYTES} bytes; ask for fewer VMs at "
                        "a time, by their ids"
                    )
            return b",".join(parts)


def _client() -> str:
    call = logs.call.get()
    return call.client.client if call and isinstance(call.client, Caller) else ""
