# SPDX-License-Identifier: GPL-2.0-or-later
"""What hostile clients send, and what they are told: for a daemon of the tree and one of a package.

Each entry says what it is; wire forms are whole connections, bodies are those of one request.
"""

from __future__ import annotations

import json
import socket
import ssl

from tests.unit.transport.talking import (
    CONNECT,
    MIB,
    POST,
    SEND,
    SUBSCRIBE,
    Client,
    Served,
    Tls,
    call,
    connect,
    post,
    send,
)
from vdsmcinder.stomp.frames import Decoder, Frame, Limits

# How a connection ends whose daemon has hung up.
GONE = (BrokenPipeError, ConnectionResetError, ssl.SSLError)

GARBAGE = bytes(range(1, 256)) * 256
HEADERS = b"".join(b"header-%d:value\n" % n for n in range(100_000))

STOMP = {
    "garbage": (GARBAGE, "expected a STOMP command"),
    "TLS to the plain port": (b"\x16\x03\x01\x02\0\x01\0\x01\xfc", "followed by NUL"),
    "garbage after CONNECT": (CONNECT + GARBAGE, "expected a STOMP command"),
    "1 GB announced": (
        CONNECT + SUBSCRIBE + SEND + b"content-length:1000000000\n\n" + bytes(4 * MIB),
        "expected at most 1048576 bytes",
    ),
    "1 GB announced in CONNECT": (
        b"CONNECT\naccept-version:1.2\ncontent-length:1000000000\n\n" + bytes(4 * MIB),
        "expected at most 1048576 bytes",
    ),
    "a length of 4,000 digits": (
        CONNECT + SEND + b"content-length:" + b"9" * 4000 + b"\n\n",
        "expected a decimal number",
    ),
    "a negative length": (CONNECT + SEND + b"content-length:-1\n\n\0", "expected a decimal number"),
    "a body that does not end": (
        CONNECT + SUBSCRIBE + SEND + b"\n" + b"x" * 8 * MIB,
        "expected at most 1048576 bytes",
    ),
    "100,000 headers": (CONNECT + b"SEND\n" + HEADERS + b"\n\0", "expected at most that many"),
    "100,000 headers in CONNECT": (b"CONNECT\n" + HEADERS + b"\n\0", "expected at most that many"),
    "a header of 1 MB": (
        CONNECT + b"SEND\nheader:" + b"x" * MIB + b"\n\n\0",
        "longer than 8192 bytes",
    ),
    "a command of 1 MB": (CONNECT + b"S" * MIB, "expected"),
    "headers that are not UTF-8": (CONNECT + b"SEND\nheader:\xc3\x28\n\n\0", "expected UTF-8"),
    "NUL in the head": (CONNECT + b"SEND\nhead\0er:value\n\n\0", "is followed by NUL"),
    "NUL too early": (CONNECT + b"SEND\n\0", "is followed by NUL"),
    "NUL too late": (CONNECT + SEND + b"content-length:2\n\n{}{}\0", "expected NUL there"),
    "many NULs": (CONNECT + bytes(MIB), "followed by NUL"),
    "an unknown escape": (CONNECT + b"SEND\nheader:\\t\n\n\0", "expected one of"),
    "a million keys": (
        CONNECT + SUBSCRIBE + send(json.dumps({f"k{n}": n for n in range(1_000_000)}).encode()),
        "expected at most 1048576 bytes",
    ),
    "too many subscriptions": (
        CONNECT + b"".join(b"SUBSCRIBE\nid:%d\ndestination:x\n\n\0" % n for n in range(33)),
        "expected at most 32",
    ),
}

BODIES = {
    "arrays 100,000 deep": (b"[" * 100_000, "nested too deeply"),
    "objects 100,000 deep": (b'{"a":' * 100_000, "nested too deeply"),
    "params 100,000 deep": (
        b'{"jsonrpc":"2.0","method":"Host.echo","id":1,"params":[%b1%b]}'
        % (b"[" * 100_000, b"]" * 100_000),
        "nested too deeply",
    ),
    "not UTF-8": (b'{"jsonrpc":"2.0","method":"\xff"}', "is not UTF-8"),
    "a NUL": (b'{"jsonrpc":"2.0",\0}', "is not JSON"),
    "NULs": (bytes(100_000), "is not JSON"),
    "a number of 100,000 digits": (b"9" * 100_000, "too long"),
    "a string that does not end": (b'"' + b"x" * 900_000, "is not JSON"),
    "1 MB of commas": (b"[" + b"," * 1_000_000, "is not JSON"),
}

