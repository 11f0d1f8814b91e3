# SPDX-License-Identifier: GPL-2.0-or-later
"""STOMP connections on the event loop: the thin shell around stomp/session.py's session rules.

Bytes go to the session and come from it; patience, sizes and turns are looked after here.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
from time import perf_counter
from typing import TYPE_CHECKING, Any, Callable

from vdsmcinder import tls_errors
from vdsmcinder.config import Listen, Rpc
from vdsmcinder.errors import OutOfResources, ParseError
from vdsmcinder.fair_scheduling import turn_end
from vdsmcinder.rpc import envelope
from vdsmcinder.stomp.frames import HEARTBEAT, Limits
from vdsmcinder.stomp.heartbeat import Heart
from vdsmcinder.stomp.session import Request, Session, Subscription, event_tail
from vdsmcinder.system.counters import Deliveries
from vdsmcinder.tasks import Tasks
from vdsmcinder.transport import peer, tls
from vdsmcinder.transport.request_queue import Lane
from vdsmcinder.transport.shares import Shares

if TYPE_CHECKING:
    from vdsmcinder.rpc.dispatch import Dispatcher
    from vdsmcinder.rpc.events import Events

log = logging.getLogger(__name__)

# What a client has just sent is answered at once for so long, in seconds: enough for the requests
# that an engine keeps in flight. What is left then waits for turns, which are shorter.
AT_ONCE_S = 500e-6
# Replies that gather, in bytes, before they are written although the turn is not over.
WRITE_AT_ONCE = 64 * 1024
# A client has this long, in seconds, to complete its CONNECT,
CONNECT_TIMEOUT_S = 10.0
# this long for any other frame (up to twice as long, depending on when it is looked at),
FRAME_TIMEOUT_S = 30.0
# and, once its session is over, to read what was sent last and hang up.
LINGER_S = 2.0
# What has been received of a frame and is told of, in bytes: most frames come whole.
WORTH_TELLING = 16 * 1024


class StompServer:
    """What all STOMP connections share: the dispatcher, the limits, the stream of events.

    deliveries: what the clients were sent. refused: requests beyond those that may be under way.
    """

    def __init__(
        self,
        listen: Listen,
        rpc: Rpc,
        dispatcher: Dispatcher,
        events: Events,
        requests: Tasks,
        *,
        shares: Shares,
    ) -> None:
        self.limits = Limits(frame=listen.max_frame_bytes)
        self.heartbeat_floor_ms = listen.heartbeat_ms
        self.max_buffer_bytes = listen.max_buffer_bytes
        self.max_queue = rpc.max_queue
        self.handle = dispatcher.handle
        self.role = dispatcher.role
        self.requests = requests
        self.shares = shares
        self.turns = dispatcher.turns
        self.connections: set[StompConnection] = set()
        self.deliveries = Deliveries()
        self.refused = 0
        self._events = events
        self._event_number = 0
        self._unsubscribe: Callable[[], None] = lambda: None
        self._next_look: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to pass events on, and to look for frames that do not end."""
        self._unsubscribe = self._events.subscribe(self._publish)
        self._look_for_unfinished()

    async def close(self) -> None:
        """Stop events and end all connections, with an ERROR frame that says why."""
        self._unsubscribe()
        if self._next_look is not None:
            self._next_look.cancel()
        connections = tuple(self.connections)
        for connection in connections:
            connection.end("the daemon is shutting down; connect again later")
        if connections:
            await asyncio.wait([connection.lost for connection in connections])

    def _publish(self, body: bytes) -> None:
        tail = self._tail(body)
        for connection in tuple(self.connections):
            connection.send_event(tail)

    def greeting(self) -> list[bytes]:
        """Events, encoded by event_tail(), for a client that has subscribed to them just now."""
        return [self._tail(body) for body in self._events.greeting()]

    def _tail(self, body: bytes) -> bytes:
        self._event_number += 1
        return event_tail(body, self._event_number)

    def _look_for_unfinished(self) -> None:
        loop = asyncio.get_running_loop()
        self._next_look = loop.call_later(FRAME_TIMEOUT_S, self._look_for_unfinished)
        for connection in tuple(self.connections):
            connection.check_unfinished()


