# SPDX-License-Identifier: GPL-2.0-or-later
"""Whatever is thrown at a real daemon: it ends the connection with a word, and serves the others.

The daemon is a process of its own on libvirt's test driver, so that its memory can be measured.
"""

from __future__ import annotations

import json
import resource
import selectors
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.host.local import LocalDaemon
from tests.unit.transport import hostile
from tests.unit.transport.serving import client_tls
from tests.unit.transport.talking import (
    MIB,
    Client,
    call,
    connect,
    post,
    send,
)

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
        assert hostile.ask(daemon, post(call("Host.ping2"))).startswith(b"HTTP/1.1 200")
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


# --- STOMP -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", hostile.STOMP)
def test_an_error_frame_says_what_was_wrong(
    daemon: LocalDaemon, bystander: Client, name: str
) -> None:
    hostile.check_stomp(name, daemon, bystander)


@pytest.mark.parametrize("name", hostile.BODIES)
def test_what_is_not_json_gets_a_reply_that_says_so(
    daemon: LocalDaemon, bystander: Client, name: str
) -> None:
    hostile.check_body(name, daemon, bystander)


@pytest.mark.parametrize("name", hostile.LARGE)
def test_large_requests_are_answered_and_forgotten(
    daemon: LocalDaemon, bystander: Client, name: str
) -> None:
    hostile.check_large(name, daemon, bystander)


# --- HTTP --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", hostile.HTTP)
def test_an_http_status_says_what_was_wrong(
    daemon: LocalDaemon, bystander: Client, name: str
) -> None:
    hostile.check_http(name, daemon, bystander)


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
