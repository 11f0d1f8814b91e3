# SPDX-License-Identifier: GPL-2.0-or-later
"""Clients that are slow, stuck or greedy, on a real listener: bounded, and no one else's worry."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.unit.transport.serving import Host, listening, read_frames, stop_reading, until
from vdsmcinder.stomp.client import connect
from vdsmcinder.stomp.frames import Frame, encode
from vdsmcinder.transport import newcomers, request_queue, stomp_server

CONNECT = b"CONNECT\naccept-version:1.2\nheart-beat:%d,%d\n\n\0"
SUBSCRIBE = b"SUBSCRIBE\nid:r\ndestination:replies\n\n\0"
EVENTS = b"SUBSCRIBE\nid:e\ndestination:jms.queue.events\nreceipt:e\n\n\0"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def request(verb: str, request_id: int, **params: object) -> bytes:
    body = {"jsonrpc": "2.0", "method": verb, "params": params, "id": request_id}
    headers = {"destination": "jms.topic.vdsm_requests", "reply-to": "replies"}
    return encode(Frame("SEND", headers, json.dumps(body).encode()))


def reply(frame: bytes) -> dict:
    return json.loads(frame.partition(b"\n\n")[2])


async def client(host: Host, heartbeats: tuple[int, int] = (0, 0)) -> Streams:
    reader, writer = await host.raw()
    writer.write(CONNECT % heartbeats + SUBSCRIBE)
    await read_frames(reader, 1)
    return reader, writer


# --- slow ones ---------------------------------------------------------------------------------


@pytest.mark.parametrize("part", [b"S", b"SEND\ndest", b"SEND\ncontent-length:9\n\nbody"])
async def test_a_frame_that_does_not_end_is_not_waited_for(
    tmp_path: Path, part: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stomp_server, "FRAME_TIMEOUT_S", 0.05)
    async with listening(tmp_path) as host:
        idle, idle_writer = await client(host)
        reader, writer = await client(host)
        writer.write(request("echo", 1) + part)
        answer, error = await read_frames(reader, 2)
        assert reply(answer)["result"] == {}
        assert error.startswith(b"ERROR\n")
        assert b"a frame did not end" in error
        idle_writer.write(b"\n\n" + request("echo", 2))
        assert reply((await read_frames(idle, 1))[0])["id"] == 2
        writer.close()
        idle_writer.close()


async def test_frames_that_end_may_come_as_slowly_as_they_like(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stomp_server, "FRAME_TIMEOUT_S", 0.3)
    async with listening(tmp_path) as host:
        reader, writer = await client(host)
        wire = request("echo", 1)
        writer.write(wire[:-1])
        for _ in range(20):
            # There is always a frame that has begun, but never the same for long.
            await asyncio.sleep(0.05)
            writer.write(wire[-1:] + wire[:-1])
            await read_frames(reader, 1)
        writer.close()


@pytest.mark.parametrize("tls", [False, True])
async def test_who_stops_reading_is_dropped_however_little_it_leaves(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, tls: bool
) -> None:
    """Far below listen.max_buffer_bytes; heart-beats that it sends do not help it."""
    async with listening(tmp_path, tls=tls) as host:
        # What fits into the kernel's buffers is not the daemon's to keep.
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", host.port))
        options: dict[str, Any] = (
            {"ssl": host.engine_tls, "server_hostname": "127.0.0.1"} if tls else {}
        )
        reader, writer = await asyncio.open_connection(sock=sock, **options)
        writer.write(CONNECT % (0, 0) + SUBSCRIBE)
        await read_frames(reader, 1)
        stop_reading(writer)
        (connection,) = host.listener._stomp.connections
        below = connection._tcp.get_extra_info("socket")
        below.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        # Little enough for TLS to have handed all of it on.
        writer.write(request("big", 1, size=60_000))
        await until(connection.unread_bytes, "it was all read")
        shares = host.listener._shares
        shares.look()
        assert not connection._ended

        def looked() -> bool:
            # Again, for the kernel may have taken some more.
            writer.write(b"\n")
            shares.look()
            return connection._ended

        await until(looked, "it was not dropped")
        await asyncio.wait_for(asyncio.shield(connection.lost), 30)
        assert host.listener._stomp.deliveries.clients_dropped == 1
        assert "and read none of them for" in caplog.text
        assert shares.held == 0
        writer.transport.abort()


async def test_who_reads_slowly_is_not(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        reader, writer = await client(host)
        (connection,) = host.listener._stomp.connections
        for number in range(200):
            writer.write(request("big", number, size=100_000))
        await until(connection.unread_bytes, "it was all read")
        for _ in range(3):
            host.listener._shares.look()
            before = connection.written_bytes - connection.unread_bytes()
            while connection.written_bytes - connection.unread_bytes() <= before:
                await reader.read(1 << 16)
        host.listener._shares.look()
        assert not connection._ended
        writer.transport.abort()


async def test_a_counter_tells_of_subscribers_that_stopped_reading(tmp_path: Path) -> None:
    async with listening(tmp_path, max_buffer_bytes=65536) as host:
        reader, writer = await host.raw()
        writer.write(CONNECT % (0, 0) + EVENTS)
        await read_frames(reader, 2)
        stop_reading(writer)
        other = await connect("127.0.0.1", host.port)
        await other.subscribe_events()
        for number in range(300):
            host.events.publish("event", {"n": number, "filler": "x" * 50_000})
            await other.wait_for_event(lambda e, n=number: e["params"]["n"] == n)  # type: ignore[misc]
        assert host.listener._stomp.deliveries.clients_dropped == 1
        await other.close()
        writer.transport.abort()


async def test_who_will_send_no_more_and_does_not_read_is_gone_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stomp_server, "LINGER_S", 0.05)
    async with listening(tmp_path) as host:
        _, writer = await client(host)
        stop_reading(writer)
        (connection,) = host.listener._stomp.connections
        writer.write(b"".join(request("big", n, size=1_000_000) for n in range(7)))
        writer.write_eof()
        await asyncio.wait_for(asyncio.shield(connection.lost), 30)
        writer.transport.abort()


async def test_who_says_nothing_makes_room_for_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(newcomers, "MOST", 3)
    async with listening(tmp_path) as host:
        silent = [await host.raw() for _ in range(3)]
        engine = await connect("127.0.0.1", host.port)
        assert await silent[0][0].read() == b""
        assert await engine.call("echo") == {}
        for reader, writer in silent[1:]:
            writer.write(CONNECT % (0, 0))
            assert (await read_frames(reader, 1))[0].startswith(b"CONNECTED")
        for _, writer in silent:
            writer.close()
        await engine.close()


# --- greedy ones -------------------------------------------------------------------------------


async def test_a_flood_of_slow_requests_is_refused_beyond_the_queue(tmp_path: Path) -> None:
    """10,000 requests, none read: 1,000 are under way, the others refused, another is served."""
    async with listening(tmp_path) as host:
        reader, writer = await client(host)
        writer.write(b"".join(request("later", n) for n in range(10_000)))
        other = await connect("127.0.0.1", host.port)
        for _ in range(20):
            await other.call("echo")
        refused = [reply(frame) for frame in await read_frames(reader, 9000)]
        assert {r["error"]["code"] for r in refused} == {1100}
        assert await other.call("echo") == {}
        host.verbs.gate.set()
        done = [reply(frame) for frame in await read_frames(reader, 1000)]
        assert {r["result"] for r in done} == {"done"}
        assert sorted(r["id"] for r in (*refused, *done)) == list(range(10_000))
        await other.close()
        writer.close()


async def test_no_more_is_taken_while_what_is_under_way_is_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_queue, "HELD_BYTES", 10_000)
    async with listening(tmp_path) as host:
        reader, writer = await client(host, heartbeats=(100, 0))
        (connection,) = host.listener._stomp.connections
        large = b"".join(request("later", n, filler="x" * 6000) for n in range(2))
        writer.write(large + request("echo", 2))
        await host.verbs.under_way.wait()
        assert connection._lane.full
        # Who is not listened to is not taken for silent, however long it takes.
        connection._heart.last_heard -= 100
        connection._heart._check()
        assert not connection._ended
        host.verbs.gate.set()
        ids = [reply(frame)["id"] for frame in await read_frames(reader, 3)]
        # Of the two that were under way either may be done first.
        assert (sorted(ids[:2]), ids[2]) == ([0, 1], 2)
        writer.close()


async def test_what_has_not_begun_is_not_done_for_who_has_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(request_queue, "RUNNING_AT_ONCE", 1)
    async with listening(tmp_path) as host:
        _, writer = await client(host)
        (connection,) = host.listener._stomp.connections
        writer.write(request("later", 1) + request("later", 2))
        await host.verbs.under_way.wait()
        writer.transport.abort()
        await connection.lost
        host.verbs.under_way.clear()
        host.verbs.gate.set()
        await asyncio.wait_for(host.verbs.finished.wait(), 30)
        await asyncio.sleep(0)
        assert not host.verbs.under_way.is_set()


async def test_heartbeats_go_both_ways_under_load(tmp_path: Path) -> None:
    """A flood keeps the daemon busy from end to end, and it neither misses a beat nor loses one."""
    flood = b"".join(request("echo", n) for n in range(30_000))
    flooded = threading.Event()
    async with listening(tmp_path) as host:
        flooder, flooding = await client(host)
        beating = asyncio.create_task(asyncio.to_thread(_beat, host.port, flooded))
        flooding.write(flood)
        await read_frames(flooder, 30_000)
        flooded.set()
        assert reply(await beating)["result"] == {}
        flooding.close()


def _beat(port: int, flooded: threading.Event) -> bytes:
    """Send and hear heart-beats until the flood is over; then the answer to a request.

    In a thread, because a client that shares the flood's loop is as late as its passes are long.
    """
    with socket.create_connection(("127.0.0.1", port), 30) as sock:
        sock.sendall(CONNECT % (800, 800) + SUBSCRIBE)
        wire = sock.makefile("rb")
        while wire.read(1) != b"\0":
            pass
        beats = 0
        while not flooded.is_set() or beats < 4:
            sock.sendall(b"\n")
            # The daemon's come every 480 ms, and it waits 1,400 for ours: one for each will do.
            assert wire.read(1) == b"\n"
            beats += 1
        sock.sendall(request("echo", 1))
        frame = b""
        while not frame.endswith(b"\0"):
            frame += wire.read(1)
        return frame[:-1].lstrip(b"\n")


async def test_a_client_that_was_reset_does_not_keep_the_daemon_from_closing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def not_connected() -> None:
        raise OSError(107, "Transport endpoint is not connected")

    async with listening(tmp_path) as host:
        _, writer = await client(host)
        (connection,) = host.listener._stomp.connections
        monkeypatch.setattr(connection._transport, "write_eof", not_connected)
        writer.transport.abort()
        await host.listener.close()