class StompConnection(asyncio.Protocol):
    """One client's connection.

    What is to be sent gathers in the session while input is worked off, or during one turn of the
    loop, and goes out in one write. caller, written_bytes: as transport/shares.py has them.
    """

    def __init__(self, server: StompServer, known: peer.Known = peer.caller) -> None:
        self._server = server
        self._known = known
        self._loop = asyncio.get_running_loop()
        self._session = Session(server.limits, server.heartbeat_floor_ms)
        self._heart = Heart(self._send_heartbeat, self._on_silence)
        self._deadline: asyncio.TimerHandle | None = None
        self.written_bytes = 0
        self.lost = self._loop.create_future()
        self._welcomed = 0  # how many CONNECT frames were
        self._undeliverable = ""  # why a request was dropped, if that was told
        self._lane = Lane(server.requests, self._listen_again)
        self._blocked = False  # the client reads too slowly: no more of its requests for now
        self._unread_events = 0  # while blocked
        self._most_unread = 0  # while blocked; beyond it the client is dropped
        self._interrupted = False  # received requests wait for the connection's next turn
        self._turn_due = False
        self._flush_due = False
        self._ended = False
        self._unfinished: int | None = None  # the frame that was when last looked

    # --- called by the transport ---------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called once, by the listener."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._tcp = tls.below(transport)
        self.caller = self._known(transport, "stomp")
        limit = self._server.max_buffer_bytes // 2
        transport.set_write_buffer_limits(high=limit, low=limit // 4)
        self._server.connections.add(self)
        self._end_by(
            CONNECT_TIMEOUT_S, self.end, f"no CONNECT frame within {CONNECT_TIMEOUT_S:.0f} s"
        )
        self._server.shares.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed, by whichever side."""
        self._stop()
        self._server.connections.discard(self)
        self._server.shares.leave(self)
        if not self.lost.done():
            self.lost.set_result(None)
        cause = f": {tls_errors.reason(exc)}" if exc else ""
        log.info("STOMP client %s is gone%s", self.caller.address, cause)

    def data_received(self, data: bytes) -> None:
        """Bytes off the wire; after the session's end they are read and ignored."""
        if self._ended:
            return
        self._session.receive(data)
        if not self._interrupted:
            self._take_turn(perf_counter() + AT_ONCE_S)
        if self._session.held_bytes > WORTH_TELLING:
            self._server.shares.note(self)

    def eof_received(self) -> None:
        """The client will send no more, so the transport closes once what was sent is read."""
        if self._ended:
            self._transport.abort()
        else:
            self._end_by(LINGER_S, self._transport.abort)

    def pause_writing(self) -> None:
        """Half of what may be unread is unread; or, at the end, the last frame is."""
        if self._ended:
            return
        self._blocked = self._heart.deaf = True
        # Measured from here, so that one reply larger than all of it may still be read.
        self._most_unread = self._unread() + self._server.max_buffer_bytes // 2
        self._transport.pause_reading()

    def resume_writing(self) -> None:
        """The client has read most of it; or, at the end, all of it."""
        if self._ended:
            self._cut()
            return
        self._blocked = False
        self._unread_events = 0
        self._server.shares.note(self)
        self._listen_again()

    # --- requests and replies ------------------------------------------------------------------

    def _take_turn(self, end: float) -> None:
        """Answer what has been received, or as much of it as can be begun before `end`."""
        self._heart.last_heard = self._loop.time()
        session, hears_events = self._session, bool(self._session.event_heads)
        self._interrupted = False
        while (request := session.next_request()) is not None:
            self._answer(request)
            if session.output_bytes > WRITE_AT_ONCE:
                self._flush()
            if self._halted or perf_counter() > end:
                self._interrupted = True
                self._transport.pause_reading()
                break
        if session.connects > self._welcomed:
            self._welcome()
        if session.unanswerable != self._undeliverable:
            self._undeliverable = session.unanswerable
            log.warning(
                "a request of STOMP client %s is dropped: %s",
                self.caller.address,
                session.unanswerable,
            )
        if session.event_heads and not hears_events:
            for tail in self._server.greeting():
                self.send_event(tail)
        self._flush()
        if self._lane.full:
            self._heart.deaf = True
        elif self._interrupted:
            self._next_turn()

    @property
    def _halted(self) -> bool:
        """Whether no more requests are taken: too much is unread, or too large is under way."""
        return self._blocked or self._lane.full or self._ended

    def _listen_again(self) -> None:
        """One of the reasons to take no more requests is gone."""
        if not self._halted:
            self._heart.deaf = False
            self._heart.last_heard = self._loop.time()
            self._next_turn()

    def _next_turn(self) -> None:
        if not self._turn_due:
            self._turn_due = True
            self._server.turns.ask(self._go_on)

    def _go_on(self) -> None:
        self._turn_due = False
        if self._halted:
            return
        if self._interrupted:
            self._take_turn(turn_end())
        if not self._interrupted and not self._halted:
            self._transport.resume_reading()

    def _welcome(self) -> None:
        self._welcomed = self._session.connects
        self._forget_deadline()
        self._heart.start(*self._session.heartbeats)
        who = self.caller.subject or "without a certificate"
        role = "host" if self.caller.is_host else self._server.role(self.caller.names).value
        log.info("STOMP client %s connected, %s, role %s", self.caller.address, who, role)

    def _answer(self, request: Request) -> None:
        server = self._server
        if self._lane.length >= server.max_queue:
            server.refused += 1
            reply: Any = refusal(request.body, server.max_queue)
        else:
            reply = server.handle(request.body, self.caller, request.flow_id)
        if isinstance(reply, bytes):
            self._session.reply(request.subscription, reply)
        elif reply is not None:
            deliver = functools.partial(self._deliver, request.subscription)
            self._lane.add(reply, deliver, len(request.body))

    def _deliver(self, subscription: Subscription, body: bytes | None) -> None:
        """The reply of a verb that took its time."""
        if body is not None and not self._ended:
            self._session.reply(subscription, body)
            self._flush_soon()

    def send_event(self, tail: bytes) -> None:
        """Send an event, encoded by event_tail(), if the client is subscribed to events."""
        if self._session.event_heads and not self._ended and not self.caller.is_host:
            self._server.deliveries.events_sent += 1
            self._unread_events += self._blocked
            self._session.event(tail)
            self._flush_soon()

    # --- output --------------------------------------------------------------------------------

    def _flush_soon(self) -> None:
        if not self._flush_due:
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_due = False
        if self._ended:
            return
        if self._blocked and self._unread() > self._most_unread:
            allowed = self._server.max_buffer_bytes
            self.drop(f"more than option listen.max_buffer_bytes ({allowed}) allows")
            return
        # One write for each is one TLS record for each.
        for frames in self._session.take_output():
            self.written_bytes += len(frames)
            self._transport.write(frames)
        if self._session.farewell is not None:
            self._part(self._session.farewell)
        elif self.unread_bytes():
            self._server.shares.note(self)

    def _unread(self) -> int:
        """What was sent and not read yet, as far as pause_writing() and its like know of it."""
        return self._transport.get_write_buffer_size()

    def unread_bytes(self) -> int:
        """What was sent and not read yet."""
        return tls.unread_bytes(self._transport, self._tcp)

    def held_bytes(self) -> int:
        """That, what was received and not handled yet, and the requests under way."""
        return self.unread_bytes() + self._session.held_bytes + self._lane.held_bytes

    def drop(self, why: str) -> None:
        """End the connection of a client that does not read; why: as transport/shares.py has it."""
        self._server.deliveries.clients_dropped += 1
        self._server.deliveries.events_dropped += self._unread_events
        log.warning(
            "STOMP client %s is dropped: it left %d bytes unread, %s",
            self.caller.address,
            self.unread_bytes(),
            why,
        )
        self._stop()
        self._transport.abort()

    # --- the end -------------------------------------------------------------------------------

    def end(self, reason: str) -> None:
        """End the session with an ERROR frame that gives the reason."""
        if not self._ended:
            self._session.fail(reason)
            self._flush()

    def dismiss(self, why: str) -> None:
        """End the session of a client that may not be here any more."""
        self.end(f"the session ends: {why}")

    def refuse(self, reason: str) -> None:
        """As end(), which transport/shares.py calls so."""
        self.end(reason)

    def _part(self, farewell: bytes) -> None:
        """Send the last frame, and give the client a moment to read it and hang up.

        Closing at once while its bytes are still arriving would reset the connection, and the last
        frame with it.
        """
        if self._session.failure:
            log.warning("STOMP client %s: %s", self.caller.address, self._session.failure)
        self._stop()
        if tls.below(self._transport) is None:
            return
        # So that resume_writing() tells when the last byte is out.
        self._transport.set_write_buffer_limits(high=0)
        self._transport.write(farewell)
        self._end_by(LINGER_S, self._transport.abort)
        if not self._unread():
            self._cut()
        self._transport.resume_reading()

    def _cut(self) -> None:
        """Tell the client that no more comes, once it has read all.

        By the end of the TCP stream, for TLS too: its close_notify leaves oVirt's engine deaf until
        its heart-beat is overdue.
        """
        tcp = tls.below(self._transport)
        # asyncio lets through what shutdown(2) says of a client that has gone meanwhile.
        with contextlib.suppress(OSError):
            if tcp is not None:
                tcp.write_eof()

    def _stop(self) -> None:
        self._ended = True
        self._heart.stop()
        self._lane.close()
        self._forget_deadline()

    def _end_by(self, seconds: float, end: Callable[..., None], *args: Any) -> None:
        """Have the connection ended unless something happens first; there is one such deadline."""
        self._forget_deadline()
        self._deadline = self._loop.call_later(seconds, end, *args)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()

    def check_unfinished(self) -> None:
        """End a session whose client was sending the same frame the last time it was looked at."""
        frame = None if self._interrupted or self._ended else self._session.unfinished
        if frame is not None and frame == self._unfinished:
            self.end(f"a frame did not end within {FRAME_TIMEOUT_S:.0f} s; expected all of it")
        self._unfinished = frame

    # --- heart-beats ---------------------------------------------------------------------------

    def _send_heartbeat(self) -> None:
        # What it has not read yet is as good as a heart-beat.
        if not self._blocked:
            self._transport.write(HEARTBEAT)

    def _on_silence(self, silent_s: float) -> None:
        agreed_ms = self._session.heartbeats.expected_every
        self.end(
            f"nothing arrived for {silent_s * 1000:.0f} ms; expected a heart-beat every "
            f"{agreed_ms} ms"
        )


def refusal(body: bytes, max_queue: int) -> bytes | None:
    """The reply to a body that is not handled because max_queue others are under way.

    None if it needs no reply.
    """
    error = OutOfResources(
        f"{max_queue} requests of this connection are under way, as many as option rpc.max_queue "
        "allows; send this one again when some of them are answered"
    )
    try:
        content = envelope.decode(body)
    except ParseError as e:
        return envelope.encode(envelope.refusal(e))
    if isinstance(content, list):
        replies = [envelope.refusal(error, request) for request in content if _has_id(request)]
        return envelope.encode(replies) if replies else None
    return envelope.encode(envelope.refusal(error, content)) if _has_id(content) else None


def _has_id(request: object) -> bool:
    return not isinstance(request, dict) or "id" in request