# As much as a frame may hold of what becomes largest in memory.
LARGE = {
    "keys": call("Host.echo", message="x", **{f"{n:x}": n for n in range(70_000)}),
    "empty objects": call("Host.echo", message="x", more=[{} for _ in range(250_000)]),
    "a batch": json.dumps([{}] * 260_000).encode(),
    "a list": json.dumps([0] * 340_000).encode(),
    "a verb's name": call("V" * 1_000_000),
    "an id": call("Host.ping2", "x" * 1_000_000),
    "a vmID": call("VM.getStats", 1, vmID="x" * 1_000_000),
    "nesting": call("Host.echo", message="x", more=json.loads("[" * 400 + "]" * 400)),
    "nesting in place of text": call("Host.echo", message=json.loads("[" * 900 + "]" * 900)),
}

HTTP = {
    "1 GB announced": (POST + b"Content-Length: 1000000000\r\n\r\n" + bytes(4 * MIB), 413),
    "a body that does not end": (
        POST + b"Transfer-Encoding: chunked\r\n\r\n" + (b"10000\r\n%b\r\n" % bytes(65536)) * 64,
        413,
    ),
    "a million keys": (post(json.dumps({f"k{n}": n for n in range(1_000_000)}).encode()), 413),
    "100,000 headers": (b"POST / HTTP/1.1\r\n" + HEADERS.replace(b"\n", b"\r\n") + b"\r\n", 400),
    "a header of 1 MB": (POST + b"x: " + b"x" * MIB + b"\r\n\r\n", 400),
    "a path of 1 MB": (b"POST /" + b"x" * MIB + b" HTTP/1.1\r\n\r\n", 400),
    "NUL in a header": (POST + b"x: \0\r\n\r\n", 400),
    "headers that are not UTF-8": (b"POST / HTTP/1.1\r\n\xff\xfe: x\r\n\r\n", 400),
    "a wrong version": (b"POST / HTTP/9.9\r\n\r\n", 400),
    "a negative length": (POST + b"Content-Length: -1\r\n\r\n", 400),
    "two lengths": (POST + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400),
    "a length and chunks": (
        POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        400,
    ),
    "a wrong chunk": (POST + b"Transfer-Encoding: chunked\r\n\r\nxyz\r\n\r\n", 400),
}


def check_stomp(name: str, daemon: Served, bystander: Client, tls: Tls = None) -> None:
    """Of STOMP: the last that is said before the daemon hangs up is an ERROR that says why."""
    wire, words = STOMP[name]
    decoder = Decoder(Limits(frame=64 * MIB))
    middle = len(wire) // 2
    decoder.receive(ask(daemon, wire[:middle], wire[middle:], then=bystander, tls=tls))
    frames: list[Frame] = list(iter(decoder.next_frame, None))
    assert frames[-1].command == "ERROR"
    assert words in frames[-1].body.decode()
    assert "ERROR" not in [f.command for f in frames[:-1]]


def check_body(name: str, daemon: Served, bystander: Client, tls: Tls = None) -> None:
    """Of BODIES: a reply says what was wrong, the same over STOMP and HTTP."""
    body, words = BODIES[name]
    with Client(daemon, tls) as client:
        reply = client.ask(body)
        assert (reply["id"], reply["error"]["code"]) == (None, -32700)
        assert words in reply["error"]["message"]
        client.ping()
    answer = ask(daemon, post(body), then=bystander, tls=tls)
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == reply


def check_large(name: str, daemon: Served, bystander: Client, tls: Tls = None) -> None:
    """Of LARGE: answered twenty times, one way or the other."""
    with Client(daemon, tls) as client:
        for _ in range(20):
            reply = client.ask(LARGE[name])
            bystander.ping()
            assert "result" in reply or reply["error"]["code"] in (-32600, -32601, -32602, 1, 1100)


def check_http(name: str, daemon: Served, bystander: Client, tls: Tls = None) -> None:
    """Of HTTP: the status says what was wrong."""
    wire, status = HTTP[name]
    middle = len(wire) // 2
    answer = ask(daemon, wire[:middle], wire[middle:], then=bystander, tls=tls)
    assert int(answer.split()[1]) == status


def ask(daemon: Served, *said: bytes, then: Client | None = None, tls: Tls = None) -> bytes:
    """All that the daemon answers, until it hangs up; it may do so while it is told more.

    then: pings between what is said, because nothing may delay it.
    """
    answer = b""
    with connect(daemon, tls) as connection:
        try:
            for part in said:
                connection.sendall(part)
                if then is not None:
                    then.ping()
            while data := connection.recv(1 << 18):
                answer += data
        except GONE:
            while data := _rest(connection):
                answer += data
    return answer


def _rest(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1 << 18)
    except GONE:
        return b""
