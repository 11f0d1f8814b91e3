# SPDX-License-Identifier: GPL-2.0-or-later
"""Events as server-sent events, for whoever asks over HTTP.

The format is that of the HTML standard,
https://html.spec.whatwg.org/multipage/server-sent-events.html
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Callable

from vdsmcinder.system.counters import Deliveries
from vdsmcinder.tasks import within
from vdsmcinder.transport.http_connection import HttpConnection

if TYPE_CHECKING:
    from vdsmcinder.rpc.events import Events

log = logging.getLogger(__name__)

# A comment goes out after this long without an event, so that a dead client is found out.
KEEPALIVE_S = 15.0
KEEPALIVE = b":\n\n"
SUBSCRIBED = b":subscribed\n\n"


class EventStreams:
    """The streams that are open. An event is encoded once for all of them.

    max_buffer_bytes: unread events after which a client that does not read is disconnected.
    deliveries: what the clients were sent.
    """

    def __init__(self, events: Events, max_buffer_bytes: int) -> None:
        self._events = events
        self._max_buffer_bytes = max_buffer_bytes
        self.deliveries = Deliveries()
        self._streams: set[_Stream] = set()
        self._number = 0
        self._unsubscribe: Callable[[], None] = lambda: None

    def start(self) -> None:
        """Begin to pass events on."""
        self._unsubscribe = self._events.subscribe(self._publish)

    def close(self) -> None:
        """End every stream."""
        self._unsubscribe()
        for stream in self._streams:
            stream.end()

    async def serve(self, client: HttpConnection) -> None:
        """Answer a client with the events from now on, until it or we have enough."""
        stream = _Stream(client, self._max_buffer_bytes, self.deliveries)
        self._streams.add(stream)
        try:
            client.begin({"Content-Type": "text/event-stream", "Cache-Control": "no-store"})
            await client.write(SUBSCRIBED)
            for body in self._events.greeting():
                stream.put(self._chunk(body))
            while chunk := await stream.next():
                await client.write(chunk)
            client.end()
        except asyncio.CancelledError:
            log.info("the event stream to %s is gone", client.caller.address)
            raise
        finally:
            self._streams.discard(stream)

    def _publish(self, body: bytes) -> None:
        event = self._chunk(body)
        for stream in self._streams:
            stream.put(event)

    def _chunk(self, body: bytes) -> bytes:
        self._number += 1
        return b"id:%d\ndata:%b\n\n" % (self._number, body)


class _Stream:
    """Events on their way to one client."""

    def __init__(self, client: HttpConnection, max_bytes: int, deliveries: Deliveries) -> None:
        self.ended = False
        self._client = client
        self._max_bytes = max_bytes
        self._deliveries = deliveries
        self._waiting: deque[bytes] = deque()
        self._size = 0
        self._wake = asyncio.Event()

    def put(self, event: bytes) -> None:
        """Queue an event, or drop a client that has left too many unread."""
        if self.ended:
            return
        if self._size + len(event) > self._max_bytes:
            self._drop()
            return
        self._deliveries.events_sent += 1
        self._waiting.append(event)
        self._size += len(event)
        self._wake.set()
        self._client.queued(self._size)

    async def next(self) -> bytes:
        """What to write next; no bytes at the stream's end."""
        if not self._waiting and not self.ended:
            self._wake.clear()
            try:
                await within(self._wake.wait(), KEEPALIVE_S)
            except asyncio.TimeoutError:
                return KEEPALIVE
        chunk = b"".join(self._waiting)
        self._waiting.clear()
        self._size = 0
        self._client.queued(0)
        return chunk

    def end(self) -> None:
        """Let the stream end once what is queued is written."""
        self.ended = True
        self._wake.set()

    def _drop(self) -> None:
        log.warning(
            "the event stream to %s is dropped: it left %d bytes unread, as many as "
            "listen.max_buffer_bytes (%d) allows",
            self._client.caller.address,
            self._size,
            self._max_bytes,
        )
        self._deliveries.clients_dropped += 1
        self._deliveries.events_dropped += len(self._waiting) + 1
        self.end()
        self._waiting.clear()
        self._client.abort()
