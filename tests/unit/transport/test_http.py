# SPDX-License-Identifier: GPL-2.0-or-later
"""HTTP on the listener's TCP port and unix socket: JSON-RPC, server-sent events, health."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from tests.unit.transport.serving import Host, listening, stop_reading
from vdsmcinder.transport import event_stream, http_connection
from vdsmcinder.transport.protocol_detect import Spoken

BODY = b'{"jsonrpc":"2.0","method":"echo","params":{"a":1},"id":1}'


class Answer:
    """A parsed HTTP answer."""

    def __init__(self, wire: bytes) -> None:
        head, _, self.body = wire.partition(b"\r\n\r\n")
        status_line, *lines = head.decode().split("\r\n")
        self.status = int(status_line.split()[1])
        self.headers = dict(line.lower().split(": ", 1) for line in lines)

    @property
    def json(self) -> dict:
        return json.loads(self.body)


def http_request(method: str, path: str, body: bytes = b"", **headers: str) -> bytes:
    about = {"Host": "x", "Connection": "close", **headers}
    if body:
        about.setdefault("Content-Length", str(len(body)))
    lines = [f"{method} {path} HTTP/1.1", *(f"{k}: {v}" for k, v in about.items()), "", ""]
    return "\r\n".join(lines).encode() + body


async def ask(host: Host, method: str, path: str, body: bytes = b"", **headers: str) -> Answer:
    """One request over the unix socket on a connection of its own."""
    reader, writer = await asyncio.open_unix_connection(host.listen.unix_socket)
    writer.write(http_request(method, path, body, **headers))
    answer = Answer(await reader.read())
    writer.close()
    return answer


async def test_json_rpc_over_the_unix_socket(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        answer = await ask(host, "POST", "/", BODY, ovirtCorrelationId="flow-1")
        assert answer.status == 200
        assert answer.headers["content-type"].startswith("application/json")
        assert answer.json == {"jsonrpc": "2.0", "id": 1, "result": {"a": 1}}
        _, caller, flow_id = host.verbs.calls[-1]
        assert (caller.subject, caller.transport, flow_id) == ("uid 0", "http", "flow-1")
        assert caller.address.startswith("pid ")


async def test_json_rpc_over_tls(tmp_path: Path) -> None:
    async with listening(tmp_path, tls=True) as host:
        reader, writer = await asyncio.open_connection("127.0.0.1", host.port, ssl=host.engine_tls)
        writer.write(http_request("POST", "/", BODY))
        assert Answer(await reader.read()).json["result"] == {"a": 1}
        assert host.verbs.calls[-1][1].subject == "CN=engine,O=lab"
        writer.close()


async def test_requests_on_one_connection_and_in_pieces(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        reader, writer = await host.raw()
        wire = http_request("POST", "/", BODY, Connection="keep-alive")
        for _ in range(2):
            writer.write(wire[:20])
            await writer.drain()
            writer.write(wire[20:])
            await reader.readuntil(b'"result": {"a": 1}}')
        writer.close()


async def test_a_slow_verb_is_waited_for(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        asking = asyncio.ensure_future(
            ask(host, "POST", "/", b'{"jsonrpc":"2.0","method":"later","id":1}')
        )
        await host.verbs.under_way.wait()
        host.verbs.gate.set()
        assert (await asking).json["result"] == "done"


async def test_a_verb_goes_on_when_its_client_hangs_up(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        _, writer = await host.raw()
        writer.write(http_request("POST", "/", b'{"jsonrpc":"2.0","method":"later","id":1}'))
        await host.verbs.under_way.wait()
        writer.transport.abort()
        host.verbs.gate.set()
        await asyncio.wait_for(host.verbs.finished.wait(), 30)


async def test_a_notification_has_no_content(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        answer = await ask(host, "POST", "/", b'{"jsonrpc":"2.0","method":"echo"}')
        assert (answer.status, answer.body) == (204, b"")


async def test_health(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        host.health.update(vms=3)
        answer = await ask(host, "GET", "/health")
        assert (answer.status, answer.json) == (200, {"ready": True, "vms": 3})
        host.health.update(ready=False)
        assert (await ask(host, "GET", "/health")).status == 503


async def test_metrics(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        answer = await ask(host, "GET", "/metrics")
        assert (answer.status, answer.body) == (200, b"up 1\n")
        assert answer.headers["content-type"] == "text/plain; version=0.0.4"


@pytest.mark.parametrize(
    ("wire", "status", "reason"),
    [
        (http_request("GET", "/x"), 404, "Nothing is served at /x; there is POST /, GET /ev"),
        (http_request("GET", "/"), 405, "GET / is not served; use POST"),
        (http_request("DELETE", "/health"), 405, "DELETE /health is not served; use GET"),
        (http_request("POST", "/", BODY, Origin="https://evil"), 403, "Requests of web pages"),
        (http_request("POST", "/", b"", **{"Content-Length": "99999"}), 413, "is larger than 4096"),
    ],
)
async def test_what_is_refused_gets_a_status_and_a_sentence(
    tmp_path: Path, wire: bytes, status: int, reason: str
) -> None:
    async with listening(tmp_path, max_frame_bytes=4096) as host:
        reader, writer = await host.raw()
        writer.write(wire)
        answer = Answer(await reader.read())
        assert answer.status == status
        assert reason in answer.json["error"]
        assert not host.verbs.calls
        writer.close()


async def test_a_chunked_body_is_limited_too(tmp_path: Path) -> None:
    async with listening(tmp_path, max_frame_bytes=4096) as host:
        chunks = b"1000\r\n" + b"x" * 4096 + b"\r\n1\r\nx\r\n0\r\n\r\n"
        reader, writer = await host.raw()
        writer.write(http_request("POST", "/", b"", **{"Transfer-Encoding": "chunked"}) + chunks)
        assert Answer(await reader.read()).status == 413
        writer.close()


async def test_a_body_that_does_not_come_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_connection, "BODY_TIMEOUT_S", 0.05)
    async with listening(tmp_path) as host:
        answer = await ask(host, "POST", "/", b"", **{"Content-Length": "10"})
        assert answer.status == 408


async def test_headers_that_do_not_come_are_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http_connection, "IDLE_TIMEOUT_S", 0.05)
    async with listening(tmp_path) as host:
        reader, writer = await host.raw()
        writer.write(b"POST / HTTP/1.1\r\nHost: x\r\n")
        assert await reader.read() == b""
        writer.close()


@pytest.mark.parametrize(
    "garbage",
    [b"GET / HTTP/9.9\r\n\r\n", b"GET /\0 \r\n\r\n", b"GET / HTTP/1.1\r\n" + b"a:b\r\n" * 9999],
    ids=["version", "nul", "headers"],
)
async def test_what_is_not_http_gets_a_status_and_one_line_in_the_log(
    tmp_path: Path, garbage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(tmp_path) as host:
        reader, writer = await host.raw()
        writer.write(garbage)
        assert Answer(await reader.read()).status == 400
        writer.close()
    assert all(r.exc_info is None and "\n" not in r.getMessage() for r in caplog.records)


async def test_stomp_is_not_spoken_on_the_unix_socket(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        reader, writer = await asyncio.open_unix_connection(host.listen.unix_socket)
        writer.write(b"CONNECT\naccept-version:1.2\n\n\0")
        assert Answer(await reader.read()).status == 400
        writer.close()


# --- server-sent events ------------------------------------------------------------------------


async def stream(host: Host) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A stream of events that has begun."""
    reader, writer = await asyncio.open_unix_connection(host.listen.unix_socket)
    writer.write(http_request("GET", "/events"))
    await reader.readuntil(b":subscribed\n\n")
    return reader, writer


