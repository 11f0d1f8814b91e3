# SPDX-License-Identifier: GPL-2.0-or-later
"""The listener on real sockets: who is let in, who is not, and what STOMP clients get."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import resource
import shutil
import socket
import ssl
import stat
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import stomp

from tests.unit.transport.serving import (
    Host,
    Verbs,
    client_tls,
    listening,
    read_frames,
    stop_reading,
    until,
)
from vdsmcinder.config import ConfigError, Listen, Rpc
from vdsmcinder.errors import RemoteError
from vdsmcinder.rpc.events import Events
from vdsmcinder.stomp.client import SessionLost, connect
from vdsmcinder.stomp.frames import Frame, encode
from vdsmcinder.stomp.heartbeat import Heart
from vdsmcinder.tasks import Tasks
from vdsmcinder.transport import listener, sockets, stomp_server
from vdsmcinder.transport.listener import Listener
from vdsmcinder.transport.protocol_detect import Spoken, recognise

CONNECT = b"CONNECT\naccept-version:1.2\n\n\0"
SUBSCRIBE = b"SUBSCRIBE\nid:r\ndestination:jms.topic.vdsm_responses\n\n\0"
EVENTS = b"SUBSCRIBE\nid:e\ndestination:jms.queue.events\nreceipt:e\n\n\0"


def request(verb: str, request_id: object = 1, **params: object) -> bytes:
    body = {"jsonrpc": "2.0", "method": verb, "params": params, "id": request_id}
    headers = {
        "destination": "jms.topic.vdsm_requests",
        "reply-to": "jms.topic.vdsm_responses",
    }
    return encode(Frame("SEND", headers, json.dumps(body).encode()))


def result(frame: bytes) -> dict:
    return json.loads(frame.partition(b"\n\n")[2])


# --- getting in --------------------------------------------------------------------------------


async def test_calls_and_events_over_tls(tmp_path: Path) -> None:
    async with listening(tmp_path, tls=True) as host:
        engine = await connect("127.0.0.1", host.port, host.engine_tls)
        await engine.subscribe_events()
        assert await engine.call("echo", {"a": 1}, flow_id="flow-1") == {"a": 1}
        _, caller, flow_id = host.verbs.calls[-1]
        assert (caller.subject, caller.transport, flow_id) == ("CN=engine,O=lab", "stomp", "flow-1")
        assert caller.address.startswith("127.0.0.1:")
        host.events.publish("|virt|VM_status|x", {"x": {"status": "Up"}})
        event = await engine.wait_for_event(lambda e: "VM_status" in e["method"])
        assert event["params"]["x"] == {"status": "Up"}
        await engine.close()


@pytest.mark.parametrize("who", ["nobody", "foreign"])
async def test_others_are_refused_in_one_line_and_harm_nobody(
    tmp_path: Path, who: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(tmp_path, tls=True) as host:
        engine = await connect("127.0.0.1", host.port, host.engine_tls)
        stranger = client_tls(host.pki, None if who == "nobody" else host.pki.foreign)
        with pytest.raises((SessionLost, ssl.SSLError, ConnectionError)):
            await connect("127.0.0.1", host.port, stranger)
        assert await engine.call("echo", {"a": 1}) == {"a": 1}
        await engine.close()
    refusals = [r for r in caplog.records if "refused" in r.getMessage()]
    assert len(refusals) == 1
    assert "certificate" in refusals[0].getMessage()
    assert refusals[0].exc_info is None


async def test_plain_text_on_the_tls_port_is_refused(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(tmp_path, tls=True) as host:
        reader, writer = await host.raw()
        writer.write(CONNECT)
        with pytest.raises((asyncio.IncompleteReadError, ConnectionError)):
            await reader.readuntil(b"CONNECTED")
        writer.close()
    assert "refused: " in caplog.text


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
async def test_who_comes_while_it_closes_waits_for_the_next_one(tmp_path: Path) -> None:
    """In the same moment: the loop has both to do in one turn."""
    troubles: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _loop, what: troubles.append(what))
    with sockets.open_tcp("127.0.0.1", 0) as systemds:
        async with listening(tmp_path, handed=[os.dup(systemds.fileno())]) as host:
            with socket.create_connection(("127.0.0.1", host.port)) as client:
                await asyncio.sleep(0)
                await host.listener.close()
                accepted, name = systemds.accept()
                accepted.close()
                assert name == client.getsockname()
    assert troubles == []


async def test_out_of_file_descriptors_clients_wait(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "ACCEPT_RETRY_S", 0.05)
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    async with listening(tmp_path) as host:
        reader, writer = await host.raw()
        writer.write(CONNECT)
        await read_frames(reader, 1)
        with socket.socket() as late:
            late.setblocking(False)
            resource.setrlimit(resource.RLIMIT_NOFILE, (late.fileno(), limits[1]))
            try:
                await asyncio.get_running_loop().sock_connect(late, ("127.0.0.1", host.port))
                await until(lambda: "Too many open files" in caplog.text, "nothing was said")
                writer.write(SUBSCRIBE + request("echo", a=1))
                assert result((await read_frames(reader, 1))[0])["result"] == {"a": 1}
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, limits)
            await asyncio.get_running_loop().sock_sendall(late, CONNECT)
            answer = await asyncio.get_running_loop().sock_recv(late, 9)
            assert answer == b"CONNECTED"
        writer.close()


async def test_tls_1_1_is_refused(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with listening(tmp_path, tls=True) as host:
        old = host.engine_tls
        old.set_ciphers("DEFAULT:@SECLEVEL=0")
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await connect("127.0.0.1", host.port, old)
    assert "unsupported protocol" in caplog.text


async def test_new_certificates_are_used_without_dropping_anyone(tmp_path: Path) -> None:
    async with listening(tmp_path, tls=True) as host:
        engine = await connect("127.0.0.1", host.port, host.engine_tls)
        shutil.copy(host.pki.directory / "foreign-ca.pem", host.listen.ca)
        trusting = host.engine_tls
        trusting.load_verify_locations(host.listen.certificate)
        await host.listener.certificates.reload()
        with pytest.raises((SessionLost, ssl.SSLError, ConnectionError)):
            await connect("127.0.0.1", host.port, trusting)
        assert await engine.call("echo") == {}
        await engine.close()


@pytest.mark.parametrize("said", [b"", b"CONN", b"POST", CONNECT[:-3]])
async def test_whoever_does_not_finish_a_greeting_is_dropped(
    tmp_path: Path, said: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listener, "GREETING_TIMEOUT_S", 0.2)
    monkeypatch.setattr(stomp_server, "CONNECT_TIMEOUT_S", 0.2)
    async with listening(tmp_path) as host:
        reader, writer = await host.raw()
        writer.write(said)
        answer = await reader.read()
        assert (b"no CONNECT frame within" in answer) == (len(said) > 4)
        writer.close()


async def test_half_a_handshake_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(listener, "GREETING_TIMEOUT_S", 0.05)
    async with listening(tmp_path, tls=True) as host:
        reader, writer = await host.raw()
        writer.write(b"\x16\x03\x01\x02\x00\x01")
        assert await reader.read() == b""
        writer.close()
    assert "handshake" in caplog.text


@pytest.mark.parametrize(
    ("first", "spoken"),
    [
        (b"", None),
        (b"CONNECT", None),
        (b"\r\n\nSTOM", None),
        (b"CONNECT\n", Spoken.STOMP),
        (b"STOMP\r\n", Spoken.STOMP),
        (b"\nCONNECT\n", Spoken.STOMP),
        (b"CONNECT node7:443 HTTP/1.1", Spoken.HTTP),
        (b"POST / HTTP/1.1", Spoken.HTTP),
        (b"get /", Spoken.HTTP),
        (b"\x16\x03\x01", Spoken.STOMP),
        (b"x" * 18, Spoken.STOMP),
        (b"\n" * 1024, Spoken.STOMP),
    ],
)
def test_the_first_bytes_tell_the_protocol(first: bytes, spoken: Spoken | None) -> None:
    assert recognise(first) is spoken


@pytest.mark.parametrize(
    "garbage", [b"\0\0\0\0", b"\x16\x03\x01\x02\0", b"x" * 5000, b"SEND\n\n\0"]
)
async def test_garbage_is_answered_with_an_error_frame(tmp_path: Path, garbage: bytes) -> None:
    async with listening(tmp_path) as host:
        reader, writer = await host.raw()
        writer.write(garbage)
        answer = await reader.read()
        assert answer.startswith(b"ERROR\n")
        assert b"expected" in answer
        writer.close()


# --- sockets -----------------------------------------------------------------------------------


async def test_every_address_includes_ipv4(tmp_path: Path) -> None:
    async with listening(tmp_path, address="::") as host:
        engine = await connect("127.0.0.1", host.port)
        await engine.call("echo")
        assert host.verbs.calls[-1][1].address.startswith("127.0.0.1:")
        await engine.close()


async def test_a_machine_without_ipv6_listens_on_ipv4(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class WithoutIPv6(socket.socket):
        def __init__(self, family: int = socket.AF_INET, *rest: int, **named: int) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, *rest, **named)

    monkeypatch.setattr("vdsmcinder.transport.sockets.socket.socket", WithoutIPv6)
    async with listening(tmp_path, address="::") as host:
        engine = await connect("127.0.0.1", host.port)
        await engine.close()


async def test_a_port_in_use_is_told_in_a_sentence(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        second = replace(host.listen, port=host.port, unix_socket=str(tmp_path / "second"))
        with pytest.raises(ConfigError) as e:
            await start(second)
        assert str(e.value) == (
            f"listen.address 127.0.0.1, listen.port {host.port} cannot be listened on: address "
            "already in use; stop the program that uses it, or set listen.port to a free one"
        )
        assert not (tmp_path / "second").exists()


async def test_the_unix_socket_is_for_its_owner_alone_and_goes_at_the_end(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        mode = os.stat(host.listen.unix_socket).st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o600
    assert not list((tmp_path / "run").iterdir())


async def test_a_dead_daemons_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "run" / "sock"
    path.parent.mkdir()
    left_over = socket.socket(socket.AF_UNIX)
    left_over.bind(str(path))
    left_over.close()
    async with listening(tmp_path):
        assert path.is_socket()


async def test_a_living_daemons_socket_is_not(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        with pytest.raises(ConfigError, match=r"a daemon listens on .* already; stop it, or set"):
            await start(replace(host.listen, port=0))
        assert stat.S_ISSOCK(os.stat(host.listen.unix_socket).st_mode)


async def test_nor_is_a_file_that_is_no_socket(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    precious = tmp_path / "run" / "sock"
    precious.write_text("precious")
    with pytest.raises(ConfigError, match="exists and is not a socket; remove it, or set"):
        async with listening(tmp_path):
            pass
    assert precious.read_text() == "precious"


@pytest.mark.parametrize(
    ("option", "name", "reason"),
    [
        ("ca", "missing.pem", "listen.ca: .*missing.pem cannot be read: No such file"),
        ("certificate", "missing.pem", "listen.certificate: .* cannot be read: No such file"),
        ("key", "engine.key", "are not a certificate and its unencrypted private key"),
        ("ca", "engine.key", "holds no usable CA certificate"),
    ],
)
async def test_certificates_that_cannot_be_used_are_told_in_a_sentence(
    tmp_path: Path, option: str, name: str, reason: str
) -> None:
    async with listening(tmp_path, tls=True) as host:
        wrong: dict[str, Any] = {option: str(host.pki.directory / name)}
        with pytest.raises(ConfigError, match=reason):
            await start(replace(host.listen, port=0, **wrong))


async def start(listen: Listen) -> None:
    await Listener(listen, Rpc(), Verbs(), Events(), dict, Tasks("listener")).start()  # type: ignore[arg-type]


# --- STOMP on the wire -------------------------------------------------------------------------


async def stomp_client(
    host: Host, heartbeats: str = "0,0"
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection that has said CONNECT and SUBSCRIBE, and was answered."""
    reader, writer = await host.raw()
    connect = {"accept-version": "1.2", "heart-beat": heartbeats}
    writer.write(encode(Frame("CONNECT", connect)) + SUBSCRIBE)
    await read_frames(reader, 1)
    return reader, writer


