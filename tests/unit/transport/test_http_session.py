# SPDX-License-Identifier: GPL-2.0-or-later
"""What HTTP clients may send, as tables of bytes: what is read out of them, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

import pytest

from tests.fuzz.http import Conversation
from vdsmcinder.transport.http_session import (
    HEAD_BYTES,
    HEAD_LINES,
    HttpSession,
    Refused,
    Request,
    Stage,
)

MAX_BODY = 64
HOST = b"Host: x\r\n"
POST = b"POST / HTTP/1.1\r\n" + HOST
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
GET = b"GET /health HTTP/1.1\r\n" + HOST + b"\r\n"


def length(body: bytes) -> bytes:
    return POST + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


Ways = Callable[[bytes], Iterable[bytes]]
# However a client's bytes come, they are read the same.
WAYS: dict[str, Ways] = {
    "at once": lambda wire: [wire],
    "in halves": lambda wire: [wire[: len(wire) // 2], wire[len(wire) // 2 :]],
    "byte by byte": lambda wire: (bytes((byte,)) for byte in wire),
}


def converse(pieces: Iterable[bytes], ended: bool = False) -> Conversation:
    conversation = Conversation(MAX_BODY)
    for piece in pieces:
        conversation.say(piece)
    if ended:
        conversation.end()
    return conversation


# --- what is read --------------------------------------------------------------------------------

READ: dict[str, tuple[bytes, list[tuple[str, str, bytes]]]] = {
    "no body": (GET, [("GET", "/health", b"")]),
    "a length": (length(b"{}"), [("POST", "/", b"{}")]),
    "no bytes": (length(b""), [("POST", "/", b"")]),
    "the most bytes": (length(b"x" * MAX_BODY), [("POST", "/", b"x" * MAX_BODY)]),
    "chunks": (CHUNKED + b"2\r\n{}\r\n1\r\n \r\n0\r\n\r\n", [("POST", "/", b"{} ")]),
    "a chunk's extension": (CHUNKED + b"2;a=b\r\n{}\r\n0\r\n\r\n", [("POST", "/", b"{}")]),
    "trailers": (CHUNKED + b"2\r\n{}\r\n0\r\nx: y\r\n\r\n", [("POST", "/", b"{}")]),
    "one after the other": (
        length(b"{}") + GET + CHUNKED + b"1\r\n7\r\n0\r\n\r\n" + GET,
        [
            ("POST", "/", b"{}"),
            ("GET", "/health", b""),
            ("POST", "/", b"7"),
            ("GET", "/health", b""),
        ],
    ),
    "empty lines before": (b"\r\n\r\n" + GET + b"\r\n" + GET, [("GET", "/health", b"")] * 2),
    "a query": (GET.replace(b"health", b"health?a=/b"), [("GET", "/health", b"")]),
    "escapes": (GET.replace(b"health", b"%68ealth"), [("GET", "/health", b"")]),
    "an absolute target": (
        GET.replace(b"/health", b"http://x:1/health?"),
        [("GET", "/health", b"")],
    ),
    "a host alone": (GET.replace(b"/health", b"http://x"), [("GET", "/", b"")]),
    "an upgrade that is not had": (
        GET.replace(HOST, HOST + b"Connection: Upgrade\r\nUpgrade: h2c\r\n") + GET,
        [("GET", "/health", b"")] * 2,
    ),
    "the same length twice": (
        POST + b"Content-Length: 2\r\nContent-Length: 2\r\n\r\n{}",
        [("POST", "/", b"{}")],
    ),
    "HTTP/1.0": (b"GET /health HTTP/1.0\r\n\r\n\r\n", [("GET", "/health", b"")]),
    "the last one": (
        GET.replace(HOST, HOST + b"Connection: close\r\n"),
        [("GET", "/health", b"")],
    ),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", READ)
def test_what_is_read(name: str, way: str) -> None:
    wire, expected = READ[name]
    conversation = converse(WAYS[way](wire))
    assert conversation.refused is None
    assert [(r.method, r.path, r.body) for r in conversation.requests] == expected
    # Each was answered once, in order.
    bodies = re.findall(rb"\r\n\r\n(\d)", conversation.told)
    assert bodies == [b"%d" % n for n in range(1, len(expected) + 1)]
    over = name in ("HTTP/1.0", "the last one")
    assert (conversation.session.stage is Stage.OVER) == over
    assert (b"connection: close" in conversation.told.lower()) == over


def test_headers_are_found_by_their_name_in_lower_case() -> None:
    wire = GET.replace(
        HOST, HOST + b"ovirtCorrelationId: \xc5\xbe \r\nA: 1\r\na: 2\r\nbad: \xff\r\n"
    )
    (request,) = converse([wire]).requests
    assert request.headers == {
        "host": "x",
        "ovirtcorrelationid": "ž",
        "a": "2",
        "bad": "\N{REPLACEMENT CHARACTER}",
    }


# --- what is refused -----------------------------------------------------------------------------

ROTTEN = {
    # One request that may be read as two.
    "a length and chunks": (
        POST + b"Content-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n",
        "both",
    ),
    "chunks and a length": (
        POST + b"Transfer-Encoding: chunked\r\nContent-Length: 2\r\n\r\n",
        "both",
    ),
    "two lengths": (POST + b"Content-Length: 2\r\nContent-Length: 3\r\n\r\n", "conflicting"),
    "a list of lengths": (POST + b"Content-Length: 2, 3\r\n\r\n", "conflicting"),
    "a length with a sign": (POST + b"Content-Length: +2\r\n\r\n", "bad Content-Length"),
    "a negative length": (POST + b"Content-Length: -1\r\n\r\n", "bad Content-Length"),
    "a length in hex": (POST + b"Content-Length: 0x2\r\n\r\n", "bad Content-Length"),
    "a length with a blank": (POST + b"Content-Length: 1 0\r\n\r\n", "bad Content-Length"),
    "no length": (POST + b"Content-Length:\r\n\r\n", "bad Content-Length"),
    "a length of 4,000 digits": (POST + b"Content-Length: " + b"9" * 4000 + b"\r\n\r\n", "bad"),
    "an unknown coding": (POST + b"Transfer-Encoding: gzip\r\n\r\n", "only Transfer-Encoding"),
    "chunked is not the last": (
        POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n",
        "only Transfer",
    ),
    "chunked in disguise": (
        POST + b"Transfer-Encoding: xchunked\r\n\r\n",
        "only Transfer-Encoding",
    ),
    "chunked twice": (
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "multiple Transfer-Encoding",
    ),
    "chunks in HTTP/1.0": (
        b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.0 has no Transfer-Encoding",
    ),
    "a blank before the colon": (POST + b"Content-Length : 2\r\n\r\n", "illegal header line"),
    "a blank in a name": (POST + b"Content Length: 2\r\n\r\n", "illegal header line"),
    "a header without a name": (POST + b": 2\r\n\r\n", "illegal header line"),
    "a header without a colon": (POST + b"Content-Length\r\n\r\n", "illegal header line"),
    "a folded header": (POST + b"a: b\r\n c\r\n\r\n", "goes on in the next"),
    "a folded header, by a tab": (POST + b"a: b\r\n\tc\r\n\r\n", "goes on in the next"),
    "a blank before the first header": (
        b"POST / HTTP/1.1\r\n Content-Length: 2\r\n\r\n",
        "goes on in the next",
    ),
    "LF alone": (POST.replace(b"\r\n", b"\n"), "ends without CR"),
    "LF alone, once": (POST + b"a: b\nContent-Length: 2\r\n\r\n", "ends without CR"),
    "LF alone, at the end": (POST + b"\n", "ends without CR"),
    "CR alone": (POST + b"a: b\rContent-Length: 2\r\n\r\n", "illegal header line"),
    "NUL in a header": (POST + b"a: \0\r\n\r\n", "illegal header line"),
    "NUL in a name": (POST + b"a\0: b\r\n\r\n", "illegal header line"),
    "NUL in the target": (b"POST /\0 HTTP/1.1\r\n\r\n", "illegal request line"),
    "a name that is not ASCII": (POST + b"\xc5\xbe: b\r\n\r\n", "illegal header line"),
    # What is no request.
    "no target": (b"POST HTTP/1.1\r\n\r\n", "illegal request line"),
    "no version": (b"GET /\r\n\r\n", "illegal request line"),
    "two blanks": (b"GET  / HTTP/1.1\r\n\r\n", "illegal request line"),
    "a target that is not ASCII": (b"GET /\xc5\xbe HTTP/1.1\r\n\r\n", "illegal request line"),
    "HTTP/0.9": (b"GET / HTTP/0.9\r\n\r\n", "its version is neither"),
    "HTTP/2": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "its version is neither"),
    "no host": (b"GET /health HTTP/1.1\r\n\r\n", "missing mandatory Host"),
    "two hosts": (GET.replace(HOST, HOST * 2), "multiple Host"),
    "TLS": (b"\x16\x03\x01\x02\0\x01\0\x01\xfc\r\n\r\n", "illegal request line"),
    # What has no end.
    "a head without an end": (POST + b"a: " + b"x" * HEAD_BYTES, "larger than 16384 bytes"),
    "a head one byte too long": (
        POST + b"a: " + b"x" * (HEAD_BYTES - len(POST) - 6) + b"\r\n\r\n",
        "larger than 16384 bytes",
    ),
    "a target without an end": (b"GET /" + b"x" * HEAD_BYTES, "larger than 16384 bytes"),
    "too many headers": (POST + b"a:b\r\n" * HEAD_LINES + b"\r\n", "or 100 lines"),
    # Chunks that are none.
    "no chunk": (CHUNKED + b"xyz\r\n", "illegal chunk header"),
    "a negative chunk": (CHUNKED + b"-1\r\n", "illegal chunk header"),
    "a chunk's size in 0x": (CHUNKED + b"0x1\r\n", "illegal chunk header"),
    "a blank before a chunk": (CHUNKED + b" 1\r\n7\r\n", "illegal chunk header"),
    "a chunk's size of 21 digits": (CHUNKED + b"0" * 20 + b"1\r\n", "illegal chunk header"),
    "a chunk's LF alone": (CHUNKED + b"1\n7\r\n0\r\n\r\n", "illegal chunk header"),
    "a chunk longer than it says": (CHUNKED + b"1\r\n77\r\n0\r\n\r\n", "malformed chunk footer"),
    "a chunk's end without CR": (CHUNKED + b"1\r\n7\n0\r\n\r\n", "malformed chunk footer"),
    "a chunk's size without an end": (
        CHUNKED + b"1;" + b"x" * HEAD_BYTES * 2,
        "receive buffer too long",
    ),
    "trailers without an end": (
        CHUNKED + b"0\r\n" + b"a: b\r\n" * HEAD_BYTES,
        "receive buffer too long",
    ),
    "a trailer that is none": (CHUNKED + b"0\r\na b\r\n\r\n", "illegal header line"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", ROTTEN)
def test_what_is_refused_and_why(name: str, way: str) -> None:
    wire, reason = ROTTEN[name]
    # What follows is not read as a request.
    conversation = converse(WAYS[way](length(b"{}") + wire + GET))
    assert [r.body for r in conversation.requests] == [b"{}"]
    refused = conversation.refused
    assert refused is not None
    assert refused.status == 400
    assert reason in str(refused)
    assert conversation.session.stage is Stage.OVER
    assert b"HTTP/1.1 400 Bad Request\r\n" in conversation.told
    assert b"\r\nConnection: close\r\n" in conversation.told
    assert conversation.told.endswith(str(refused).encode())


def test_a_body_longer_than_the_last_request_says_is_not_run() -> None:
    body = POST.replace(HOST, HOST + b"Connection: close\r\n") + b"Content-Length: 2\r\n\r\n{}}"
    conversation = converse([body])
    assert not conversation.requests
    assert "more follows than its length says" in str(conversation.refused)
    # Once it is answered, what comes later is not looked at.
    assert len(converse([body[:-1], body[-1:]]).requests) == 1


LARGE = {
    "a length": POST + b"Content-Length: %d\r\n\r\n" % (MAX_BODY + 1),
    "an absurd length": POST + b"Content-Length: 99999999999999999999\r\n\r\n",
    "a chunk": CHUNKED + b"%x\r\n" % (MAX_BODY + 1) + b"x" * (MAX_BODY + 1),
    "an absurd chunk": CHUNKED + b"F" * 16 + b"\r\n" + b"x" * (MAX_BODY + 1),
    "many chunks": CHUNKED + b"1\r\nx\r\n" * (MAX_BODY + 1),
    "a length, asked for": POST + b"Expect: 100-continue\r\nContent-Length: 65\r\n\r\n",
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", LARGE)
def test_what_is_too_large(name: str, way: str) -> None:
    conversation = converse(WAYS[way](LARGE[name]))
    assert not conversation.requests
    assert conversation.refused is not None
    assert conversation.refused.status == 413
    assert conversation.told.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    ("wire", "requests", "refused"),
    [
        (b"", 0, None),
        (b"\r\n", 0, None),
        (GET, 1, None),
        (GET + b"GET /hea", 1, "it ends before its headers do"),
        (POST + b"Content-Length: 10\r\n\r\n{}", 0, "without sending complete message body"),
        (CHUNKED + b"2\r\n{}\r\n", 0, "without sending complete message body"),
        (CHUNKED + b"2\r\n{}\r\n0\r\n", 0, "without sending complete message body"),
    ],
)
def test_a_client_that_sends_no_more(wire: bytes, requests: int, refused: str | None) -> None:
    conversation = converse([wire], ended=True)
    assert len(conversation.requests) == requests
    assert (conversation.refused is None) == (refused is None)
    assert refused is None or refused in str(conversation.refused)


def test_who_asks_for_a_go_ahead_gets_it_once() -> None:
    conversation = Conversation(MAX_BODY)
    head = POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
    conversation.say(head)
    assert conversation.told == b"HTTP/1.1 100 \r\n\r\n"
    conversation.say(b"{")
    conversation.say(b"}")
    assert conversation.told.count(b"HTTP/1.1 100") == 1
    assert conversation.requests[0].body == b"{}"


def test_no_go_ahead_for_a_body_that_is_there() -> None:
    wire = POST + b"Expect: 100-continue\r\nContent-Length: 2\r\n\r\n{}"
    conversation = converse([wire])
    assert len(conversation.requests) == 1
    assert b" 100 " not in conversation.told


def test_a_request_that_is_not_admitted_is_refused_before_its_body() -> None:
    def admit(request: Request) -> None:
        raise Refused(405, f"no {request.method}", {"Allow": "GET"})

    session = HttpSession(admit, MAX_BODY)
    session.receive(POST + b"Content-Length: 10\r\nExpect: 100-continue\r\n\r\n")
    with pytest.raises(Refused, match="no POST") as e:
        session.next_request()
    assert b"\r\nAllow: GET\r\n" in session.answer(405, e.value.headers, b"x", last=True)


def test_the_answer_to_head_has_no_body() -> None:
    conversation = converse([GET.replace(b"GET", b"HEAD") + GET])
    head, rest = conversation.told.split(b"\r\n\r\n", 1)
    assert b"Content-Length: 1" in head
    assert rest.startswith(b"HTTP/1.1 200")


def test_what_is_said_after_a_refusal_is_forgotten() -> None:
    conversation = converse([b"nonsense\r\n\r\n"])
    for _ in range(100):
        conversation.say(bytes(65536))
    assert conversation.session.unread == 0


def test_nothing_of_a_request_is_in_its_refusal() -> None:
    for wire in (
        POST + b"key \0: AQBSECRET==\r\n\r\n",
        b"SECRET\0 / HTTP/1.1\r\n\r\n",
        CHUNKED + b"SECRET\r\n",
        CHUNKED + b"1\r\nxSECRET\r\n",
    ):
        assert b"SECRET" not in converse([wire]).told
