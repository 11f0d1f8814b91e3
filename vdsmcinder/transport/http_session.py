# SPDX-License-Identifier: GPL-2.0-or-later
"""One HTTP/1.1 client as a server sees it: bytes in, whole requests out; answers in, bytes out.

No sockets, no clock: what RFC 9112 has is h11's business, what is refused beyond that is decided
here. h11 reads two things that this server does not, because a proxy in front of it may read them
another way and so take one request for two: lines that end in LF alone, and headers that go on in
the next line.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from types import MappingProxyType
from typing import Callable
from urllib.parse import unquote

import h11

from vdsmcinder.cephx_keys import masked

# Of a request line and its headers, in bytes and in lines.
HEAD_BYTES = 16 * 1024
HEAD_LINES = 100
# Of a body, in bytes, that are read in one go: in chunks of one byte they take some milliseconds.
PIECE_BYTES = 4 * 1024

_HEAD_END = b"\r\n\r\n"
# A line that ends without CR, or that goes on from the one before.
_LOOSE_LINE = re.compile(rb"(?<!\r)\n|\n[ \t]")
_SUPPORTED = frozenset((b"1.0", b"1.1"))
_BOTH_DONE = {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}

Headers = Mapping[str, str]


class Refused(Exception):
    """A request that gets an HTTP status instead of an answer; the message is for its sender.

    CEPHX keys are masked in it.
    """

    def __init__(self, status: int, message: str, headers: Headers = MappingProxyType({})) -> None:
        super().__init__(masked(message))
        self.status = status
        self.headers = headers


@dataclass(frozen=True)
class Request:
    """A request. path: without the query. headers: by name in lower case, of two the last one."""

    method: str
    path: str
    headers: Headers
    body: bytes = b""


class Stage(enum.Enum):
    """What a connection waits for."""

    HEAD = "a request, or the rest of its headers"
    BODY = "the rest of a body"
    ANSWER = "our answer"
    OVER = "nothing: no more requests are read"


class HttpSession:
    """The requests of one connection, one after the other.

    admit: called with each request before its body is there; raises Refused. max_body_bytes: of a
    body, in whichever form it comes.
    """

    def __init__(self, admit: Callable[[Request], None], max_body_bytes: int) -> None:
        self.stage = Stage.HEAD
        self.count = 0  # requests that were answered or refused
        self._admit = admit
        self._max_body_bytes = max_body_bytes
        self._received = bytearray()
        self._ended = False  # the client has sent all that it will
        self._looked_at = 0  # of what was received, while the head is not complete
        self._exchange = h11.Connection(h11.SERVER, HEAD_BYTES)
        self._request: Request | None = None
        self._bodiless = False  # the answer has none, by the request's method
        self._body = bytearray()

    # --- requests --------------------------------------------------------------------------------

    @property
    def unread(self) -> int:
        """How many bytes were received and not looked at yet."""
        return len(self._received)

    @property
    def held_bytes(self) -> int:
        """How many bytes were received of requests that are not complete."""
        return len(self._received) + len(self._body)

    @property
    def begun(self) -> bool:
        """Whether an answer has begun whose end is not there yet."""
        return self._exchange.our_state is h11.SEND_BODY

    def receive(self, data: bytes) -> None:
        """Bytes off the wire."""
        if self.stage is not Stage.OVER:
            self._received += data

    def receive_end(self) -> None:
        """The client will send no more; it may still read."""
        self._ended = True

    def next_request(self) -> tuple[Request | None, bytes]:
        """The next request, if it is there, and what to write: clients may wait for a go-ahead.

        Reads one piece, so it may have to be called again though nothing more came: while `unread`
        gets less. Raises Refused; its answer is the last one then.
        """
        try:
            if self.stage is Stage.HEAD:
                return self._read_head()
            if self.stage is Stage.BODY:
                return self._read_body(), b""
        except h11.RemoteProtocolError as e:
            # What follows the colon quotes the request, which may hold a key.
            reason = str(e).partition(":")[0]
            raise _no_request(f"{reason[:1].lower()}{reason[1:]}") from None
        return None, b""

    def _read_head(self) -> tuple[Request | None, bytes]:
        head = self._take_head()
        if head is None:
            return None, b""
        self._exchange.receive_data(head)
        event = self._exchange.next_event()
        assert isinstance(event, h11.Request)
        request = _request(event)
        self._bodiless = request.method == "HEAD"
        self._check_framing(event, request)
        self._admit(request)
        length = int(request.headers.get("content-length", 0))
        if length > self._max_body_bytes:
            raise self._too_large()
        self._request = request
        self.stage = Stage.BODY
        told = b""
        if self._exchange.they_are_waiting_for_100_continue and not self._received:
            goes_on = h11.InformationalResponse(status_code=HTTPStatus.CONTINUE, headers=[])
            told = self._exchange.send(goes_on) or b""
        return self._read_body(), told

    def _take_head(self) -> bytes | None:
        """The next head off what was received, once it is complete."""
        received = self._received
        while received.startswith(b"\r\n"):  # RFC 9112, section 2.2
            del received[:2]
        end = received.find(_HEAD_END, max(self._looked_at - len(_HEAD_END), 0), HEAD_BYTES)
        length = end + len(_HEAD_END) if end >= 0 else len(received)
        if _LOOSE_LINE.search(received, max(self._looked_at - 1, 0), min(length, HEAD_BYTES)):
            raise _no_request("a line of its head ends without CR or goes on in the next")
        if length > HEAD_BYTES or received.count(b"\r\n", 0, length) > HEAD_LINES:
            raise _no_request(f"its head is larger than {HEAD_BYTES} bytes or {HEAD_LINES} lines")
        if end < 0:
            self._looked_at = length
            if self._ended and received:
                raise _no_request("it ends before its headers do")
            return None
        head = bytes(received[:length])
        del received[:length]
        self._looked_at = 0
        return head

    def _check_framing(self, event: h11.Request, request: Request) -> None:
        """Refuse what says in two ways where its body ends. Raises Refused."""
        if event.http_version not in _SUPPORTED:
            raise _no_request("its version is neither HTTP/1.1 nor HTTP/1.0")
        chunked = "transfer-encoding" in request.headers
        if chunked and "content-length" in request.headers:
            raise _no_request("it has both Content-Length and Transfer-Encoding")
        if chunked and event.http_version == b"1.0":
            raise _no_request("HTTP/1.0 has no Transfer-Encoding")

    def _read_body(self) -> Request | None:
        exchange, received = self._exchange, self._received
        if received:
            exchange.receive_data(bytes(received[:PIECE_BYTES]))
            del received[:PIECE_BYTES]
        elif self._ended:
            exchange.receive_data(b"")
        while True:
            event = exchange.next_event()
            if isinstance(event, h11.Data):
                self._body += event.data
                if len(self._body) > self._max_body_bytes:
                    raise self._too_large()
            elif isinstance(event, h11.EndOfMessage):
                return self._complete()
            else:
                return None

    def _complete(self) -> Request:
        assert self._request is not None
        # The beginning of the next request, if that came in the same piece.
        rest, _ = self._exchange.trailing_data
        if rest:
            self._received[:0] = rest
        if self._exchange.their_state is h11.MUST_CLOSE and self._received.strip(b"\r\n"):
            # Its length may be what is wrong, so it is not answered either.
            raise _no_request("more follows than its length says, after the last request")
        request = self._request
        if self._body:
            request = Request(request.method, request.path, request.headers, bytes(self._body))
            self._body = bytearray()
        self._request = None
        self.stage = Stage.ANSWER
        return request

    def _too_large(self) -> Refused:
        return Refused(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"The body is larger than {self._max_body_bytes} bytes (option "
            "listen.max_frame_bytes); send less at once",
        )

    # --- answers ---------------------------------------------------------------------------------

    def answer(self, status: int, headers: Headers, body: bytes = b"", last: bool = False) -> bytes:
        """A whole answer, to the request that was read last or to one that was refused.

        last: it is the last one, and no more requests are read.
        """
        about = {**headers}
        if status != HTTPStatus.NO_CONTENT:
            about["Content-Length"] = str(len(body))
        if last:
            about["Connection"] = "close"
        wire = self.begin(status, about)
        if body and not self._bodiless:
            wire += self.piece(body)
        return wire + self.end()

    def begin(self, status: int, headers: Headers) -> bytes:
        """The beginning of an answer; without Content-Length its body is as long as it gets."""
        event = h11.Response(
            status_code=status, reason=HTTPStatus(status).phrase, headers=list(headers.items())
        )
        return self._exchange.send(event) or b""

    def piece(self, data: bytes) -> bytes:
        """A piece of an answer that has begun."""
        return self._exchange.send(h11.Data(data=data)) or b""

    def end(self) -> bytes:
        """The end of an answer."""
        wire = self._exchange.send(h11.EndOfMessage()) or b""
        self.count += 1
        if self._exchange.states == _BOTH_DONE:
            # Not its next cycle: what it holds of the next request is with us already.
            self._exchange = h11.Connection(h11.SERVER, HEAD_BYTES)
            self.stage = Stage.HEAD
        else:
            self.stage = Stage.OVER
            self._received.clear()
        return wire


def _request(event: h11.Request) -> Request:
    headers = {k.decode("ascii"): v.decode("utf-8", "replace") for k, v in event.headers}
    return Request(event.method.decode("ascii"), _path(event.target.decode("ascii")), headers)


def _path(target: str) -> str:
    """The path of a target in origin form ('/events?x') or absolute form ('http://host/events')."""
    if not target.startswith("/"):
        _, absolute, rest = target.partition("://")
        if not absolute:
            return target
        target = "/" + rest.partition("/")[2]
    path = target.partition("?")[0]
    return unquote(path) if "%" in path else path


def _no_request(reason: str) -> Refused:
    return Refused(
        HTTPStatus.BAD_REQUEST,
        f"This is no HTTP request ({reason}); correct it and send it again",
    )
