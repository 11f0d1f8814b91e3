# SPDX-License-Identifier: GPL-2.0-or-later
"""HTTP connections on real sockets: order, patience, closing, and what one client costs others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from pathlib import Path

import pytest

from tests.unit.transport import serving
from tests.unit.transport.serving import Host, listening, stop_reading, until
from tests.unit.transport.test_http import BODY, Answer, ask, http_request
from vdsmcinder.transport import http_connection
from vdsmcinder.transport.protocol_detect import Spoken

POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
HEALTH = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


def call(verb: str, request_id: int, **params: object) -> bytes:
    body = {"jsonrpc": "2.0", "method": verb, "params": params, "id": request_id}
    encoded = json.dumps(body).encode()
    return POST + b"Content-Length: %d\r\n\r\n%b" % (len(encoded), encoded)


async def answers(reader: asyncio.StreamReader, count: int) -> list[Answer]:
    """The next answers, each with a Content-Length."""
    found = []
    for _ in range(count):
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(Answer(head).headers.get("content-length", 0))
        found.append(Answer(head + await reader.readexactly(length)))
    return found


def standing(host: Host) -> int:
    return host.listener.connections[Spoken.HTTP]


@pytest.mark.parametrize("tls", [False, True])
async def test_answers_come_in_the_order_of_the_requests(tmp_path: Path, tls: bool) -> None:
    """Also when the first verb takes its time, and more than one read's worth comes at once."""
    async with listening(tmp_path, tls=tls) as host:
        context = host.engine_tls if tls else None
        reader, writer = await asyncio.open_connection("127.0.0.1", host.port, ssl=context)
        count = 2000
        writer.write(call("later", 0) + b"".join(call("echo", n) for n in range(1, count)))
        await host.verbs.under_way.wait()
        assert len(host.verbs.calls) == 1
        host.verbs.gate.set()
        found = [a.json["id"] for a in await answers(reader, count)]
        assert found == list(range(count))
        writer.close()


async def test_one_clients_requests_do_not_keep_others_waiting(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        _, flooder = await host.raw()
        flooder.write(b"".join(call("echo", n) for n in range(2000)))
        await until(lambda: host.verbs.calls, "nothing was called")
        assert (await ask(host, "GET", "/health")).status == 200
        assert len(host.verbs.calls) < 2000
        flooder.transport.abort()


async def test_chunks_of_one_byte_do_not_keep_others_waiting(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        reader, writer = await host.raw()
        chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in BODY.ljust(20_000))
        writer.write(POST + b"Transfer-Encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n")
        answered = asyncio.ensure_future(answers(reader, 1))
        await until(lambda: standing(host), "nobody came")
        assert (await ask(host, "GET", "/health")).status == 200
        assert not answered.done()
        assert (await answered)[0].json["result"] == {"a": 1}
        writer.close()


async def test_replies_that_are_not_read_are_waited_for(tmp_path: Path) -> None:
    """No more requests are answered while a client does not read, and all of them in the end."""
    async with listening(tmp_path) as host:
        reader, writer = await host.raw()
        count = 500
        writer.write(b"".join(call("big", n, size=100_000) for n in range(count)))
        assert (await ask(host, "GET", "/health")).status == 200
        assert len(host.verbs.calls) < count
        assert [a.json["id"] for a in await answers(reader, count)] == list(range(count))
        writer.close()


async def test_a_reply_that_is_never_read_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_connection, "IDLE_TIMEOUT_S", 0.1)
    async with listening(tmp_path) as host:
        _, writer = await host.raw()
        stop_reading(writer)
        writer.write(call("big", 1, size=20_000_000))
        await until(lambda: host.verbs.calls, "nothing was called")
        await until(lambda: not standing(host), "the connection still stands")
        writer.transport.abort()


# --- ends ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["echo", "later"])
async def test_who_sends_no_more_still_gets_the_answers(tmp_path: Path, verb: str) -> None:
    async with listening(tmp_path) as host:
        reader, writer = await asyncio.open_unix_connection(host.listen.unix_socket)
        writer.write(call(verb, 1) + call("echo", 2))
        writer.write_eof()
        await until(lambda: host.verbs.calls, "nothing was called")
        host.verbs.gate.set()
        assert [a.json["id"] for a in await answers(reader, 2)] == [1, 2]
        assert await reader.read() == b""
        writer.close()


