# SPDX-License-Identifier: GPL-2.0-or-later
"""The rules of one STOMP 1.2 session, seen from the server; no sockets, no clock, no event loop.

Bytes go in; requests come out, and frames to be sent. Destinations and headers are those of
contract/wire.md. Where oVirt's engine and the STOMP document disagree, the engine is served: its
client sends what it had queued for a lost connection before it says CONNECT, and may say that
again. The certificate has let it in by then.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Mapping
from typing import Callable, NamedTuple

from vdsmcinder.cephx_keys import masked
from vdsmcinder.stomp.frames import Decoder, Frame, Limits, ProtocolError, encode, encode_head

log = logging.getLogger(__name__)

REQUESTS = "jms.topic.vdsm_requests"
# Where an engine's second connection, the one for storage, sends its requests.
STORAGE_REQUESTS = "jms.topic.vdsm_irs_requests"
EVENTS = "jms.queue.events"
FLOW_ID = "ovirtCorrelationId"
# Whoever subscribes to one of these gets the events.
EVENT_SUBSCRIPTIONS = frozenset((EVENTS, "jms.queue", "jms"))
SERVER = "vdsm-cinder"
# More than any client has; each gets a copy of every event, if it is to events.
MAX_SUBSCRIPTIONS = 32
# CONNECT with this header set to "true" comes from a client that reads all frames of a TLS record.
# oVirt's engine reads one, and the rest when the next record is there.
GATHERED = "gathered-frames"

_REQUESTS = (REQUESTS, STORAGE_REQUESTS)
_BELOW_REQUESTS = tuple(f"{destination}." for destination in _REQUESTS)


class Subscription(NamedTuple):
    """What a client asked to be sent.

    reply_head, event_head: the parts of its MESSAGE frames that never change, encoded.
    """

    id: str
    destination: str
    reply_head: bytes
    event_head: bytes


class Request(NamedTuple):
    """A JSON-RPC body to be handled, and the subscription that its reply goes to."""

    body: bytes
    flow_id: str | None
    subscription: Subscription


class Heartbeats(NamedTuple):
    """What CONNECT and CONNECTED agreed on ("Heart-beating"), in ms; 0 is never."""

    sent_every: int = 0
    expected_every: int = 0


def event_tail(body: bytes, number: int) -> bytes:
    """The part of an event's MESSAGE frame that is the same for every subscriber."""
    return (
        b"destination:%b\ncontent-type:application/json\nmessage-id:event-%d\ncontent-length:%d\n\n"
        b"%b\0" % (EVENTS.encode(), number, len(body), body)
    )


