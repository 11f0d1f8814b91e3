# SPDX-License-Identifier: GPL-2.0-or-later
"""A session with a daemon over STOMP, as an engine keeps it: calls in flight, events, heart-beats.

Errors of the other side are RemoteError; a session that ends raises SessionLost in whatever waits.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import ssl
from collections.abc import Mapping
from typing import Any, Callable

from vdsmcinder.errors import RemoteError
from vdsmcinder.stomp.frames import HEARTBEAT, Decoder, Frame, Limits, ProtocolError, encode
from vdsmcinder.stomp.heartbeat import Heart
from vdsmcinder.stomp.session import GATHERED
from vdsmcinder.tasks import within
from vdsmcinder.tls_errors import reason

REQUESTS = "jms.topic.vdsm_requests"
RESPONSES = "jms.topic.vdsm_responses"
EVENTS = "jms.queue.events"
FLOW_ID = "ovirtCorrelationId"

CONNECT_TIMEOUT_S = 10.0
CALL_TIMEOUT_S = 60.0
# Replies may be larger than requests: the XML of all VMs is one.
LIMITS = Limits(frame=256 * 1024 * 1024)

Event = Mapping[str, Any]


class SessionLost(ConnectionError):
    """The session is over; the message is the ERROR frame's, or says how the connection ended.

    Its cause is the connection's error, if it had one: an ssl.SSLError where TLS was refused.
    """


class NoSuchEvent(Exception):
    """No event that was waited for came in time; the message lists those that did come."""


async def connect(
    host: str, port: int, ssl_context: ssl.SSLContext | None = None, heartbeat_ms: int = 5000
) -> StompSession:
    """Connect, agree on heart-beats both ways, and subscribe to replies.

    Raises OSError when the host cannot be reached, SessionLost when it refuses us.
    """
    loop = asyncio.get_running_loop()
    _, session = await loop.create_connection(StompSession, host, port, ssl=ssl_context)
    try:
        await within(session.open(host, heartbeat_ms), CONNECT_TIMEOUT_S)
    except BaseException:
        session.abort()
        raise
    return session


class StompSession(asyncio.Protocol):
    """Made by connect(). Any number of calls may be in flight."""

    def __init__(self) -> None:
        self.strays: list[Any] = []  # replies that belong to no call, such as those with id null
        self._decoder = Decoder(LIMITS)
        self._heart = Heart(self._send_heartbeat, self._on_silence)
        self._ids = itertools.count(1)
        self._connected: asyncio.Future[Frame] = self._future()
        self._lost: asyncio.Future[None] = self._future()
        self._failure: SessionLost | None = None
        self._calls: dict[str, asyncio.Future[Any]] = {}
        self._receipts: dict[str, asyncio.Future[Any]] = {}
        self._subscriptions: dict[str, str] = {}  # id -> destination
        self._events: list[Event] = []
        self._event_came = asyncio.Event()

    @property
    def peer_address(self) -> str:
        """The IP address of the daemon."""
        return str(self._transport.get_extra_info("peername")[0])

    # --- for the engine that is played ---------------------------------------------------------

    async def open(self, host: str, heartbeat_ms: int) -> None:
        """Exchange CONNECT and CONNECTED, and subscribe to replies. Called by connect()."""
        offer = f"{heartbeat_ms},{heartbeat_ms}"
        about = {"accept-version": "1.2", "host": host, "heart-beat": offer, GATHERED: "true"}
        self.send(Frame("CONNECT", about))
        answer = await self._connected
        beats = answer.headers.get("heart-beat", "0,0")
        try:
            theirs, ours = (int(n) for n in beats.split(","))
        except ValueError:
            raise SessionLost(f"the daemon broke the protocol: heart-beat is {beats!r}") from None
        # "Heart-beating": the slower of what one side offers and the other wants, if both do.
        self._heart.start(
            max(heartbeat_ms, ours) if ours and heartbeat_ms else 0,
            max(heartbeat_ms, theirs) if theirs and heartbeat_ms else 0,
        )
        await self.subscribe(RESPONSES)

    async def call(
        self,
        verb: str,
        params: Mapping[str, Any] | None = None,
        flow_id: str | None = None,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> Any:
        """The result of a verb. Raises RemoteError, SessionLost, asyncio.TimeoutError."""
        request_id = str(next(self._ids))
        request = {"jsonrpc": "2.0", "method": verb, "params": params or {}, "id": request_id}
        reply = self._calls[request_id] = self._future()
        try:
            self.send_body(json.dumps(request).encode(), flow_id)
            return await within(reply, timeout_s)
        finally:
            del self._calls[request_id]

    def notify(self, verb: str, params: Mapping[str, Any] | None = None) -> None:
        """Call a verb without asking for an answer."""
        request = {"jsonrpc": "2.0", "method": verb, "params": params or {}}
        self.send_body(json.dumps(request).encode())

    def send_body(self, body: bytes, flow_id: str | None = None) -> None:
        """Send any body as a request, well-formed or not."""
        headers = {
            "destination": REQUESTS,
            "reply-to": RESPONSES,
            "content-type": "application/json",
        }
        if flow_id is not None:
            headers[FLOW_ID] = flow_id
        self.send(Frame("SEND", headers, body))

    def send(self, frame: Frame) -> None:
        """Send any frame. Raises SessionLost when the session is over."""
        if self._failure is not None:
            raise self._failure
        self._transport.write(encode(frame))

    async def subscribe(self, destination: str) -> str:
        """Subscribe, wait until the daemon has confirmed it, and return the subscription's id."""
        name = str(next(self._ids))
        self._subscriptions[name] = destination
        await self._confirmed("SUBSCRIBE", {"id": name, "destination": destination, "ack": "auto"})
        return name

    async def unsubscribe(self, name: str) -> None:
        """End a subscription by its id."""
        await self._confirmed("UNSUBSCRIBE", {"id": name})
        del self._subscriptions[name]

    async def subscribe_events(self) -> None:
        """Have events sent from now on, for wait_for_event()."""
        await self.subscribe(EVENTS)

    async def wait_for_event(
        self, predicate: Callable[[Event], bool], timeout_s: float = CALL_TIMEOUT_S
    ) -> Event:
        """The oldest event for which predicate is true, received already or yet to come.

        Each event is returned once; those for which predicate is false are kept for others.
        Raises NoSuchEvent, SessionLost.
        """
        try:
            return await within(self._find_event(predicate), timeout_s)
        except asyncio.TimeoutError:
            came = ", ".join(str(event.get("method")) for event in self._events) or "none"
            raise NoSuchEvent(
                f"no such event within {timeout_s:g} s; events received: {came}"
            ) from None

    async def next_event(self) -> Event:
        """The oldest event that nobody took, once there is one. Raises SessionLost."""
        return await self._find_event(lambda event: True)

    async def close(self) -> None:
        """Say goodbye, wait until the daemon has seen all that was sent, and hang up."""
        if self._failure is None:
            await self._confirmed("DISCONNECT", {})
            self._fail("closed by us")
        self._transport.close()
        await self._lost

    def abort(self) -> None:
        """Drop the connection without a word, as a host that dies does."""
        self._transport.abort()

    # --- called by the transport ---------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The connection stands."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed, by whichever side."""
        self._heart.stop()
        why = f"the connection was lost: {reason(exc)}" if exc else "the daemon hung up"
        self._fail(why, exc)
        self._lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Bytes off the wire."""
        self._heart.last_heard = asyncio.get_running_loop().time()
        self._decoder.receive(data)
        try:
            while (frame := self._decoder.next_frame()) is not None:
                self._take(frame)
        except (ProtocolError, ValueError, LookupError, TypeError, AttributeError) as e:
            self._fail(f"the daemon broke the protocol: {e}")
            self._transport.abort()

    # --- inside --------------------------------------------------------------------------------

    @staticmethod
    def _future() -> asyncio.Future[Any]:
        return asyncio.get_running_loop().create_future()

    def _take(self, frame: Frame) -> None:
        if frame.command == "MESSAGE":
            self._take_message(frame)
        elif frame.command == "RECEIPT":
            receipt = self._receipts.get(frame.headers["receipt-id"])
            if receipt is not None and not receipt.done():
                receipt.set_result(None)
        elif frame.command == "CONNECTED":
            self._connected.set_result(frame)
        else:
            self._fail(frame.body.decode() or frame.headers.get("message", frame.command))

    def _take_message(self, frame: Frame) -> None:
        content = json.loads(frame.body)
        if self._subscriptions.get(frame.headers["subscription"]) != RESPONSES:
            self._events.append(content)
            self._event_came.set()
            return
        request_id = content.get("id") if isinstance(content, dict) else None
        call = self._calls.get(request_id) if isinstance(request_id, str) else None
        if call is None or call.done():
            self.strays.append(content)
        elif "error" in content:
            error = content["error"]
            call.set_exception(
                RemoteError(error["code"], error["message"], error.get("data") or {})
            )
        else:
            call.set_result(content["result"])

    async def _find_event(self, predicate: Callable[[Event], bool]) -> Event:
        while True:
            for n, event in enumerate(self._events):
                if predicate(event):
                    return self._events.pop(n)
            if self._failure is not None:
                raise self._failure
            self._event_came.clear()
            await self._event_came.wait()

    async def _confirmed(self, command: str, headers: Mapping[str, str]) -> None:
        name = f"{command}-{next(self._ids)}"
        confirmed = self._receipts[name] = self._future()
        try:
            self.send(Frame(command, {**headers, "receipt": name}))
            await confirmed
        finally:
            del self._receipts[name]

    def _fail(self, why: str, cause: Exception | None = None) -> None:
        """End the session for all who wait for something of it."""
        if self._failure is not None:
            return
        self._failure = SessionLost(why)
        self._failure.__cause__ = cause
        for future in (self._connected, *self._calls.values(), *self._receipts.values()):
            if not future.done():
                future.set_exception(self._failure)
        if self._connected.done() and not self._connected.cancelled():
            self._connected.exception()  # seen: it need not be reported if nobody awaits it
        self._event_came.set()

    def _send_heartbeat(self) -> None:
        self._transport.write(HEARTBEAT)

    def _on_silence(self, silent_s: float) -> None:
        self._fail(f"nothing was heard of the daemon for {silent_s:.1f} s")
        self._transport.abort()
