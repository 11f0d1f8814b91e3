# SPDX-License-Identifier: GPL-2.0-or-later
"""What oVirt's own engine makes of the wire: its client's ways, played on real TLS records.

The client hands on one STOMP frame of each TLS record, and the next one only when more bytes come;
after a lost connection it sends what it had queued before it says CONNECT; a close_notify leaves it
deaf until its heart-beat is overdue.
"""

from __future__ import annotations

import asyncio
import functools
import json
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Callable

import pytest

from tests.unit.transport.serving import Host, listening
from vdsmcinder.stomp.frames import Decoder, Frame, encode
from vdsmcinder.transport import stomp_server

CONNECT = Frame("CONNECT", {"accept-version": "1.2", "host": "host1", "heart-beat": "0,0"})
REPLIES = Frame("SUBSCRIBE", {"id": "r", "destination": "jms.topic.vdsm_responses"})
EVENTS = Frame("SUBSCRIBE", {"id": "e", "destination": "jms.queue.events", "receipt": "e"})
TIMEOUT_S = 30


def call(request_id: int, verb: str = "echo", **params: Any) -> Frame:
    body = {"jsonrpc": "2.0", "method": verb, "params": params, "id": request_id}
    about = {"destination": "jms.topic.vdsm_requests", "reply-to": "jms.topic.vdsm_responses"}
    return Frame("SEND", about, json.dumps(body).encode())


class EngineClient:
    """Speaks TLS by hand, to see the records: blocking, so it is run in a thread."""

    def __init__(self, host: Host) -> None:
        self._sock = socket.create_connection(("127.0.0.1", host.port), TIMEOUT_S)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = host.engine_tls.wrap_bio(
            self._incoming, self._outgoing, server_hostname="127.0.0.1"
        )
        self._wire = bytearray()
        while not self._handshaken():
            pass

    def _handshaken(self) -> bool:
        try:
            self._tls.do_handshake()
            return True
        except ssl.SSLWantReadError:
            self._sock.sendall(self._outgoing.read())
            self._incoming.write(self._record())
            return False
        finally:
            self._sock.sendall(self._outgoing.read())

    def say(self, *frames: Frame) -> None:
        self._tls.write(b"".join(map(encode, frames)))
        self._sock.sendall(self._outgoing.read())

    def _record(self) -> bytes:
        """The next TLS record (RFC 8446, section 5.1); none at the end of the stream."""
        while len(self._wire) < 5 or len(self._wire) < 5 + int.from_bytes(self._wire[3:5], "big"):
            received = self._sock.recv(65536)
            if not received:
                assert not self._wire, "the stream ends in the middle of a record"
                return b""
            self._wire += received
        length = 5 + int.from_bytes(self._wire[3:5], "big")
        record = bytes(self._wire[:length])
        del self._wire[:length]
        return record

    def records(self) -> Iterator[bytes]:
        """What each record holds that carries data; to the end, which must be no close_notify."""
        while record := self._record():
            self._incoming.write(record)
            try:
                data = self._tls.read(65536)
                assert data, "close_notify"
                yield data
            except ssl.SSLWantReadError:
                pass  # a ticket for another session

    def frames(self, count: int) -> list[Frame]:
        """The next frames, each of which has come whole and alone in a record."""
        heard = []
        for data in self.records():
            decoder = Decoder()
            decoder.receive(data)
            frame = decoder.next_frame()
            assert frame is not None, "a frame goes on in the next record"
            assert decoder.unfinished is None and decoder.next_frame() is None, "a second frame"
            heard.append(frame)
            if len(heard) == count:
                break
        return heard

    def close(self) -> None:
        self._sock.close()


async def test_replies_and_events_come_one_in_each_record(tmp_path: Path) -> None:
    def play(host: Host, publish: Callable[[], object]) -> list[Frame]:
        client = EngineClient(host)
        client.say(CONNECT, REPLIES, EVENTS)
        heard = client.frames(2)
        client.say(*(call(n) for n in range(200)))
        publish()
        heard += client.frames(201)
        client.close()
        return heard

    async with listening(tmp_path, tls=True) as host:
        loop = asyncio.get_running_loop()
        publish = functools.partial(
            loop.call_soon_threadsafe, host.events.publish, "|virt|VM_status|x", {}
        )
        heard = await asyncio.to_thread(play, host, publish)
    assert [frame.command for frame in heard[:2]] == ["CONNECTED", "RECEIPT"]
    replies = [json.loads(frame.body) for frame in heard[2:]]
    assert sorted(reply["id"] for reply in replies if "id" in reply) == list(range(200))
    assert sum("id" not in reply for reply in replies) == 1


async def test_a_client_that_says_so_gets_several_frames_in_a_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # On a slow machine one reply may take a turn of its own.
    monkeypatch.setattr(stomp_server, "AT_ONCE_S", 60)

    def play(host: Host) -> bytes:
        client = EngineClient(host)
        client.say(Frame("CONNECT", {**CONNECT.headers, "gathered-frames": "true"}), REPLIES)
        assert next(client.records()).startswith(b"CONNECTED")
        client.say(call(1), call(2), call(3))
        gathered = next(client.records())
        client.close()
        return gathered

    async with listening(tmp_path, tls=True) as host:
        assert (await asyncio.to_thread(play, host)).count(b"\0") == 3


async def test_what_was_queued_before_connect_does_no_harm(tmp_path: Path) -> None:
    def play(host: Host) -> list[Frame]:
        client = EngineClient(host)
        client.say(call(1), REPLIES, call(2), CONNECT, CONNECT, call(3))
        heard = client.frames(4)
        client.close()
        return heard

    async with listening(tmp_path, tls=True) as host:
        heard = await asyncio.to_thread(play, host)
        assert [verb for verb, _, _ in host.verbs.calls] == ["echo", "echo"]
    answered = [json.loads(frame.body)["id"] for frame in heard if frame.command == "MESSAGE"]
    assert answered == [2, 3]
    assert [frame.command for frame in heard].count("CONNECTED") == 2


@pytest.mark.parametrize("last", ["farewell", "many"])
async def test_the_end_is_a_cut_after_the_last_word(tmp_path: Path, last: str) -> None:
    count = 1 if last == "farewell" else 2000

    def connect(host: Host) -> EngineClient:
        client = EngineClient(host)
        client.say(CONNECT, REPLIES)
        client.frames(1)
        return client

    def listen(client: EngineClient) -> list[bytes]:
        heard = list(client.records())
        client.close()
        return heard

    async with listening(tmp_path, tls=True) as host:
        client = await asyncio.to_thread(connect, host)
        # More than any buffer holds, and only then is it read.
        client.say(*(call(n, "big", size=10_000) for n in range(count)), Frame("DISCONNECT", {}))
        heard = await asyncio.to_thread(listen, client)
    assert len(heard) == count


async def test_a_daemon_that_stops_says_so_and_cuts(tmp_path: Path) -> None:
    def connect(host: Host) -> EngineClient:
        client = EngineClient(host)
        client.say(CONNECT, REPLIES)
        client.frames(1)
        return client

    async with listening(tmp_path, tls=True) as host:
        client = await asyncio.to_thread(connect, host)
        listening_on = asyncio.create_task(asyncio.to_thread(lambda: list(client.records())))
    heard = await listening_on
    assert len(heard) == 1
    assert b"the daemon is shutting down" in heard[0]
    client.close()