async def next_event(reader: asyncio.StreamReader) -> dict[str, str]:
    await reader.readuntil(b"id:")
    lines = (b"id:" + await reader.readuntil(b"\n\n")).decode().split("\n")
    return dict(line.split(":", 1) for line in lines if line)


async def test_events_come_with_ids_in_order(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        reader, writer = await stream(host)
        for number in range(3):
            host.events.publish("an event", {"n": number})
        events = [await next_event(reader) for _ in range(3)]
        assert [json.loads(e["data"])["params"]["n"] for e in events] == [0, 1, 2]
        ids = [int(e["id"]) for e in events]
        assert ids == [ids[0], ids[0] + 1, ids[0] + 2]
        writer.close()


async def test_a_quiet_stream_is_kept_alive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(event_stream, "KEEPALIVE_S", 0.02)
    async with listening(tmp_path) as host:
        reader, writer = await stream(host)
        await reader.readuntil(b":\n\n")
        await reader.readuntil(b":\n\n")
        host.events.publish("an event", {})
        assert json.loads((await next_event(reader))["data"])["method"] == "an event"
        writer.close()


async def test_a_stream_ends_with_the_daemon(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        reader, writer = await stream(host)
    assert (await reader.read()).endswith(b"0\r\n\r\n")
    writer.close()


async def test_a_stream_that_is_not_read_is_dropped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(tmp_path, max_buffer_bytes=65536) as host:
        _, writer = await stream(host)
        stop_reading(writer)
        other, other_writer = await stream(host)
        # More than both kernels' buffers and ours hold.
        for _ in range(300):
            host.events.publish("event", {"filler": "x" * 50_000})
            await next_event(other)
        assert "is dropped: it left" in caplog.text
        sent = host.listener.deliveries[Spoken.HTTP]
        assert sent.clients_dropped == 1
        assert 0 < sent.events_dropped < sent.events_sent - 300
        writer.transport.abort()
        other_writer.close()
