# SPDX-License-Identifier: GPL-2.0-or-later
"""An engine that keeps calling, whatever happens, and remembers what it was told and when.

How long the API was silent, in seconds, and what it said.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from lab.engine import client_context
from lab.pki import Pki
from vdsmcinder.errors import RemoteError
from vdsmcinder.stomp import client

PAUSE_S = 0.05
CHANGE_PAUSE_S = 0.5
# Neither an answer nor a closed connection by then is silence, which no fault excuses.
SILENCE_S = 45.0
HEARTBEAT_MS = 10_000
MISSING = "|host|secrets_missing"
ANSWERED, CUT_OFF, REFUSED, SILENCE = "answered", "cut off", "not reached", "no answer"


@dataclass(frozen=True)
class Call:
    """One call: when it was made (monotonic clock), how long it took, and what came of it.

    outcome: one of the words above, or "code N".
    """

    at_s: float
    verb: str
    took_s: float
    outcome: str

    @property
    def served(self) -> bool:
        """Whether the daemon said something, be it an error."""
        return self.outcome == ANSWERED or self.outcome.startswith("code ")


@dataclass(frozen=True)
class Heard:
    """An event, and when it came (monotonic clock)."""

    at_s: float
    event: Mapping[str, Any]


class CallingEngine:
    """Reads all the time, changes something now and then, connects again when it is cut off.

    reads, changes: verbs and their parameters, called in turn. keys: secrets by their uuids, as
    Host.registerSecrets takes them; it sends those that an event says are missing.
    """

    def __init__(self, pki: Pki, address: tuple[str, int]) -> None:
        self.calls: list[Call] = []
        self.heard: list[Heard] = []
        self.reads: Sequence[tuple[str, dict[str, Any]]] = [("Host.ping2", {})]
        self.changes: Sequence[tuple[str, dict[str, Any]]] = []
        self.keys: Mapping[str, dict[str, str]] = {}
        self._pki = pki
        self._address = address
        self._session: client.StompSession | None = None
        self._connecting = asyncio.Lock()
        self._on = False
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> CallingEngine:
        self._on = True
        self._tasks = [
            asyncio.create_task(work) for work in (self._read(), self._change(), self._listen())
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        # Before Python 3.12, wait_for swallows a cancellation that comes with what it waits for.
        self._on = False
        for task in self._tasks:
            task.cancel()
        failures = await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            self._session.abort()
            self._session = None
        for failure in failures:
            if not isinstance(failure, asyncio.CancelledError) and failure is not None:
                raise failure

    # What it remembers

    def longest_silence_s(self, since_s: float, until_s: float) -> float:
        """The longest time within which no call was served."""
        ends = sorted(c.at_s + c.took_s for c in self.calls if c.served)
        times = [since_s, *(t for t in ends if since_s < t < until_s), until_s]
        return max(after - before for before, after in zip(times, times[1:]))

    def outcomes(self, since_s: float) -> Counter[str]:
        """How often what came of a call that ended after that time."""
        return Counter(c.outcome for c in self.calls if c.at_s + c.took_s > since_s)

    def events(self, since_s: float) -> Iterable[Heard]:
        """The events that came after that time."""
        return [heard for heard in self.heard if heard.at_s > since_s]

    # What it does

    async def _read(self) -> None:
        reads = itertools.cycle(self.reads)
        while self._on:
            await self.call(*next(reads))
            await asyncio.sleep(PAUSE_S)

    async def _change(self) -> None:
        changes = itertools.cycle(self.changes)
        while self._on:
            await self.call(*next(changes))
            await asyncio.sleep(CHANGE_PAUSE_S)

    async def _listen(self) -> None:
        while self._on:
            session = None
            try:
                session = await self._connected()
                event = await session.wait_for_event(lambda event: True, 3600)
            except OSError:
                self._forget(session)
                await asyncio.sleep(PAUSE_S)
            else:
                self.heard.append(Heard(time.monotonic(), event))
                if event["method"].startswith(MISSING):
                    secrets = [self.keys[uuid] for uuid in event["params"]["uuids"]]
                    await self.call("Host.registerSecrets", {"secrets": secrets})

    async def call(self, verb: str, params: dict[str, Any]) -> str:
        """Call a verb now; what comes of it, in one of the words above or as "code N"."""
        began_s = time.monotonic()
        outcome = await self._outcome(verb, params)
        self.calls.append(Call(began_s, verb, time.monotonic() - began_s, outcome))
        return outcome

    async def _outcome(self, verb: str, params: dict[str, Any]) -> str:
        try:
            session = await self._connected()
        except OSError:
            return REFUSED
        try:
            await session.call(verb, params, timeout_s=SILENCE_S)
        except RemoteError as e:
            return f"code {e.code}"
        except client.SessionLost:
            self._forget(session)
            return CUT_OFF
        except asyncio.TimeoutError:
            return SILENCE
        return ANSWERED

    async def _connected(self) -> client.StompSession:
        """The session, or a new one. Raises OSError, of which SessionLost is one."""
        async with self._connecting:
            if self._session is None:
                # Anew each time: that of a session may have been made before a certificate changed.
                context = client_context(self._pki, self._pki.engine)
                try:
                    session = await client.connect(*self._address, context, HEARTBEAT_MS)
                except asyncio.TimeoutError as e:
                    raise ConnectionError("nobody answers") from e
                await session.subscribe_events()
                self._session = session
            return self._session

    def _forget(self, session: client.StompSession | None) -> None:
        if session is not None and self._session is session:
            self._session = None