class Session:
    """One client's session: CONNECT, subscriptions, requests, receipts, errors.

    receive() takes bytes and next_request() hands out requests; what is to be sent gathers until
    take_output(). When `farewell` is no longer None the session is over: it is sent last, after the
    replies to the requests that came before, and the connection is closed.

    connects: how often the client has said CONNECT. gathered: it takes several frames at once.
    unanswerable: why the latest request was dropped whose answer could not have reached its sender.
    """

    def __init__(self, limits: Limits, heartbeat_floor_ms: int) -> None:
        self.connects = 0
        self.gathered = False
        self.unanswerable = ""
        self.heartbeats = Heartbeats()
        self.event_heads: tuple[bytes, ...] = ()
        self.output_bytes = 0  # of replies and events in the output
        self.farewell: bytes | None = None
        self.failure = ""  # the reason that the ERROR frame gives, if that is the farewell
        self._output: list[bytes] = []
        self._decoder = Decoder(limits)
        self._heartbeat_floor_ms = heartbeat_floor_ms
        self._subscriptions: dict[str, Subscription] = {}
        self._reply_to: dict[str, Subscription] = {}
        self._messages = 0

    @property
    def held_bytes(self) -> int:
        """How much was received that is not handled yet."""
        return self._decoder.held_bytes

    @property
    def unfinished(self) -> int | None:
        """The number of the frame that has begun to arrive; None between frames."""
        return self._decoder.unfinished

    def receive(self, data: bytes) -> None:
        """Take bytes off the wire; after the session's end they are ignored."""
        if self.farewell is None:
            self._decoder.receive(data)

    def next_request(self) -> Request | None:
        """The next request, None when the bytes received so far hold no more.

        Every other frame on the way is dealt with. A broken rule ends the session with an ERROR
        frame as its farewell.
        """
        frame: Frame | None = None
        try:
            while self.farewell is None:
                frame = None
                frame = self._decoder.next_frame()
                if frame is None:
                    return None
                if frame.command != "SEND":
                    self._obey(frame)
                elif (request := self._send(frame)) is not None:
                    return request
        except ProtocolError as e:
            self.fail(str(e), {} if frame is None else _receipt_id(frame))
        return None

    def reply(self, subscription: Subscription, body: bytes) -> None:
        """Queue the answer to a request; dropped if the client has unsubscribed meanwhile."""
        if self._subscriptions.get(subscription.id) is not subscription:
            log.debug("reply dropped: subscription %r is gone", subscription.id)
            return
        self._messages += 1
        self.output_bytes += len(body)
        self._output.append(
            b"%bmessage-id:%d\ncontent-length:%d\n\n%b\0"
            % (subscription.reply_head, self._messages, len(body), body)
        )

    def event(self, tail: bytes) -> None:
        """Queue an event, encoded by event_tail(), once for each subscription to it."""
        for head in self.event_heads:
            self._output.append(head + tail)
            self.output_bytes += len(tail)

    def take_output(self) -> list[bytes]:
        """The frames that are to be sent now: each alone, or all as one if they are `gathered`."""
        output, self._output = self._output, []
        self.output_bytes = 0
        return [b"".join(output)] if self.gathered and output else output

    def fail(self, reason: str, headers: Mapping[str, str] = {}) -> None:
        """End the session with an ERROR frame that gives the reason, CEPHX keys in it masked."""
        reason = masked(reason)
        about = {**headers, "message": reason.replace("\0", "\\0"), "content-type": "text/plain"}
        self.failure = reason
        self.farewell = encode(Frame("ERROR", about, reason.encode()))

    # --- one method for each client frame ------------------------------------------------------

    def _obey(self, frame: Frame) -> None:
        rule = _RULES.get(frame.command)
        if rule is None:
            raise ProtocolError(
                f"{frame.command} is not served; expected one of SEND, {', '.join(_RULES)}"
            )
        rule(self, frame)
        if self.farewell is None and rule is not Session._connect:
            self._acknowledge(frame)

    def _connect(self, frame: Frame) -> None:
        versions = frame.headers.get("accept-version", "1.0")
        if "1.2" not in [version.strip() for version in versions.split(",")]:
            self.fail(
                f"STOMP version {versions[:80]!r} is not served; expected accept-version 1.2",
                {"version": "1.2"},
            )
            return
        self.heartbeats = self._agree(frame.headers.get("heart-beat", "0,0"))
        self.connects += 1
        self.gathered = frame.headers.get(GATHERED) == "true"
        answer = {
            "version": "1.2",
            "heart-beat": f"{self.heartbeats.sent_every},{self.heartbeats.expected_every}",
            "session": uuid.uuid4().hex,
            "server": SERVER,
        }
        self._output.append(encode(Frame("CONNECTED", answer)))

    def _agree(self, text: str) -> Heartbeats:
        offered, _, wanted = text.partition(",")
        if not all(t.isascii() and t.isdigit() and len(t) <= 9 for t in (offered, wanted)):
            raise ProtocolError(
                f"header heart-beat of CONNECT is {text[:80]!r}; expected two numbers of "
                "milliseconds such as 1000,1000"
            )
        floor = self._heartbeat_floor_ms
        return Heartbeats(
            sent_every=max(int(wanted), floor) if int(wanted) else 0,
            expected_every=max(int(offered), floor) if int(offered) else 0,
        )

    def _subscribe(self, frame: Frame) -> None:
        name = _required(frame, "id")
        destination = _required(frame, "destination")
        if frame.headers.get("ack", "auto") != "auto":
            raise ProtocolError(
                f"header ack of SUBSCRIBE {name!r} is {frame.headers['ack'][:80]!r}; expected auto"
            )
        if name in self._subscriptions:
            raise ProtocolError(
                f"subscription {name!r} exists already; expected an id of its own for each"
            )
        if len(self._subscriptions) >= MAX_SUBSCRIPTIONS:
            raise ProtocolError(
                f"subscription {name!r} is one too many; expected at most {MAX_SUBSCRIPTIONS}"
            )
        self._subscriptions[name] = _subscription(name, destination)
        self._index_subscriptions()

    def _unsubscribe(self, frame: Frame) -> None:
        # Engines unsubscribe what a lost connection took with it: not an error.
        if self._subscriptions.pop(_required(frame, "id"), None) is not None:
            self._index_subscriptions()

    def _index_subscriptions(self) -> None:
        everything = list(self._subscriptions.values())
        # Of several subscriptions to one destination the first gets the replies.
        self._reply_to = {s.destination: s for s in reversed(everything)}
        self.event_heads = tuple(
            s.event_head for s in everything if s.destination in EVENT_SUBSCRIPTIONS
        )

    def _disconnect(self, frame: Frame) -> None:
        self.farewell = _receipt(frame)

    def _send(self, frame: Frame) -> Request | None:
        """The request; None for one whose answer could not reach its sender: it must not act."""
        headers = frame.headers
        destination = headers.get("destination", "")
        if destination not in _REQUESTS and not destination.startswith(_BELOW_REQUESTS):
            raise ProtocolError(
                f"SEND to destination {destination[:80]!r}; expected {REQUESTS} or below it"
            )
        reply_to = headers.get("reply-to")
        if reply_to is None:
            raise ProtocolError(
                "SEND has no header reply-to, so its answer could not be sent; name a destination "
                "there that this connection is subscribed to"
            )
        subscription = self._reply_to.get(reply_to)
        if subscription is None:
            self.unanswerable = (
                f"header reply-to of SEND names {reply_to[:80]!r}, which the connection is not "
                "subscribed to; SUBSCRIBE to it first"
            )
            return None
        self._acknowledge(frame)
        return Request(frame.body, headers.get(FLOW_ID), subscription)

    def _acknowledge(self, frame: Frame) -> None:
        if "receipt" in frame.headers:
            self._output.append(_receipt(frame))


_RULES: Mapping[str, Callable[[Session, Frame], None]] = {
    "CONNECT": Session._connect,
    "STOMP": Session._connect,
    "SUBSCRIBE": Session._subscribe,
    "UNSUBSCRIBE": Session._unsubscribe,
    "DISCONNECT": Session._disconnect,
}


def _subscription(name: str, destination: str) -> Subscription:
    head = {"subscription": name}
    reply = {**head, "destination": destination, "content-type": "application/json"}
    return Subscription(
        name, destination, encode_head("MESSAGE", reply), encode_head("MESSAGE", head)
    )


def _receipt(frame: Frame) -> bytes:
    """The RECEIPT that a frame asks for, no bytes if it asks for none."""
    about = _receipt_id(frame)
    return encode(Frame("RECEIPT", about)) if about else b""


def _receipt_id(frame: Frame) -> dict[str, str]:
    receipt = frame.headers.get("receipt")
    return {} if receipt is None else {"receipt-id": receipt}


def _required(frame: Frame, name: str) -> str:
    value = frame.headers.get(name)
    if not value:
        raise ProtocolError(f"{frame.command} has no header {name}; expected '{name}:...'")
    return value
