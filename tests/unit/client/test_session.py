# SPDX-License-Identifier: GPL-2.0-or-later
"""The clients: what they get from a daemon, and what they say when they get nothing."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from tests.unit.certificates import copied_pki
from tests.unit.transport.serving import Host, listening
from vdsmcinder.client.exit_codes import CommandFailed
from vdsmcinder.client.session import Session, Unreachable, connect, over_unix
from vdsmcinder.errors import RemoteError
from vdsmcinder.stomp import client
from vdsmcinder.stomp.client import NoSuchEvent, SessionLost
from vdsmcinder.stomp.frames import Frame


async def run(func: Callable[..., Any], *args: Any) -> Any:
    """A blocking session's call, beside the loop that serves it."""
    return await asyncio.get_running_loop().run_in_executor(None, func, *args)


def options(at: Host, **changes: Any) -> argparse.Namespace:
    """What `vdsm-cinder --host` would say."""
    words = {
        "host": f"127.0.0.1:{at.port}",
        "socket": at.listen.unix_socket,
        "cert": str(at.pki.engine.cert),
        "key": str(at.pki.engine.key),
        "ca": str(at.pki.ca),
        "timeout": 60.0,
    }
    return argparse.Namespace(**{**words, **changes})


@pytest.mark.parametrize("tls", [False, True])
async def test_a_call(tmp_path: Path, tls: bool) -> None:
    async with listening(tmp_path, tls=tls) as host:
        session = connect(options(host) if tls else options(host, host=None))
        assert await run(session.call, "echo", {"a": "ž"}) == {"a": "ž"}
        assert await run(session.call, "echo", None, "flow-1") == {}
        assert host.verbs.calls[-1][2] == "flow-1"


async def test_an_error_of_the_daemon(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        session = over_unix(host.listen.unix_socket, 5)
        with pytest.raises(RemoteError) as e:
            await run(session.call, "nonsense")
        assert (e.value.code, e.value.message, e.value.data) == (
            1,
            "no nonsense",
            {"verb": "nonsense"},
        )
        assert str(e.value) == "no nonsense (code 1)"


async def test_what_http_refuses_is_told(tmp_path: Path) -> None:
    async with listening(tmp_path, max_frame_bytes=4096) as host:
        session = over_unix(host.listen.unix_socket, 5)
        with pytest.raises(CommandFailed, match="refused: The body is larger than 4096 bytes"):
            await run(session.call, "echo", {"a": "x" * 5000})


async def test_events_until_the_daemon_ends(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        events: Iterator[Any] = over_unix(host.listen.unix_socket, 5).events()
        first = asyncio.ensure_future(run(next, events))
        # The session does not tell when its stream has begun.
        while not first.done():
            host.events.publish("an event", {})
            await asyncio.wait([first], timeout=0.01)
        assert first.result()["method"] == "an event"
    with pytest.raises(Unreachable, match="ended the stream of events; it was stopped or"):
        list(events)


async def test_a_verb_that_takes_too_long(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        session = over_unix(host.listen.unix_socket, 0.05)
        with pytest.raises(Unreachable, match=r"did not answer in time; .* --timeout"):
            await run(session.call, "later")


def call(session: Session) -> str:
    """What the operator reads when a call fails."""
    with pytest.raises(Unreachable) as e:
        session.call("echo")
    assert e.value.exit_code == 3
    return str(e.value)


def test_no_daemon_on_the_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "sock"
    session = over_unix(str(path), 5)
    assert call(session) == (
        f"there is no socket {path}; start vdsm-cinderd, or name its socket by --socket"
    )
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as dead:
        dead.bind(str(path))
        assert call(session) == f"no daemon listens on {path} any more; start vdsm-cinderd"


async def test_what_keeps_a_tls_client_out_is_told(tmp_path: Path) -> None:
    async with listening(tmp_path, tls=True) as host:
        foreign = host.pki.foreign
        stranger = options(host, cert=str(foreign.cert), key=str(foreign.key))
        assert "does with a certificate that its CA did not sign" in await run(
            call, connect(stranger)
        )
        mistrusting = options(host, ca=str(host.pki.directory / "foreign-ca.pem"))
        assert "is not to be trusted: " in await run(call, connect(mistrusting))
        elsewhere = options(host, host=f"127.0.0.2:{host.port}")
        assert "nothing listens on 127.0.0.2" in await run(call, connect(elsewhere))


async def test_a_port_without_tls_is_told(tmp_path: Path) -> None:
    copied_pki(tmp_path / "pki")
    async with listening(tmp_path) as host:
        assert "does not speak TLS" in await run(call, connect(options(host)))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"cert": "/missing"}, "/missing does not exist; name the PEM file to use by --cert"),
        ({"ca": "/dev/null"}, "are not a certificate, its unencrypted key and a CA"),
        ({"host": "node7:http"}, "node7:http names no port after its colon"),
    ],
)
async def test_words_that_cannot_work_are_told(
    tmp_path: Path, change: dict[str, str], reason: str
) -> None:
    async with listening(tmp_path, tls=True) as host:
        with pytest.raises(CommandFailed, match=reason):
            connect(options(host, **change))


