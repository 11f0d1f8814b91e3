# SPDX-License-Identifier: GPL-2.0-or-later
"""The wire as clients of several kinds meet it: STOMP, HTTP, server-sent events, TLS.

Run in the lab: `python -m lab exec -- .venv/bin/pytest tests/functional/test_wire.py`. stomp.py and
http.client stand for clients that share no code with the daemon.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import queue
import re
import socket
import ssl
import stat
import threading
from contextlib import closing, contextmanager, suppress

import pytest
import stomp

from lab.base import run
from lab.engine import Engine, client_context, new_id
from lab.host.daemon import HostDaemon
from lab.pki import Identity
from tests.functional.helpers import (
    OPTIONS,
    destroyed_at_last,
    refused,
    session_fixture,
    status,
    stray,
)
from tests.unit import engine_parsing
from vdsmcinder.stomp.client import REQUESTS, SessionLost, connect
from vdsmcinder.stomp.frames import Frame

pytestmark = pytest.mark.asyncio(loop_scope="session")

PING = json.dumps({"jsonrpc": "2.0", "method": "Host.ping2", "params": {}, "id": "p"}).encode()
PONG = {"jsonrpc": "2.0", "id": "p", "result": True}
TIMEOUT_S = 30


@session_fixture("module")
async def vm(engine):
    """The id of a VM without disks that is Up; tests that pause it continue it."""
    async with destroyed_at_last(engine, new_id()) as vm_id:
        yield await engine.run(engine.document(vm_id))


async def pause_and_continue(engine, vm_id):
    """Two status changes; returns when this engine has heard of both."""
    await engine.call("VM.pause", vmID=vm_id)
    await engine.wait_status(vm_id, "Paused")
    await engine.call("VM.cont", vmID=vm_id)
    await engine.wait_status(vm_id, "Up")


def statuses(events, vm_id):
    return [e["params"][vm_id]["status"] for e in events if vm_id in e["params"]]


# STOMP, as the engine speaks it


async def test_clients_with_the_same_ids_and_reply_to_get_their_own_answers(engine, lab, daemon):
    async with Engine(lab, daemon) as one, Engine(lab, daemon) as two:
        # Both number their requests alike, and both have their answers sent to the same name.
        calls = [
            client.call("Host.echo", message=f"{name} {n}")
            for n in range(100)
            for client, name in ((one, "one"), (two, "two"))
        ]
        answers = await asyncio.gather(*calls)
        assert answers == [f"{name} {n}" for n in range(100) for name in ("one", "two")]
        assert one.session.strays == two.session.strays == []


async def test_a_batch_is_answered_in_one_message(engine, vm):
    batch = [
        {"jsonrpc": "2.0", "method": "Host.echo", "params": ["a"], "id": "a"},
        {"jsonrpc": "2.0", "method": "Host.ping2"},
        {"jsonrpc": "2.0", "method": "VM.getStats", "params": {"vmID": vm}, "id": 7},
    ]
    engine.session.send_body(json.dumps(batch).encode())
    replies = await stray(engine)
    assert engine.session.strays == []
    by_id = {reply["id"]: reply["result"] for reply in replies}
    assert by_id["a"] == "a"
    assert by_id[7][0]["status"] == "Up"
    assert len(replies) == 2


async def test_ovirts_engine_can_read_every_answer(engine, vm):
    """What it casts to which type, from a real host and VM; tests/unit/engine_parsing.py."""
    engine_parsing.read_capabilities(await engine.call("Host.getCapabilities"))
    stats = await engine.call("Host.getStats")
    engine_parsing.read(stats, engine_parsing.HOST_STATISTICS, "stats")
    (of_one,) = await engine.call("VM.getStats", vmID=vm)
    for told in (of_one, *await engine.call("Host.getAllVmStats")):
        engine_parsing.read_vm_stats(told)
    for full in (False, True):
        for told in await engine.call("Host.getVMList", fullStatus=full):
            engine_parsing.read(told, engine_parsing.VM_DYNAMIC, "list")
    for told in await engine.call("Host.getVMFullList"):
        engine_parsing.read(told, engine_parsing.VM_DEFINITION, "definition")


async def test_a_notification_acts_and_is_not_answered(engine, vm):
    engine.session.notify("VM.pause", {"vmID": vm})
    await engine.wait_status(vm, "Paused")
    engine.session.notify("VM.cont", {"vmID": vm})
    await engine.wait_status(vm, "Up")
    await engine.call("Host.ping2")
    assert engine.session.strays == []


async def test_parameters_go_by_position_too(engine, vm):
    assert await engine.session.call("Host.echo", ["by position"]) == "by position"
    (stats,) = await engine.session.call("VM.getStats", [vm])
    assert stats["vmId"] == vm
    assert await engine.session.call("Host.getVMList", [False, [vm], True]) == [vm]


async def test_events_reach_every_subscriber_alike(engine, lab, daemon, vm):
    async with Engine(lab, daemon) as one, Engine(lab, daemon) as two:
        # Of a parent of the events, next to the events themselves: twice.
        await two.session.subscribe("jms.queue")
        await pause_and_continue(engine, vm)
        for client, copies in ((one, 1), (two, 2)):
            for status in ("Paused", "Up"):
                events = [await client.wait_status(vm, status, TIMEOUT_S) for _ in range(copies)]
                assert events == [events[0]] * copies


async def test_the_flow_id_is_in_the_log_lines_that_a_request_causes(engine, daemon, vm):
    logged = daemon.log.stat().st_size
    await engine.session.call("VM.pause", {"vmID": vm}, flow_id="flow-of-pause")
    await asyncio.gather(
        engine.session.call("Host.echo", ["x"], flow_id="flow-a"),
        engine.session.call("VM.cont", {"vmID": vm}, flow_id="flow-b"),
        engine.call("Host.ping2"),
    )
    over_http = {"ovirtCorrelationId": "flow-over-http"}
    assert (await asyncio.to_thread(post, unix(daemon), PING, over_http))[1] == PONG
    lines = daemon.log.read_bytes()[logged:].decode().splitlines()

    def of(flow):
        return [line for line in lines if f"[flow {flow}]" in line]

    marks = f"[flow flow-of-pause] [vm {vm}]: "
    assert any(f"{marks}VM.pause of VM {vm} called by " in line for line in lines)
    assert any(f"{marks}VM.pause of VM {vm} ok in " in line for line in lines)
    assert of("flow-a") and all("Host.echo" in line for line in of("flow-a"))
    assert of("flow-b") and not [line for line in of("flow-b") if "Host." in line]
    assert of("flow-over-http") and all("Host.ping2" in line for line in of("flow-over-http"))
    assert not [line for line in lines if "Host.ping2" in line and "[flow flow-b]" in line]


async def test_a_request_that_could_not_be_answered_is_not_run(lab, daemon, vm):
    destroy = json.dumps({"jsonrpc": "2.0", "method": "VM.destroy", "params": [vm], "id": 1})
    async with Engine(lab, daemon) as other:
        about = {"destination": REQUESTS, "reply-to": "elsewhere"}
        other.session.send(Frame("SEND", about, destroy.encode()))
        assert await other.call("Host.ping2") is True
        assert await status(other, vm) == "Up"


# STOMP, as stomp.py speaks it


class Ear(stomp.ConnectionListener):
    """What stomp.py hears, by kind."""

    def __init__(self):
        self.messages = queue.Queue()
        self.receipts = queue.Queue()
        self.heartbeats = queue.Queue()
        self.errors = queue.Queue()
        self.gone = threading.Event()

    def on_message(self, frame):
        self.messages.put((frame.headers, json.loads(frame.body)))

    def on_receipt(self, frame):
        self.receipts.put(frame.headers["receipt-id"])

    def on_heartbeat(self):
        self.heartbeats.put(None)

    def on_error(self, frame):
        self.errors.put(frame.body)

    def on_disconnected(self):
        self.gone.set()


@contextmanager
def independent_client(lab, daemon):
    """A connection of stomp.py and what it hears; not connected yet."""
    address = (daemon.host.address, daemon.port)
    client = stomp.StompConnection12([address], heartbeats=(2000, 2000), reconnect_attempts_max=1)
    identity = lab.pki.engine
    client.set_ssl(
        [address],
        cert_file=str(identity.cert),
        key_file=str(identity.key),
        ca_certs=str(lab.pki.ca),
    )
    ear = Ear()
    client.set_listener("ear", ear)
    try:
        yield client, ear
    finally:
        if client.is_connected():
            client.disconnect()


def wait_for(told):
    return told.get(timeout=TIMEOUT_S)


async def test_stomp_py_is_served(engine, lab, daemon, vm):
    with independent_client(lab, daemon) as (client, ear):
        await asyncio.to_thread(client.connect, wait=True)
        client.subscribe("mine", id="replies")
        client.subscribe("jms.queue.events", id="events", receipt="subscribed")
        assert await asyncio.to_thread(wait_for, ear.receipts) == "subscribed"

        request = {"jsonrpc": "2.0", "method": "VM.getInfo", "params": {"vmID": vm}, "id": "é:\n"}
        headers = {"reply-to": "mine", "receipt": "taken", "odd": "a:b\\c\nd"}
        client.send(REQUESTS, json.dumps(request), headers=headers)
        assert await asyncio.to_thread(wait_for, ear.receipts) == "taken"
        about, reply = await asyncio.to_thread(wait_for, ear.messages)
        assert (about["subscription"], about["destination"]) == ("replies", "mine")
        assert about["content-type"] == "application/json"
        assert (reply["id"], reply["result"]["vmId"]) == ("é:\n", vm)

        await pause_and_continue(engine, vm)
        for status in ("Paused", "Up"):
            about, event = await asyncio.to_thread(wait_for, ear.messages)
            assert (about["subscription"], about["destination"]) == ("events", "jms.queue.events")
            assert event["method"] == f"|virt|VM_status|{vm}"
            assert event["params"][vm]["status"] == status
            assert isinstance(event["params"]["notify_time"], int)

        for _ in range(2):
            await asyncio.to_thread(wait_for, ear.heartbeats)
        client.unsubscribe("events")
        client.disconnect(receipt="bye")
        assert await asyncio.to_thread(wait_for, ear.receipts) == "bye"
        assert await asyncio.to_thread(ear.gone.wait, TIMEOUT_S)
        assert ear.messages.empty()
        assert ear.errors.empty()


async def test_stomp_py_is_told_what_it_did_wrong(lab, daemon):
    with independent_client(lab, daemon) as (client, ear):
        await asyncio.to_thread(client.connect, wait=True)
        client.send("jms.topic.elsewhere", "{}", headers={"reply-to": "mine"})
        error = await asyncio.to_thread(wait_for, ear.errors)
        assert (
            "SEND to destination 'jms.topic.elsewhere'; expected jms.topic.vdsm_requests" in error
        )
        assert await asyncio.to_thread(ear.gone.wait, TIMEOUT_S)


# HTTP


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path):
        super().__init__("localhost", timeout=TIMEOUT_S)
        self._path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(TIMEOUT_S)
        self.sock.connect(str(self._path))


def unix(daemon):
    return UnixConnection(daemon.unix_socket)


def tls(daemon, identity=None):
    context = client_context(daemon.pki, identity or daemon.pki.engine)
    address = daemon.host.address
    return http.client.HTTPSConnection(address, daemon.port, timeout=TIMEOUT_S, context=context)


@pytest.fixture(params=[unix, tls], ids=["unix", "tls"])
def dial(request, daemon):
    """Makes an HTTP connection, one way or the other."""
    return lambda: request.param(daemon)


def ask(connection, method, path, body=None, headers=None):
    """Status and content of an answer; the connection is closed."""
    with closing(connection):
        connection.request(method, path, body, headers or {})
        response = connection.getresponse()
        content = response.read()
    return response.status, json.loads(content) if content else None


def post(connection, body, headers=None):
    return ask(connection, "POST", "/", body, headers)


async def test_json_rpc_over_http(dial, vm):
    assert await asyncio.to_thread(post, dial(), PING) == (200, PONG)
    stats = {"jsonrpc": "2.0", "method": "VM.getStats", "params": [vm], "id": 1}
    code, reply = await asyncio.to_thread(post, dial(), json.dumps([stats, stats]).encode())
    assert code == 200
    assert [r["result"][0]["vmId"] for r in reply] == [vm, vm]
    notification = {"jsonrpc": "2.0", "method": "Host.ping2"}
    answer = await asyncio.to_thread(post, dial(), json.dumps(notification).encode())
    assert answer == (204, None)
    code, reply = await asyncio.to_thread(post, dial(), b"{")
    assert (code, reply["error"]["code"]) == (200, -32700)


async def test_one_http_connection_carries_several_requests(dial):
    def several():
        with closing(dial()) as connection:
            for _ in range(3):
                connection.request("POST", "/", iter([PING[:9], PING[9:]]))  # chunked
                yield json.loads(connection.getresponse().read())

    assert await asyncio.to_thread(lambda: list(several())) == [PONG] * 3


async def test_health(dial):
    code, health = await asyncio.to_thread(ask, dial(), "GET", "/health")
    assert (code, health["ready"], health["status"]) == (200, True, "ready")


async def test_the_unix_socket_is_roots_alone(daemon):
    mode = daemon.unix_socket.stat()
    assert stat.S_ISSOCK(mode.st_mode)
    assert stat.S_IMODE(mode.st_mode) == 0o600
    assert mode.st_uid == 0


async def test_status_changes_come_as_server_sent_events(engine, dial, vm):
    lines = queue.Queue()

    def listen(connection):
        connection.request("GET", "/events", headers={"Accept": "text/event-stream"})
        response = connection.getresponse()
        lines.put(response.headers["Content-Type"])
        with suppress(OSError, ValueError):  # hung up below
            for line in response:
                lines.put(line.decode().rstrip("\n"))

    connection = dial()
    listening = asyncio.create_task(asyncio.to_thread(listen, connection))
    assert await asyncio.to_thread(wait_for, lines) == "text/event-stream"
    assert await asyncio.to_thread(wait_for, lines) == ":subscribed"
    assert await asyncio.to_thread(wait_for, lines) == ""
    await pause_and_continue(engine, vm)
    told = [await asyncio.to_thread(wait_for, lines) for _ in range(6)]
    connection.sock.shutdown(socket.SHUT_RDWR)
    await listening
    connection.close()
    events = [json.loads(line.removeprefix("data:")) for line in told if line.startswith("data:")]
    assert statuses(events, vm) == ["Paused", "Up"]
    assert [line[:3] for line in told] == ["id:", "dat", ""] * 2


@pytest.mark.parametrize(
    ("request_line", "headers", "code", "words"),
    [
        ("GET /", {}, 405, "GET / is not served; use POST"),
        ("POST /nope", {}, 404, "Nothing is served at /nope; there is POST /"),
        ("DELETE /events", {}, 405, "use GET"),
        ("POST /", {"Origin": "https://example.org"}, 403, "Requests of web pages are refused"),
    ],
)
async def test_odd_requests_are_told_what_is_served(dial, request_line, headers, code, words):
    method, path = request_line.split()
    answered, content = await asyncio.to_thread(ask, dial(), method, path, PING, headers)
    assert answered == code
    assert words in content["error"]
    assert await asyncio.to_thread(post, dial(), PING) == (200, PONG)


def raw_answer(connection, data):
    """Everything that comes back for these bytes until the daemon hangs up."""
    with closing(connection):
        connection.connect()
        connection.sock.sendall(data)
        answer = b""
        with suppress(ConnectionError):
            while chunk := connection.sock.recv(65536):
                answer += chunk
    return answer


def hang_up_after(connection, data):
    with closing(connection):
        connection.connect()
        connection.sock.sendall(data)


HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"


async def test_a_body_shorter_than_announced_is_not_run(dial, daemon):
    logged = daemon.log.stat().st_size
    await asyncio.to_thread(hang_up_after, dial(), HEAD % (len(PING) + 1) + PING)
    assert await asyncio.to_thread(post, dial(), PING) == (200, PONG)
    assert daemon.log.read_bytes()[logged:].count(b"Host.ping2 called") == 1


@pytest.mark.parametrize(
    "data",
    [
        HEAD % len(PING) + PING + b"swordfish",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: swordfish\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nswordfish\r\n\r\n",
        b"POST / HTTP/9.9\r\nHost: swordfish\r\n\r\n",
        b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    ],
    ids=["longer body", "length", "negative length", "header", "version", "long"],
)
async def test_what_is_not_http_is_refused_and_not_repeated(dial, daemon, data):
    logged = daemon.log.stat().st_size
    head, _, body = (await asyncio.to_thread(raw_answer, dial(), data)).partition(b"\r\n\r\n")
    assert head.split(b" ")[1] == b"400"
    assert json.loads(body)["error"].startswith("This is no HTTP request (")
    assert await asyncio.to_thread(post, dial(), PING) == (200, PONG)
    lines = daemon.log.read_bytes()[logged:]
    for told in (head, body, lines):
        assert b"swordfish" not in told
        assert b"Traceback" not in told


# TLS


@pytest.fixture(scope="module")
def expired(lab, tmp_path_factory):
    """A client certificate of the right CA that was valid until yesterday."""
    directory = tmp_path_factory.mktemp("expired")
    identity = Identity(directory / "cert.pem", directory / "key.pem")
    request = directory / "request"
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subject = ["-subj", "/O=lab/CN=late", "-keyout", identity.key, "-out", request]
    run(["openssl", "req", "-new", *curve, *subject])
    ca, key = lab.pki.ca, lab.pki.ca.with_suffix(".key")
    signed = ["-CA", ca, "-CAkey", key, "-CAserial", directory / "serial", "-CAcreateserial"]
    run(["openssl", "x509", "-req", "-in", request, "-days", "-1", *signed, "-out", identity.cert])
    return identity


@pytest.fixture(params=["none", "foreign", "expired"])
def stranger(request, lab, expired):
    """What a client shows that must not come in, and what the log says of it."""
    return {
        "none": (None, "peer did not return a certificate"),
        "foreign": (lab.pki.foreign, "unable to get local issuer certificate"),
        "expired": (expired, "certificate has expired"),
    }[request.param]


async def test_a_client_without_a_good_certificate_does_not_come_in(lab, stranger):
    identity, reason = stranger
    # Of its own, for of one address the log has a line a minute.
    daemon = HostDaemon(lab.hosts["host2"], lab.pki, OPTIONS, "daemon-strangers")
    with daemon:
        context = client_context(daemon.pki, identity)
        address, port = daemon.host.address, daemon.port
        # With TLS 1.3 a client learns it only when it reads.
        with pytest.raises((OSError, SessionLost)):
            await connect(address, port, context)

        def over_http():
            dialled = http.client.HTTPSConnection(address, port, timeout=TIMEOUT_S, context=context)
            return post(dialled, PING)

        with pytest.raises((OSError, http.client.RemoteDisconnected)):
            await asyncio.to_thread(over_http)
        async with Engine(lab, daemon) as engine:
            assert await engine.call("Host.ping2") is True
        lines = daemon.log.read_text()
        remedy = "; it needs a valid certificate that the CA in listen.ca signed"
        (told,) = [line for line in lines.splitlines() if reason in line]
        assert "WARNING" in told and " refused: " in told and remedy in told
        assert "Traceback" not in lines
        assert not re.search(r"called by (?!CN=engine,O=lab)", lines)


async def test_plain_text_on_the_tls_port_is_refused(engine, daemon):
    with pytest.raises((OSError, SessionLost)):
        await connect(daemon.host.address, daemon.port)
    assert await engine.call("Host.ping2") is True


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
async def test_tls_1_2_and_1_3_are_served(daemon, version):
    context = client_context(daemon.pki, daemon.pki.engine)
    context.minimum_version = context.maximum_version = version
    session = await connect(daemon.host.address, daemon.port, context)
    assert await session.call("Host.ping2") is True
    with refused(-32601):
        await session.call("Host.nothing")
    await session.close()