async def test_many_frames_in_one_segment_and_one_in_many(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        reader, writer = await stomp_client(host)
        writer.write(b"".join(request("echo", n, n=n) for n in range(200)))
        replies = [result(frame) for frame in await read_frames(reader, 200)]
        assert [r["result"] for r in replies] == [{"n": n} for n in range(200)]
        writer.transport.set_write_buffer_limits(0)
        for byte in request("echo", 1, slowly=True):
            writer.write(bytes((byte,)))
            await writer.drain()
        assert result((await read_frames(reader, 1))[0])["result"] == {"slowly": True}
        writer.close()


async def test_clients_with_the_same_ids_get_their_own_answers(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        clients = [await stomp_client(host) for _ in range(5)]
        for number, (_, writer) in enumerate(clients):
            writer.write(request("later", "same") + request("echo", "same", who=number))
        for number, (reader, _) in enumerate(clients):
            assert result((await read_frames(reader, 1))[0])["result"] == {"who": number}
        host.verbs.gate.set()
        for reader, writer in clients:
            assert result((await read_frames(reader, 1))[0])["result"] == "done"
            writer.write(b"DISCONNECT\nreceipt:bye\n\n\0")
            rest = await reader.read()
            assert rest.startswith(b"RECEIPT\nreceipt-id:bye\n")
            writer.close()


async def test_no_more_requests_are_under_way_than_allowed(tmp_path: Path) -> None:
    async with listening(tmp_path, max_queue=2) as host:
        reader, writer = await stomp_client(host)
        writer.write(b"".join(request("later", n) for n in range(4)))
        refused = [result(frame) for frame in await read_frames(reader, 2)]
        assert [r["id"] for r in refused] == [2, 3]
        assert {r["error"]["code"] for r in refused} == {1100}
        assert host.listener.requests_refused == 2
        assert host.listener.requests_under_way == 2
        host.verbs.gate.set()
        done = [result(frame) for frame in await read_frames(reader, 2)]
        assert {r["id"] for r in done} == {0, 1}
        writer.write(request("later", 5))
        assert result((await read_frames(reader, 1))[0])["result"] == "done"
        writer.close()


def test_what_is_refused_is_answered_by_its_ids() -> None:
    batch = [{"id": 1}, {"method": "a notification"}, {"id": "x"}, 7]
    replies = json.loads(stomp_server.refusal(json.dumps(batch).encode(), 3) or b"")
    assert [r["id"] for r in replies] == [1, "x", None]
    assert stomp_server.refusal(b'{"method": "a notification"}', 3) is None
    assert json.loads(stomp_server.refusal(b"{", 3) or b"")["error"]["code"] == -32700


async def test_a_verb_goes_on_when_its_client_hangs_up(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        _, writer = await stomp_client(host)
        writer.write(request("later"))
        await host.verbs.under_way.wait()
        writer.transport.abort()
        host.verbs.gate.set()
        await asyncio.wait_for(host.verbs.finished.wait(), 30)


async def test_a_frame_over_the_limit_is_refused_when_it_is_announced(tmp_path: Path) -> None:
    async with listening(tmp_path, max_frame_bytes=4096) as host:
        reader, writer = await stomp_client(host)
        writer.write(b"SEND\ncontent-length:1000000000\n\n" + b"x" * 100_000)
        answer = await reader.read()
        assert b"expected at most 4096 bytes" in answer
        writer.close()


async def test_a_client_that_does_not_read_is_dropped_and_delays_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with listening(tmp_path, max_buffer_bytes=65536) as host:
        reader, writer = await host.raw()
        writer.write(CONNECT + EVENTS)
        await read_frames(reader, 2)
        stop_reading(writer)
        other = await connect("127.0.0.1", host.port)
        await other.subscribe_events()
        # More than both kernels' buffers and ours hold.
        for number in range(300):
            host.events.publish("event", {"n": number, "filler": "x" * 50_000})
            await other.wait_for_event(lambda e, n=number: e["params"]["n"] == n)  # type: ignore[misc]
        assert "is dropped: it left" in caplog.text
        sent = host.listener.deliveries[Spoken.STOMP]
        assert sent.clients_dropped == 1
        assert 0 < sent.events_dropped < sent.events_sent - 300
        assert await other.call("echo") == {}
        await other.close()
        writer.transport.abort()


async def test_requests_wait_while_a_client_does_not_read_their_replies(tmp_path: Path) -> None:
    """The client gets every reply in the end, and the daemon never holds more than a few."""
    async with listening(tmp_path, max_buffer_bytes=65536) as host:
        reader, writer = await stomp_client(host)
        count = 500
        writer.write(b"".join(request("big", n, size=100_000) for n in range(count)))
        other = await connect("127.0.0.1", host.port)
        await other.call("echo")
        assert len(host.verbs.calls) < count
        replies = [result(frame) for frame in await read_frames_of_any_size(reader, count)]
        assert [r["id"] for r in replies] == list(range(count))
        await other.close()
        writer.close()


async def read_frames_of_any_size(reader: asyncio.StreamReader, count: int) -> list[bytes]:
    received = b""
    chunks = []
    while count > len(chunks):
        received += await reader.read(1 << 20)
        *whole, received = received.split(b"\0")
        chunks += whole
    return chunks


async def test_heartbeats_are_sent_and_expected(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        reader, writer = await stomp_client(host, heartbeats="100,100")
        # We stay silent: at least one heart-beat comes, then the reason why it ends.
        rest = await reader.read()
        assert rest.startswith(b"\n")
        assert b"expected a heart-beat every 100 ms" in rest
        writer.close()


async def test_a_peer_that_keeps_its_heartbeats_stays(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        reader, writer = await stomp_client(host, heartbeats="500,500")
        # Longer than the daemon's patience of 875 ms, which a beat every 300 ms measures.
        for _ in range(4):
            assert await reader.readexactly(1) == b"\n"
            writer.write(b"\n")
        writer.write(request("echo", 1))
        assert result((await read_frames(reader, 1))[0])["result"] == {}
        writer.close()


async def test_a_client_that_is_not_listened_to_is_not_taken_for_a_silent_one() -> None:
    silences: list[float] = []
    heart = Heart(lambda: None, silences.append)
    heart.start(send_every_ms=0, expect_every_ms=1000)
    heart.deaf = True
    heart.last_heard -= 100
    heart._check()
    assert not silences
    heart.deaf = False
    heart.last_heard -= 100
    heart._check()
    assert silences
    heart.stop()


async def test_closing_tells_clients_why(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        reader, writer = await stomp_client(host)

        async def last_words() -> bytes:
            said = await reader.read()
            writer.close()
            return said

        hearing = asyncio.ensure_future(last_words())
        await host.listener.close()
        assert b"the daemon is shutting down; connect again later" in await hearing


async def test_an_error_reply_is_an_error(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        engine = await connect("127.0.0.1", host.port)
        with pytest.raises(RemoteError) as e:
            await engine.call("nonsense")
        assert (e.value.code, e.value.message, e.value.data) == (
            1,
            "no nonsense",
            {"verb": "nonsense"},
        )
        await engine.close()


# --- a client that others wrote ----------------------------------------------------------------


class Listening(stomp.ConnectionListener):
    """Collects what stomp.py hears."""

    def __init__(self) -> None:
        self.messages: list[stomp.utils.Frame] = []
        self.heard = threading.Condition()

    def on_message(self, frame: stomp.utils.Frame) -> None:
        with self.heard:
            self.messages.append(frame)
            self.heard.notify_all()

    def wait_for(self, count: int) -> list[stomp.utils.Frame]:
        with self.heard:
            assert self.heard.wait_for(lambda: len(self.messages) >= count, timeout=30)
        return self.messages


@pytest.mark.parametrize("tls", [False, True])
async def test_stomp_py_works(tmp_path: Path, tls: bool) -> None:
    async with listening(tmp_path, tls=tls) as host:
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, play_stomp_py, host, tls, loop)


def play_stomp_py(host: Host, tls: bool, loop: asyncio.AbstractEventLoop) -> None:
    address = [("127.0.0.1", host.port)]
    client = stomp.Connection12(address, heartbeats=(2000, 2000))
    if tls:
        engine = host.pki.engine
        client.set_ssl(
            address, key_file=str(engine.key), cert_file=str(engine.cert), ca_certs=str(host.pki.ca)
        )
    heard = Listening()
    client.set_listener("", heard)
    client.connect(wait=True)
    client.subscribe("jms.queue", id="events:1")
    client.subscribe("my:replies", id="replies")
    body = json.dumps({"jsonrpc": "2.0", "method": "echo", "params": {"ž": "\0"}, "id": 1})
    headers = {"reply-to": "my:replies", "receipt": "sent"}
    client.send("jms.topic.vdsm_requests", body, headers=headers)
    (reply,) = heard.wait_for(1)
    assert json.loads(reply.body)["result"] == {"ž": "\0"}
    assert reply.headers["subscription"] == "replies"
    loop.call_soon_threadsafe(host.events.publish, "an event", {})
    _, event = heard.wait_for(2)
    assert json.loads(event.body)["method"] == "an event"
    assert event.headers["subscription"] == "events:1"
    client.disconnect()
