# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether monitors can be reached, against real sockets on loopback."""

from __future__ import annotations

import asyncio
import socket
from contextlib import asynccontextmanager

import pytest

from vdsmcinder.ceph.monitor_address import MonitorHost
from vdsmcinder.ceph.monitor_survey import all_silent, in_words, survey


@asynccontextmanager
async def saying(words):
    """The port of a server that says this to whoever connects, and then hangs up."""

    async def serve(_reader, writer):
        writer.write(words)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


@pytest.fixture
async def listening():
    async with saying(b"ceph v2\n\x10\x00") as port:
        yield port


@pytest.fixture
def closed_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        yield s.getsockname()[1]


async def test_each_is_told_of(listening, closed_port):
    closed, answering = MonitorHost("127.0.0.1", closed_port), MonitorHost("localhost", listening)
    found = await survey([closed, answering], 5)
    assert found == {closed: "connection refused", answering: None}
    assert in_words(found) == "127.0.0.1 (connection refused), localhost (answers)"


async def test_a_silent_one_costs_the_deadline():
    # A full backlog: the kernel drops further connection requests.
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen(0)
        port = s.getsockname()[1]
        fillers = [socket.socket() for _ in range(4)]
        for filler in fillers:
            filler.setblocking(False)
            filler.connect_ex(("127.0.0.1", port))
        reasons = await survey([MonitorHost("127.0.0.1", port)], 0.2)
        for filler in fillers:
            filler.close()
    assert list(reasons.values()) == ["no answer within 0.2 s"]


async def test_one_that_accepts_and_says_nothing_costs_the_deadline():
    # As a monitor that hangs: its kernel goes on accepting connections.
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        reasons = await survey([MonitorHost("127.0.0.1", s.getsockname()[1])], 0.2)
    assert list(reasons.values()) == ["no answer within 0.2 s"]


@pytest.mark.parametrize("words", [b"SSH-2.0-OpenSSH_9.2\r\n", b""])
async def test_what_is_no_monitor_is_told_from_one(words):
    async with saying(words) as port:
        reasons = await survey([MonitorHost("127.0.0.1", port)], 5)
    assert list(reasons.values()) == ["not a Ceph monitor"]


def test_a_cluster_is_silent_when_none_of_its_monitors_answers():
    one, two = MonitorHost("10.0.0.1", 3300), MonitorHost("10.0.0.2", 3300)
    assert all_silent({one: "connection refused", two: "no answer within 2.5 s"})
    assert not all_silent({one: "connection refused", two: None})
    # Of one that a configuration file names nothing is known.
    assert not all_silent({})
