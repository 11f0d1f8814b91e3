# SPDX-License-Identifier: GPL-2.0-or-later
"""One client, one share: of connections, of memory, and of the daemon's patience."""

from __future__ import annotations

import asyncio
import json
import socket
from pathlib import Path

import pytest

from tests.unit.transport.serving import listening, read_frames, stop_reading, until
from vdsmcinder.config import Listen
from vdsmcinder.rpc.dispatch import Caller
from vdsmcinder.stomp.client import connect
from vdsmcinder.transport import newcomers, shares
from vdsmcinder.transport.newcomers import Newcomers
from vdsmcinder.transport.protocol_detect import Spoken
from vdsmcinder.transport.shares import Shares

MIB = 1024 * 1024


class Standing:
    """A connection of a client with that name; it tells what became of it."""

    def __init__(self, shares: Shares, name: str) -> None:
        self.caller = Caller("192.0.2.7:1", f"CN={name}", "stomp")
        self.written_bytes = self.unread = self.received = 0
        self.refused = self.dropped = ""
        self._shares = shares
        shares.enter(self)

    def unread_bytes(self) -> int:
        return self.unread

    def held_bytes(self) -> int:
        return self.unread + self.received

    def refuse(self, reason: str) -> None:
        self.refused = reason
        self._shares.leave(self)

    def drop(self, why: str) -> None:
        self.dropped = why
        self._shares.leave(self)

    def holds(self, unread: int, received: int = 0) -> None:
        self.unread, self.received = unread, received
        self._shares.note(self)


def limited(connections: int = 10, held: int = 10 * MIB) -> Shares:
    return Shares(Listen(max_connections=connections, max_held_bytes=held))


# --- connections -------------------------------------------------------------------------------


def test_a_client_has_half_of_the_connections_at_most() -> None:
    shares = limited(10)
    greedy = [Standing(shares, "greedy") for _ in range(8)]
    assert [bool(one.refused) for one in greedy] == [False] * 5 + [True] * 3
    assert "half of what option listen.max_connections (10) allows" in greedy[-1].refused
    assert not any(Standing(shares, "engine").refused for _ in range(5))


def test_who_has_most_connections_makes_room_for_others() -> None:
    shares = limited(10)
    greedy = [Standing(shares, "greedy") for _ in range(5)]
    others = [Standing(shares, f"another {n}") for n in range(7)]
    assert [bool(one.refused) for one in greedy] == [False] * 3 + [True] * 2
    assert not any(one.refused for one in others)
    # Of those that come beyond that, whose client has most already is refused itself.
    assert Standing(shares, "greedy").refused


def test_what_has_left_makes_room() -> None:
    shares = limited(4)
    for _ in range(100):
        one = Standing(shares, "engine")
        one.holds(5, 6)
        shares.leave(one)
        shares.leave(one)
        shares.note(one)
    assert (shares.held, shares._clients) == (0, {})
    assert [Standing(shares, "engine").refused for _ in range(2)] == ["", ""]


@pytest.mark.parametrize(
    "first", [b"CONNECT\naccept-version:1.2\n\n\0", b"GET /health HTTP/1.1\r\n"]
)
async def test_who_is_one_too_many_is_told(tmp_path: Path, first: bytes) -> None:
    async with listening(tmp_path, max_connections=4) as host:
        standing = [await connect("127.0.0.1", host.port) for _ in range(2)]
        reader, writer = await host.raw()
        writer.write(first)
        told = await reader.read()
        assert told.startswith((b"ERROR\n", b"HTTP/1.1 503"))
        assert b"has 2 connections, half of what option listen.max_connections (4) allows" in told
        writer.close()
        for engine in standing:
            assert await engine.call("echo") == {}
            await engine.close()
        await until(lambda: not any(host.listener.connections.values()), "they did not go")
        another = await connect("127.0.0.1", host.port)
        await another.close()


# --- memory ------------------------------------------------------------------------------------


def test_a_client_holds_half_of_the_memory_at_most_on_whatever_many_connections() -> None:
    shares = limited(1000, 10 * MIB)
    engine = Standing(shares, "engine")
    engine.holds(MIB)
    greedy = [Standing(shares, "greedy") for _ in range(100)]
    for number, one in enumerate(greedy):
        one.holds(unread=number * 2048, received=number * 1024)
        assert shares.held <= engine.held_bytes() + 5 * MIB
    assert not engine.dropped
    assert "more than half of it" in next(one.dropped for one in greedy if one.dropped)
    # Those that held most had to go.
    held = [one.held_bytes() for one in greedy if not one.dropped]
    assert max(held) <= min(one.held_bytes() for one in greedy if one.dropped)