async def test_who_sends_no_more_in_the_middle_of_a_body(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        reader, writer = await host.raw()
        writer.write(POST + b"Content-Length: 100\r\n\r\n" + BODY)
        writer.write_eof()
        answer = Answer(await reader.read())
        assert answer.status == 400
        assert "without sending complete message body" in answer.json["error"]
        assert not host.verbs.calls
        writer.close()


async def test_an_idle_client_that_hangs_up_is_gone(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        reader, writer = await host.raw()
        writer.write(HEALTH)
        await answers(reader, 1)
        assert standing(host) == 1
        writer.close()
        await until(lambda: not standing(host), "the connection still stands")


async def test_a_stream_whose_client_hangs_up_ends_at_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    async with listening(tmp_path) as host:
        reader, writer = await asyncio.open_unix_connection(host.listen.unix_socket)
        writer.write(http_request("GET", "/events"))
        await reader.readuntil(b":subscribed\n\n")
        writer.close()
        await until(lambda: not standing(host), "the connection still stands")
        await until(lambda: "the event stream to pid" in caplog.text, "the stream goes on")


async def test_a_connection_stays_for_the_next_request_and_one_of_1_0_ends(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        reader, writer = await host.raw()
        for _ in range(3):
            writer.write(HEALTH)
            (answer,) = await answers(reader, 1)
            assert "connection" not in answer.headers
        writer.write(b"GET /health HTTP/1.0\r\n\r\n")
        answer = Answer(await reader.read())
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        writer.close()


async def test_a_stream_to_a_client_of_1_0_has_no_chunks(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        reader, writer = await host.raw()
        writer.write(b"GET /events HTTP/1.0\r\n\r\n")
        head, _, rest = (await reader.readuntil(b":subscribed\n\n")).partition(b"\r\n\r\n")
        assert b"Transfer-Encoding" not in head
        assert rest == b":subscribed\n\n"
        host.events.publish("an event", {})
        assert (await reader.readuntil(b"\n\n")).startswith(b"id:1\ndata:{")
        writer.close()


async def test_the_daemons_end_waits_for_an_answer_under_way(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        idle, idle_writer = await host.raw()
        idle_writer.write(HEALTH)
        await answers(idle, 1)
        reader, writer = await host.raw()
        writer.write(call("later", 1) + call("echo", 2))
        await host.verbs.under_way.wait()
        ending = asyncio.ensure_future(host.listener.close())
        assert await idle.read() == b""
        host.verbs.gate.set()
        (answer,) = await answers(reader, 1)
        assert (answer.json["result"], answer.headers["connection"]) == ("done", "close")
        assert await reader.read() == b""
        assert len(host.verbs.calls) == 1
        await ending
        writer.close()
        idle_writer.close()


async def test_the_daemons_end_does_not_wait_for_a_client_that_does_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with listening(tmp_path) as host:
        _, writer = await host.raw()
        stop_reading(writer)
        writer.write(call("big", 1, size=20_000_000))
        await until(lambda: host.verbs.calls, "nothing was called")
        await asyncio.wait_for(host.listener.close(), 10)
        writer.transport.abort()


# --- patience ------------------------------------------------------------------------------------


async def test_a_head_that_comes_byte_by_byte_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte now and then does not prolong the time that there is for all of them."""
    monkeypatch.setattr(http_connection, "IDLE_TIMEOUT_S", 0.3)
    async with listening(tmp_path) as host:
        reader, writer = await host.raw()
        began = time.monotonic()
        ended = asyncio.ensure_future(reader.read())
        writer.write(POST)
        while not ended.done():
            writer.write(b"a")
            await asyncio.wait([ended], timeout=0.02)
            assert time.monotonic() - began < 10
        # Broken off while the client was sending, so it may be told of a reset.
        with contextlib.suppress(ConnectionResetError):
            assert await ended == b""
        writer.close()


async def test_a_body_that_comes_byte_by_byte_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_connection, "BODY_TIMEOUT_S", 0.3)
    async with listening(tmp_path) as host:
        reader, writer = await host.raw()
        writer.write(POST + b"Content-Length: 10000\r\n\r\n")
        ended = asyncio.ensure_future(reader.read())
        while not ended.done():
            writer.write(b"a")
            await asyncio.wait([ended], timeout=0.02)
        assert Answer(await ended).status == 408
        writer.close()


@pytest.mark.parametrize("tls", [False, True])
async def test_who_goes_on_sending_reads_why_it_is_refused(tmp_path: Path, tls: bool) -> None:
    async with listening(tmp_path, tls=tls, max_frame_bytes=4096) as host:
        context = host.engine_tls if tls else None
        reader, writer = await asyncio.open_connection("127.0.0.1", host.port, ssl=context)
        writer.write(POST + b"Content-Length: 8000000\r\n\r\n")
        for _ in range(8):
            writer.write(bytes(1_000_000))
            await writer.drain()
        (answer,) = await answers(reader, 1)
        assert (answer.status, answer.headers["connection"]) == (413, "close")
        writer.close()


async def test_who_is_refused_and_does_not_hang_up_is_hung_up_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_connection, "LINGER_S", 0.05)
    async with listening(tmp_path) as host:
        reader, writer = await host.raw()
        writer.write(b"nonsense of some kind\r\n\r\n")
        assert Answer(await reader.read()).status == 400
        await until(lambda: not standing(host), "the connection still stands")
        writer.close()


# --- what is answered ----------------------------------------------------------------------------


async def test_the_answer_to_head_says_which_method_there_is(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        answer = await ask(host, "HEAD", "/health")
        assert (answer.status, answer.headers["allow"], answer.body) == (405, "get", b"")


async def test_a_call_without_a_length_is_told_to_have_one(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        answer = await ask(host, "POST", "/")
        assert answer.status == 411
        assert "Content-Length" in answer.json["error"]


async def test_a_go_ahead_for_a_body_that_may_come_and_none_for_one_that_may_not(
    tmp_path: Path,
) -> None:
    async with listening(tmp_path, max_frame_bytes=4096) as host:
        reader, writer = await host.raw()
        writer.write(POST + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY))
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 \r\n\r\n"
        writer.write(BODY)
        assert (await answers(reader, 1))[0].json["result"] == {"a": 1}
        writer.write(POST + b"Expect: 100-continue\r\nContent-Length: 5000\r\n\r\n")
        assert Answer(await reader.read()).status == 413
        writer.close()


async def test_a_page_that_fails_is_a_status_and_the_daemon_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def fails() -> None:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(serving, "metrics", fails)
    async with listening(tmp_path) as host:
        answer = await ask(host, "GET", "/metrics")
        assert answer.status == 500
        assert "its log says why" in answer.json["error"]
        assert "no such thing" in caplog.text
        assert (await ask(host, "GET", "/health")).status == 200
