# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever is thrown at a real daemon: it ends the connection with a word, and serves the others.

The daemon is a process of its own on libvirt's test driver, so that its memory can be measured.
"""

from __future__ import annotations

import json
import resource
import selectors
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.host.local import LocalDaemon
from tests.unit.transport.serving import client_tls
from tests.unit.transport.talking import (
    CONNECT,
    MIB,
    POST,
    SEND,
    SUBSCRIBE,
    Client,
    call,
    connect,
    post,
    send,
)
from vdsmcinder.stomp.frames import Decoder, Limits

# What one hostile client may make of the daemon's memory, for good: frames of 1 MiB, and what they
# become as objects, are let go of. Python's allocator does not give all of it back.
MAY_GROW = 48 * MIB


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalDaemon]:
    # A soft limit as small as many systems have it.
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = ("prlimit", f"--nofile=256:{hard}")
    with LocalDaemon(tmp_path_factory.mktemp("daemon"), wrapper=few) as daemon:
        # What is loaded and allocated at first use is no growth.
        with Client(daemon) as client:
            client.ping()
        assert ask(daemon, post(call("Host.ping2"))).startswith(b"HTTP/1.1 200")
        yield daemon
    assert "Traceback" not in daemon.log.read_text()


@pytest.fixture
def bystander(daemon: LocalDaemon) -> Iterator[Client]:
    """Another client, which must not notice."""
    with Client(daemon) as client:
        client.ping()
        yield client
        client.ping()


@pytest.fixture(autouse=True)
def bounded(daemon: LocalDaemon) -> Iterator[None]:
    """The daemon's memory is what it was, after each test."""
    before = daemon.resident_bytes()
    yield
    assert daemon.runs
    assert daemon.resident_bytes() - before < MAY_GROW


def ask(daemon: LocalDaemon, *said: bytes, then: Client | None = None) -> bytes:
    """All that the daemon answers, until it hangs up; it may do so while it is told more.

    then: pings between what is said, because nothing may delay it.
    """
    answer = b""
    with connect(daemon) as connection:
        try:
            for part in said:
                connection.sendall(part)
                if then is not None:
                    then.ping()
            while data := connection.recv(1 << 18):
                answer += data
        except (BrokenPipeError, ConnectionResetError):
            while data := _rest(connection):
                answer += data
    return answer


def _rest(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1 << 18)
    except ConnectionResetError:
        return b""


# --- STOMP -------------------------------------------------------------------------------------

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


@pytest.mark.parametrize("name", STOMP)
def test_an_error_frame_says_what_was_wrong(
    daemon: LocalDaemon, bystander: Client, name: str
) -> None:
    wire, words = STOMP[name]
    decoder = Decoder(Limits(frame=64 * MIB))
    middle = len(wire) // 2
    decoder.receive(ask(daemon, wire[:middle], wire[middle:], then=bystander))
    frames = list(iter(decoder.next_frame, None))
    assert frames[-1].command == "ERROR"
    assert words in frames[-1].body.decode()
    assert "ERROR" not in [f.command for f in frames[:-1]]


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


@pytest.mark.parametrize("name", BODIES)
def test_what_is_not_json_gets_a_reply_that_says_so(
    daemon: LocalDaemon, bystander: Client, name: str
) -> None:
    body, words = BODIES[name]
    with Client(daemon) as client:
        reply = client.ask(body)
        assert (reply["id"], reply["error"]["code"]) == (None, -32700)
        assert words in reply["error"]["message"]
        client.ping()
    answer = ask(daemon, post(body), then=bystander)
    assert json.loads(answer.partition(b"\r\n\r\n")[2]) == reply


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


@pytest.mark.parametrize("name", LARGE)
def test_large_requests_are_answered_and_forgotten(
    daemon: LocalDaemon, bystander: Client, name: str
) -> None:
    with Client(daemon) as client:
        for _ in range(20):
            reply = client.ask(LARGE[name])
            bystander.ping()
            assert "result" in reply or reply["error"]["code"] in (-32600, -32601, -32602, 1, 1100)


# --- HTTP --------------------------------------------------------------------------------------

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


@pytest.mark.parametrize("name", HTTP)
def test_an_http_status_says_what_was_wrong(
    daemon: LocalDaemon, bystander: Client, name: str
) -> None:
    wire, status = HTTP[name]
    middle = len(wire) // 2
    answer = ask(daemon, wire[:middle], wire[middle:], then=bystander)
    assert int(answer.split()[1]) == status


# --- TLS ---------------------------------------------------------------------------------------


def test_half_handshakes_keep_nobody_out(tmp_path: Path) -> None:
    with LocalDaemon(tmp_path, {"listen": {"tls": True}}) as daemon:
        engine = client_tls(daemon.pki, daemon.pki.engine)
        with Client(daemon, engine) as client:
            before = daemon.resident_bytes()
            halves = [connect(daemon) for _ in range(300)]
            for half in halves:
                half.sendall(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(40))
            client.ping()
            with Client(daemon, engine) as another:
                another.ping()
            assert daemon.resident_bytes() - before < MAY_GROW
            for half in halves:
                half.close()


# --- many, and much ----------------------------------------------------------------------------


def test_a_thousand_connections_lose_nothing(daemon: LocalDaemon) -> None:
    """1,000 connections with 4 requests in flight each: each gets its own 4 replies, once."""
    soft, hard = daemon.open_files_limit()
    assert soft == hard
    _, ours = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (ours, ours))
    before = daemon.resident_bytes()
    crowd = [Client(daemon) for _ in range(1000)]
    for number, client in enumerate(crowd):
        verbs = ("Host.ping2", "Host.echo", "Host.getStats", "Host.getVMList")
        requests = [call(v, f"{number}/{n}", message=str(number)) for n, v in enumerate(verbs)]
        client.socket.sendall(b"".join(map(send, requests)))
    for number, client in enumerate(crowd):
        replies = [json.loads(client.read().body) for _ in range(4)]
        assert Counter(r["id"] for r in replies) == Counter(f"{number}/{n}" for n in range(4))
        assert {r["result"] for r in replies if r["id"].endswith("/1")} == {str(number)}
        assert all("result" in r for r in replies)
    assert daemon.resident_bytes() - before < 100 * MIB
    readable = selectors.DefaultSelector()
    for client in crowd:
        readable.register(client.socket, selectors.EVENT_READ)
        client.ping()
    assert readable.select(0) == []  # nothing was answered twice
    for client in crowd:
        client.socket.close()


@pytest.mark.parametrize("verb", ["Host.ping2", "Host.getCapabilities"])
def test_a_flood_is_answered_in_full_or_refused(
    daemon: LocalDaemon, bystander: Client, verb: str
) -> None:
    """10,000 requests by who does not read meanwhile; what exceeds the queue gets code 1100."""
    with Client(daemon) as flooder:
        flooder.socket.sendall(b"".join(send(call(verb, n)) for n in range(10_000)))
        for _ in range(100):
            bystander.ping()
        replies = [json.loads(flooder.read().body) for _ in range(10_000)]
        assert sorted(r["id"] for r in replies) == list(range(10_000))
        refused = [r["error"]["code"] for r in replies if "error" in r]
        assert set(refused) <= {1100}
        assert (len(refused) > 0) == (verb == "Host.getCapabilities")
        flooder.ping()


def test_who_floods_and_hangs_up_leaves_nothing(daemon: LocalDaemon, bystander: Client) -> None:
    for _ in range(5):
        flooder = Client(daemon)
        flooder.socket.sendall(b"".join(send(call("Host.getCapabilities")) for _ in range(2000)))
        flooder.socket.close()
        bystander.ping()