def test_of_all_clients_the_one_with_most_has_to_give_way() -> None:
    shares = limited(1000, 10 * MIB)
    clients = [Standing(shares, f"client {n}") for n in range(11)]
    clients[3].holds(2 * MIB)
    for one in (*clients[:3], *clients[4:]):
        one.holds(MIB)
    assert [n for n, one in enumerate(clients) if one.dropped] == [3]
    assert shares.held == 10 * MIB


def test_what_was_read_meanwhile_counts_no_more() -> None:
    shares = limited(1000, 10 * MIB)
    one, other = Standing(shares, "engine"), Standing(shares, "engine")
    one.holds(4 * MIB)
    one.unread = 0  # nobody was told
    other.holds(4 * MIB)
    assert not one.dropped and not other.dropped
    assert shares.held == 4 * MIB


async def test_clients_together_hold_no_more_than_they_may(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """On real sockets: each leaves less unread than a connection may, all of them too much."""
    async with listening(tmp_path, max_held_bytes=2 * MIB, max_buffer_bytes=64 * MIB) as host:
        streams = []
        for _ in range(8):
            reader, writer = await host.raw()
            writer.write(
                b"CONNECT\naccept-version:1.2\n\n\0SUBSCRIBE\nid:r\ndestination:replies\n\n\0"
            )
            await read_frames(reader, 1)
            stop_reading(writer)
            small = (socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            writer.get_extra_info("socket").setsockopt(*small)
            streams.append(writer)
        for connection in host.listener._stomp.connections:
            small = (socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            connection._transport.get_extra_info("socket").setsockopt(*small)
        body = {"jsonrpc": "2.0", "method": "big", "params": {"size": 400_000}, "id": 1}
        for number, writer in enumerate(streams):
            writer.write(
                b"SEND\ndestination:jms.topic.vdsm_requests\nreply-to:replies\n\n%b\0"
                % json.dumps(body).encode()
            )
            await until(lambda n=number: len(host.verbs.calls) > n, "no call")  # type: ignore[misc]
            assert host.listener.held_bytes <= MIB
        assert host.listener.deliveries[Spoken.STOMP].clients_dropped >= 5
        assert "listen.max_held_bytes (2097152) allows" in caplog.text
        engine = await connect("127.0.0.1", host.port)
        assert await engine.call("echo") == {}
        await engine.close()
        for writer in streams:
            writer.transport.abort()


# --- patience ----------------------------------------------------------------------------------


def test_who_reads_nothing_between_two_looks_is_dropped() -> None:
    shares = limited()
    deaf, slow, idle = (Standing(shares, name) for name in ("deaf", "slow", "idle"))
    for one in (deaf, slow):
        one.written_bytes = one.unread = 1000
    shares.look()
    deaf.written_bytes += 50
    deaf.unread += 50
    slow.written_bytes += 50
    slow.unread += 49
    shares.look()
    assert "read none of them" in deaf.dropped
    assert not slow.dropped and not idle.dropped
    # What was read in full is no reason to be dropped for what comes then.
    slow.unread = 0
    shares.look()
    slow.written_bytes += 10
    slow.unread = 10
    shares.look()
    assert not slow.dropped


async def test_the_look_comes_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shares, "LOOK_S", 0.001)
    found = limited()
    found.start()
    deaf = Standing(found, "deaf")
    deaf.written_bytes = deaf.unread = 1
    await until(lambda: deaf.dropped, "nobody looked")
    found.close()


@pytest.mark.parametrize("path", ["/events", "/"])
async def test_http_clients_that_do_not_read_are_dropped_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    async with listening(tmp_path, max_buffer_bytes=64 * MIB) as host:
        _, writer = await host.raw()
        stop_reading(writer)
        if path == "/events":
            writer.write(b"GET /events HTTP/1.1\r\nHost: x\r\n\r\n")
            await until(lambda: host.listener._http._streams._streams, "no stream began")
            host.events.publish("event", {"filler": "x" * 10 * MIB})
        else:
            body = b'{"jsonrpc":"2.0","method":"big","params":{"size":10485760},"id":1}'
            head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
            writer.write(head + body)
        await until(lambda: host.listener._http.connections, "no connection")
        (connection,) = host.listener._http.connections
        await until(connection.held_bytes, "it was all read")

        def looked() -> bool:
            host.listener._shares.look()
            return not host.listener._http.connections

        await until(looked, "it was not dropped")
        assert "bytes unread, and read none of them for" in caplog.text
        assert host.listener.held_bytes == 0
        writer.transport.abort()


# --- before it is known who they are -----------------------------------------------------------


class Clock:
    """A clock that is set."""

    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def said(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


def test_an_address_has_one_line_in_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    found = Newcomers(clock)
    for number in range(120_000):
        clock.now_s = number / 2000
        if found.let_in("192.0.2.7"):
            found.failed("192.0.2.7", f"192.0.2.7:{number}", "no certificate")
    assert said(caplog) == ["client 192.0.2.7:0 refused: no certificate"]
    assert found.turned_away == 120_000
    found.failed("192.0.2.8", "192.0.2.8:1", "another reason")
    assert said(caplog)[1:] == ["client 192.0.2.8:1 refused: another reason"]
    clock.now_s = 60.0
    found.look()
    assert said(caplog)[2:] == [
        "119999 more clients at 192.0.2.7 were refused; the last one: too many clients of this "
        "address have failed lately"
    ]
    clock.now_s = 119.9
    found.failed("192.0.2.7", "192.0.2.7:9", "no certificate")
    found.look()
    assert len(said(caplog)) == 3
    found.close()
    assert said(caplog)[3:] == [
        "1 more clients at 192.0.2.7 were refused; the last one: no certificate"
    ]


def test_who_fails_too_often_is_not_greeted_for_a_while_and_others_are() -> None:
    clock = Clock()
    found = Newcomers(clock)
    greeted = 0
    for number in range(20_000):
        clock.now_s = number / 2000
        if found.let_in("192.0.2.7"):
            greeted += 1
            found.failed("192.0.2.7", "192.0.2.7:1", "no certificate")
    assert greeted <= newcomers.FAILURES + 10 * newcomers.FAILURES_PER_S
    assert not found.let_in("192.0.2.7")
    assert not found.let_in("::ffff:192.0.2.7")
    assert found.let_in("192.0.2.8")
    assert found.let_in(None)
    clock.now_s += 1
    assert found.let_in("192.0.2.7")
    # Those that succeed, or are only slow, are as many as they like.
    for _ in range(10 * newcomers.FAILURES):
        assert found.let_in("192.0.2.9")
        found.failed("192.0.2.9", "192.0.2.9:1", "silent", counts=False)


def test_a_network_of_ipv6_is_one_address() -> None:
    found = Newcomers(Clock())
    for number in range(newcomers.FAILURES):
        assert found.let_in(f"2001:db8::{number:x}")
        found.failed(f"2001:db8::{number:x}", "somebody", "no certificate")
    assert not found.let_in("2001:db8::ffff:ffff")
    assert not found.let_in("2001:db8::1%eth0")
    assert found.let_in("2001:db8:0:1::1")


def test_addresses_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    found = Newcomers(clock)
    found.let_in("192.0.2.7")
    found.failed("192.0.2.8", "192.0.2.8:1", "no certificate")
    found.look()
    assert list(found._of) == ["192.0.2.8"]
    clock.now_s = 61
    found.look()
    assert not found._of
    monkeypatch.setattr(newcomers, "MOST_ADDRESSES", 10)
    for number in range(100):
        found.failed(f"192.0.2.{number}", "somebody", "no certificate")
    assert len(found._of) == 10


async def test_an_address_with_many_newcomers_takes_the_place_of_its_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(newcomers, "MOST", 6)
    monkeypatch.setattr(newcomers, "MOST_OF_ADDRESS", 4)
    found = Newcomers(Clock())

    def come(host: str | None) -> asyncio.Task[None]:
        task = asyncio.ensure_future(asyncio.sleep(60))
        found.greets(task, host)
        return task

    crowd = [come("192.0.2.7") for _ in range(5)]
    others = [come("192.0.2.8"), come("2001:db8::1"), come(None)]
    await asyncio.sleep(0)
    assert [task.cancelled() for task in crowd] == [True, True, False, False, False]
    assert not any(task.cancelled() for task in others)
    assert found.turned_away == 2
    for task, host in zip((*crowd[2:], *others), (*["192.0.2.7"] * 3, "192.0.2.8", "2001:db8::1")):
        found.greeted(task, host)
        found.greeted(task, host)
    assert found._count == 1
    for task in (*crowd, *others):
        task.cancel()


async def test_a_flood_of_strangers_leaves_one_line_and_lets_others_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """On real sockets, with TLS: nobody of them is even shaken hands with once it was too often."""
    monkeypatch.setattr(newcomers, "FAILURES", 5)
    monkeypatch.setattr(newcomers, "FAILURES_PER_S", 0.0)
    async with listening(tmp_path, tls=True) as host:
        engine = await connect("127.0.0.1", host.port, host.engine_tls)
        for number in range(20):
            reader, writer = await host.raw()
            writer.write(b"no handshake")
            await reader.read()
            writer.close()
            await until(lambda n=number: host.listener.turned_away > n, "not refused")  # type: ignore[misc]
        assert (
            len([line for line in said(caplog) if "127.0.0.1" in line and "refused" in line]) == 1
        )
        assert await engine.call("echo") == {}
        await engine.close()
    assert "19 more clients at 127.0.0.1 were refused" in caplog.text