# --- the engine that the demo and the tests play -----------------------------------------------


async def test_calls_in_flight_get_their_own_answers(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        engine = await client.connect("127.0.0.1", host.port)
        slow = asyncio.ensure_future(engine.call("later"))
        answers = await asyncio.gather(*(engine.call("echo", {"n": n}) for n in range(50)))
        assert answers == [{"n": n} for n in range(50)]
        host.verbs.gate.set()
        assert await slow == "done"
        engine.notify("echo", {"a": 1})
        engine.send_body(b"not JSON")
        assert await engine.call("echo") == {}
        assert [reply["error"]["code"] for reply in engine.strays] == [-32700]
        assert not engine._calls
        await engine.close()


async def test_each_event_is_found_once(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        engine = await client.connect("127.0.0.1", host.port)
        await engine.subscribe_events()
        waiting = asyncio.ensure_future(engine.wait_for_event(lambda e: e["method"] == "late"))
        for name in ("a", "b", "a", "late"):
            host.events.publish(name, {})
        assert (await waiting)["method"] == "late"
        for _ in range(2):
            await engine.wait_for_event(lambda e: e["method"] == "a")
        with pytest.raises(NoSuchEvent, match=r"no such event within 0\.01 s; .*: b"):
            await engine.wait_for_event(lambda e: e["method"] == "a", timeout_s=0.01)
        await engine.close()


async def test_unsubscribed_means_no_more_events(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        engine = await client.connect("127.0.0.1", host.port)
        await engine.unsubscribe(await engine.subscribe(client.EVENTS))
        host.events.publish("a", {})
        await engine.call("echo")
        assert engine._events == []
        await engine.close()


async def test_all_who_wait_hear_why_a_session_ended(tmp_path: Path) -> None:
    async with listening(tmp_path) as host:
        engine = await client.connect("127.0.0.1", host.port)
        waiting = [
            asyncio.ensure_future(engine.call("later")),
            asyncio.ensure_future(engine.wait_for_event(lambda e: True)),
        ]
        await host.verbs.under_way.wait()
        engine.send(Frame("ACK", {"id": "1"}))
        for future in waiting:
            with pytest.raises(SessionLost, match="ACK is not served"):
                await future
        with pytest.raises(SessionLost, match="ACK is not served"):
            await engine.call("echo")
        await engine.close()


@contextlib.asynccontextmanager
async def server(*answers: bytes) -> AsyncIterator[int]:
    """A server that answers a client's first frames with these, and then says nothing; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for answer in answers:
            await reader.readuntil(b"\0")
            writer.write(answer)
        await reader.read()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as serving:
        yield serving.sockets[0].getsockname()[1]


async def test_a_daemon_that_falls_silent_is_given_up() -> None:
    connected = b"CONNECTED\nversion:1.2\nheart-beat:50,50\n\n\0"
    async with server(connected, b"RECEIPT\nreceipt-id:SUBSCRIBE-2\n\n\0") as port:
        engine = await client.connect("127.0.0.1", port, heartbeat_ms=50)
        with pytest.raises(SessionLost, match="nothing was heard of the daemon for 0"):
            await engine.call("echo")


async def test_a_server_that_does_not_speak_stomp_is_given_up() -> None:
    async with server(b"220 mail.example.com ESMTP\r\n") as port:
        with pytest.raises(SessionLost, match="the daemon broke the protocol: a frame begins"):
            await client.connect("127.0.0.1", port)
