# SPDX-License-Identifier: GPL-2.0-or-later
"""Neither reply nor log repeats a key that stands where the protocols have words of their own.

What stands in requests is in tests/unit/rpc/test_leaks.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.functional.leaks import new_key, shown
from tests.unit.transport.serving import listening
from vdsmcinder import logs

CONNECT = "CONNECT\naccept-version:1.2\nhost:x\nheart-beat:0,0\n\n\0"
SEND = "SEND\ndestination:jms.topic.vdsm_requests\n"
BODY = '{{"method":"x"}}'
# What is sent; each ends with something that is refused, so that all has been answered at the end.
WIRE = {
    "STOMP version": "CONNECT\naccept-version:{}\nhost:x\n\n\0",
    "STOMP heart-beat": "CONNECT\naccept-version:1.2\nheart-beat:{}\n\n\0",
    "STOMP login": "CONNECT\naccept-version:1.1\nhost:{0}\nlogin:{0}\npasscode:{0}\n\n\0",
    "STOMP command": "{}\n\n\0",
    "STOMP command after CONNECT": CONNECT + "{}\n\n\0",
    "STOMP frame that is not served": CONNECT + "BEGIN\ntransaction:{}\n\n\0",
    "STOMP header": CONNECT + "SEND\n{}\n\n\0",
    "STOMP header's name": CONNECT + SEND + "{}:1\ncontent-length:x\n\n\0",
    "STOMP escape": CONNECT + SEND + "a:{}\\t\n\n\0",
    "STOMP content-length": CONNECT + SEND + "content-length:{}\n\n\0",
    "STOMP destination": CONNECT + "SEND\ndestination:{}\n\n\0",
    "STOMP reply-to": CONNECT + SEND + "reply-to:{}\n\n" + BODY + "\0",
    "STOMP subscription": CONNECT + "SUBSCRIBE\nid:{0}\ndestination:a\nack:client\n\n\0",
    "STOMP subscription twice": CONNECT + "SUBSCRIBE\nid:{0}\ndestination:a\n\n\0" * 2,
    "HTTP path": "GET /{} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "HTTP query": "GET /nowhere?key={} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "HTTP method": "{} / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    "HTTP version": "GET / HTTP/{}\r\nHost: x\r\n\r\n",
    "HTTP length": "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n",
    "HTTP type": "POST / HTTP/1.1\r\nHost: x\r\nContent-Type: {}\r\nContent-Length: 14\r\n"
    "Connection: close\r\n\r\n" + BODY,
    "HTTP header's name": "GET / HTTP/1.1\r\nHost: x\r\n{}: x\r\nConnection: close\r\n\r\n",
    "HTTP origin": "POST / HTTP/1.1\r\nHost: x\r\nOrigin: {}\r\nConnection: close\r\n\r\n",
    "HTTP authorization": "PUT / HTTP/1.1\r\nHost: x\r\nAuthorization: Basic {}\r\n"
    "Connection: close\r\n\r\n",
}


@pytest.fixture
def masks(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """The log is masked as the daemon's is."""
    masks = logs.Masks()
    caplog.handler.addFilter(masks)
    yield
    caplog.handler.removeFilter(masks)


@pytest.mark.usefixtures("masks")
@pytest.mark.parametrize("name", WIRE)
async def test_a_key_among_the_protocols_words_is_not_repeated(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    key = new_key()
    with caplog.at_level(logging.DEBUG):
        async with listening(tmp_path) as host:
            reader, writer = await host.raw()
            writer.write(WIRE[name].format(key).encode())
            writer.write_eof()
            # A connection that is cut off has been answered as well.
            with contextlib.suppress(ConnectionResetError):
                reply = await asyncio.wait_for(reader.read(), 30)
            writer.close()
    assert shown(key, {"reply": reply, "log": caplog.text.encode()}) == []


@pytest.mark.usefixtures("masks")
def test_nor_does_the_trace_of_a_fault_repeat_it(caplog: pytest.LogCaptureFixture) -> None:
    key = new_key()
    try:
        try:
            int(key)
        except ValueError as e:
            raise KeyError(f"no member {key}") from e
    except KeyError:
        logging.getLogger("vdsmcinder").exception("a fault")
    (record,) = caplog.records
    assert "KeyError: " in caplog.text
    assert shown(key, {"log": f"{caplog.text} {vars(record)}".encode()}) == []
