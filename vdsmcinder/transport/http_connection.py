# SPDX-License-Identifier: GPL-2.0-or-later
"""One HTTP client's connection: moves bytes between its socket and an HttpSession, and has patience
with it for a while.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Coroutine, Mapping
from email.utils import formatdate
from http import HTTPStatus
from typing import Any, NamedTuple, Protocol

from vdsmcinder.fair_scheduling import Turns, turn_end
from vdsmcinder.rpc import envelope
from vdsmcinder.system.counters import Deliveries
from vdsmcinder.tasks import Tasks
from vdsmcinder.transport import peer, tls
from vdsmcinder.transport.http_session import HttpSession, Refused, Request, Stage
from vdsmcinder.transport.shares import Shares

log = logging.getLogger(__name__)

# A client has this long, in seconds, to send its body,
BODY_TIMEOUT_S = 30.0
# and may leave a connection idle, its headers unfinished or an answer unread, for this long.
IDLE_TIMEOUT_S = 60.0
# After the last answer, what a client still sends is read for this long: were it not, the client
# would be told that the connection is broken before it has read the answer.
LINGER_S = 2.0
_READING = frozenset((Stage.HEAD, Stage.BODY))


class Answer(NamedTuple):
    """What a request is answered: a status, and a body of that media type unless it is empty."""

    status: int
    body: bytes = b""
    content_type: str = "application/json"


class Server(Protocol):
    """What a connection asks of its server."""

    max_body_bytes: int
    turns: Turns
    tasks: Tasks
    connections: set[HttpConnection]
    shares: Shares

    @property
    def deliveries(self) -> Deliveries:
        """What clients were sent."""

    def admit(self, request: Request) -> None:
        """Refuse a request before its body is there. Raises Refused."""

    def serve(self, request: Request, client: HttpConnection) -> None:
        """Have a request answered by client.answer() or client.run(), now or later."""


class HttpConnection(asyncio.Protocol):
    """Requests are answered one after the other, in the order in which they came.

    caller: who is at the other end. lost: done when the connection is closed. written_bytes: what
    was sent. queued_bytes: what an answer has yet to write, if it is made piece by piece.
    """

    def __init__(self, server: Server, known: peer.Known = peer.caller) -> None:
        self._server = server
        self._known = known
        self._loop = asyncio.get_running_loop()
        self._session = HttpSession(server.admit, server.max_body_bytes)
        self.lost: asyncio.Future[None] = self._loop.create_future()
        self.written_bytes = 0
        self.queued_bytes = 0
        self._writable = asyncio.Event()
        self._writable.set()
        self._deadline: asyncio.TimerHandle | None = None
        self._running: asyncio.Task[None] | None = None  # makes an answer piece by piece
        self._working = False  # requests are being read, further up the stack
        self._turn_due = False
        self._ended = False  # the client will send no more
        self._closing = False  # no more than the answer under way

    # --- called by the transport -----------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Called once, by the listener."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._tcp = tls.below(transport)
        self.caller = self._known(transport, "http")
        self._server.connections.add(self)
        self._be_patient()
        self._server.shares.enter(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed, by whichever side; verbs under way go on."""
        self._forget_deadline()
        self._server.connections.discard(self)
        self._server.shares.leave(self)
        if self._running is not None:
            self._running.cancel()
        if not self.lost.done():
            self.lost.set_result(None)

    def data_received(self, data: bytes) -> None:
        """Bytes off the wire."""
        self._session.receive(data)
        if not self._turn_due:
            self._work(turn_end())
        if self._session.unread:
            self._server.shares.note(self)

    def eof_received(self) -> bool:
        """The client will send no more; whether the connection stays open for an answer."""
        self._ended = True
        self._session.receive_end()
        if self._session.begun or self._session.stage is Stage.OVER:
            return False
        if not self._turn_due:
            self._work(turn_end())
        # TLS cannot be closed in one direction.
        return self._transport.can_write_eof()

    def pause_writing(self) -> None:
        """The client reads more slowly than we write."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """It has caught up."""
        self._writable.set()
        self._server.shares.note(self)
        self._next_turn()

    # --- requests --------------------------------------------------------------------------------

    def _work(self, end: float) -> None:
        """Read and answer requests until there is none, one takes time, or the turn is over."""
        session = self._session
        before = session.stage, session.count
        self._working = True
        try:
            while session.stage in _READING and self._writable.is_set():
                unread = session.unread
                request, told = session.next_request()
                if told:
                    self._send(told)
                if request is not None:
                    self._server.serve(request, self)
                elif session.unread == unread:
                    break
                if session.unread and time.perf_counter() > end:
                    self._next_turn()
                    break
        except Refused as e:
            self._refuse(e)
        finally:
            self._working = False
        if (session.stage, session.count) != before:
            self._be_patient()
        self._listen()

    def _listen(self) -> None:
        """Take more off the wire, unless what there is has to wait; close if none is expected."""
        session, transport = self._session, self._transport
        halted = self._turn_due or session.stage is Stage.ANSWER or not self._writable.is_set()
        if session.unread and halted:
            transport.pause_reading()
        elif session.stage is Stage.HEAD and not halted and (self._ended or self._closing):
            transport.close()
        else:
            transport.resume_reading()

    def _next_turn(self) -> None:
        if not self._turn_due:
            self._turn_due = True
            self._server.turns.ask(self._go_on)

    def _go_on(self) -> None:
        self._turn_due = False
        if not self._transport.is_closing():
            self._work(turn_end())

    # --- answers ---------------------------------------------------------------------------------

    def answer(self, answer: Answer) -> None:
        """Answer the request that was served last, if the client is still there."""
        if self._transport.is_closing():
            return
        headers = {"Date": _date(int(time.time()))}
        if answer.body:
            headers["Content-Type"] = answer.content_type
        wire = self._session.answer(answer.status, headers, answer.body, last=self._closing)
        self._send(wire)
        self._answered()

    def run(self, answering: Coroutine[Any, Any, None]) -> None:
        """Have a coroutine answer the request; it is cancelled when the client is gone."""
        self._running = self._server.tasks.spawn(answering, "answer")
        self._running.add_done_callback(self._ran)

    def begin(self, headers: Mapping[str, str]) -> None:
        """Begin an answer of status 200 whose pieces follow by write()."""
        date = _date(int(time.time()))
        self._send(self._session.begin(HTTPStatus.OK, {"Date": date, **headers}))

    async def write(self, piece: bytes) -> None:
        """Send a piece; returns once the client has read most of what was sent."""
        self._send(self._session.piece(piece))
        await self._writable.wait()

    def end(self) -> None:
        """The answer has all its pieces."""
        self._send(self._session.end())
        self._answered()

    def _answered(self) -> None:
        if self._session.stage is Stage.OVER:
            self._part(linger=False)
        if not self._working:
            self._be_patient()
            self._next_turn()

    def _ran(self, task: asyncio.Task[None]) -> None:
        self._running = None
        if task.cancelled() or task.exception() is None:
            return
        if self._session.begun:
            self.abort()
        else:
            words = "The daemon failed at this request; its log says why"
            self.answer(error(HTTPStatus.INTERNAL_SERVER_ERROR, words))

    def _refuse(self, refused: Refused) -> None:
        log.info("HTTP client %s is refused with status %d", self.caller.address, refused.status)
        answer = error(refused.status, str(refused))
        headers = {
            "Date": _date(int(time.time())),
            "Content-Type": answer.content_type,
            **refused.headers,
        }
        self._send(self._session.answer(answer.status, headers, answer.body, last=True))
        self._part(linger=True)

    # --- its share -------------------------------------------------------------------------------

    def _send(self, wire: bytes) -> None:
        self.written_bytes += len(wire)
        self._transport.write(wire)
        if self.unread_bytes():
            self._server.shares.note(self)

    def queued(self, size: int) -> None:
        """How many bytes of an answer are there that were not written yet."""
        self.queued_bytes = size
        self._server.shares.note(self)

    def unread_bytes(self) -> int:
        """What was sent and not read yet."""
        return tls.unread_bytes(self._transport, self._tcp)

    def held_bytes(self) -> int:
        """That, what is to be sent, and what was received and not handled yet."""
        return self.unread_bytes() + self.queued_bytes + self._session.held_bytes

    def refuse(self, reason: str) -> None:
        """End the connection, with an answer that gives the reason if none is under way."""
        if self._session.stage in _READING:
            self._refuse(Refused(HTTPStatus.SERVICE_UNAVAILABLE, reason))
        else:
            self.abort()

    def drop(self, why: str) -> None:
        """End the connection of a client that does not read; why: as transport/shares.py has it."""
        self._server.deliveries.clients_dropped += 1
        unread = self.unread_bytes() + self.queued_bytes
        words = "HTTP client %s is dropped: it left %d bytes unread, %s"
        log.warning(words, self.caller.address, unread, why)
        self.abort()

    # --- the end ---------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the connection once the answer under way is sent."""
        self._closing = True
        if self._session.stage in _READING:
            self._transport.close()

    def dismiss(self, why: str) -> None:
        """End the connection of a client that may not be here any more, whatever is unsent."""
        self.abort()

    def abort(self) -> None:
        """Close the connection, whatever is unsent."""
        self._transport.abort()

    def _part(self, linger: bool) -> None:
        """Have the connection end when the client has read its last answer.

        linger: it may still be sending, and must not be told that the connection is broken before
        it has read the answer.
        """
        if self._ended:
            self._transport.close()
        elif self._transport.can_write_eof():
            self._transport.write_eof()
        elif not linger:
            self._transport.close()
        self._give_up_in(LINGER_S if linger else IDLE_TIMEOUT_S)

    def _be_patient(self) -> None:
        """Give the client its time for what is expected of it now."""
        stage = self._session.stage
        if stage is Stage.HEAD:
            self._give_up_in(IDLE_TIMEOUT_S)
        elif stage is Stage.BODY:
            self._give_up_in(BODY_TIMEOUT_S)
        elif stage is Stage.ANSWER:
            self._forget_deadline()

    def _give_up_in(self, delay_s: float) -> None:
        self._forget_deadline()
        self._deadline = self._loop.call_later(delay_s, self._give_up)

    def _give_up(self) -> None:
        if self._session.stage is Stage.BODY:
            late = f"The body did not arrive within {BODY_TIMEOUT_S:.0f} s; send it at once"
            self._refuse(Refused(HTTPStatus.REQUEST_TIMEOUT, late))
        else:
            self.abort()

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def error(status: int, message: str) -> Answer:
    """What is answered in place of what was asked for; message: one sentence."""
    return Answer(status, envelope.encode({"error": message}) + b"\n")


@functools.lru_cache(maxsize=1)
def _date(second: int) -> str:
    """A second since the epoch as HTTP has it."""
    return formatdate(second, usegmt=True)
