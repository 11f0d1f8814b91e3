# SPDX-License-Identifier: GPL-2.0-or-later
"""Names of hosts: while no name server answers, nobody else waits, and old answers are as good."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncIterator, Iterator

import pytest

from tests.unit.transport.serving import until
from vdsmcinder.system import names
from vdsmcinder.system.names import Names

ADDRESS = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 6789))


class Servers:
    """Stand in for name servers: answer at once, or not before the gate is open, or with a failure.

    asked: for which names. at_once, most: how many threads wait, and did at most.
    """

    def __init__(self) -> None:
        self.asked: list[object] = []
        self.answer = [ADDRESS]
        self.failure: OSError | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.at_once = self.most = 0
        self._lock = threading.Lock()

    def look(self, asked: names._Asked) -> names.Addresses:
        with self._lock:
            self.asked.append(asked.host)
            self.at_once += 1
            self.most = max(self.most, self.at_once)
        self.gate.wait(60)
        with self._lock:
            self.at_once -= 1
        if self.failure is not None:
            raise self.failure
        return list(self.answer)


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> Iterator[Servers]:
    servers = Servers()
    monkeypatch.setattr(names, "_look", servers.look)
    yield servers
    servers.gate.set()


@contextlib.asynccontextmanager
async def installed() -> AsyncIterator[Names]:
    """The running loop looks names up by these."""
    found = Names()
    found.install(asyncio.get_running_loop())
    yield found
    found.close()


async def look_up(host: str) -> object:
    loop = asyncio.get_running_loop()
    return await loop.getaddrinfo(host, 6789, type=socket.SOCK_STREAM)


async def test_an_outage_leaves_the_threads_for_files_alone(servers: Servers) -> None:
    async with installed() as found:
        servers.gate.clear()
        asked = [asyncio.ensure_future(look_up(f"mon{n}.example.com")) for n in range(50)]
        await until(lambda: servers.at_once == names.THREADS, "no thread began")
        # As many as there may be threads by default.
        assert await asyncio.gather(*(asyncio.to_thread(str, n) for n in range(100)))
        assert servers.most == names.THREADS
        assert found.busy
        servers.gate.set()
        assert await asyncio.gather(*asked) == [[ADDRESS]] * 50
        assert servers.most == names.THREADS


async def test_too_many_are_refused_and_room_comes_again(servers: Servers) -> None:
    async with installed():
        servers.gate.clear()
        most = names.MOST_UNDER_WAY
        asked = [asyncio.ensure_future(look_up(f"mon{n}.example.com")) for n in range(most)]
        await until(lambda: servers.at_once == names.THREADS, "no thread began")
        with pytest.raises(socket.gaierror, match="64 other names are being looked up"):
            await look_up("another.example.com")
        servers.gate.set()
        await asyncio.gather(*asked)
        assert await look_up("another.example.com") == [ADDRESS]


async def test_a_name_is_looked_up_once_for_all_who_ask(servers: Servers) -> None:
    async with installed():
        servers.gate.clear()
        asked = [asyncio.ensure_future(look_up("mon.example.com")) for _ in range(100)]
        await until(lambda: servers.asked, "nobody asked")
        # Who gives up does not take it from the others.
        asked[0].cancel()
        servers.gate.set()
        assert await asyncio.gather(*asked[1:]) == [[ADDRESS]] * 99
        assert await look_up("mon.example.com") == [ADDRESS]
        assert servers.asked == ["mon.example.com"]


async def test_an_old_answer_is_as_good_while_there_is_none(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "FRESH_S", 0.0)
    monkeypatch.setattr(names, "PATIENCE_S", 0.01)
    async with installed():
        assert await look_up("mon.example.com") == [ADDRESS]
        servers.gate.clear()
        assert await look_up("mon.example.com") == [ADDRESS]
        servers.failure = socket.gaierror(socket.EAI_AGAIN, "Temporary failure")
        servers.gate.set()
        await until(lambda: not servers.at_once, "the lookup did not end")
        assert await look_up("mon.example.com") == [ADDRESS]


async def test_a_new_answer_takes_the_place_of_an_old_one(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "PATIENCE_S", 60)
    async with installed():
        await look_up("mon.example.com")
        servers.answer = [(*ADDRESS[:4], ("192.0.2.8", 6789))]
        assert await look_up("mon.example.com") == [ADDRESS]
        monkeypatch.setattr(names, "FRESH_S", 0.0)
        assert await look_up("mon.example.com") == servers.answer


async def test_a_failure_is_told_and_remembered_for_a_moment(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "FAILED_S", 3600.0)
    async with installed():
        servers.failure = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        for _ in range(3):
            with pytest.raises(socket.gaierror, match="not known"):
                await look_up("nowhere.example.com")
        assert servers.asked == ["nowhere.example.com"]
        servers.failure = None
        monkeypatch.setattr(names, "FAILED_S", 0.0)
        assert await look_up("nowhere.example.com") == [ADDRESS]


async def test_what_is_remembered_is_bounded(
    servers: Servers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(names, "MOST_KNOWN", 10)
    async with installed() as found:
        for number in range(30):
            await look_up(f"mon{number}.example.com")
        assert len(found._known) == 10


async def test_all_that_connects_looks_names_up_here(servers: Servers) -> None:
    async def hang_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async with installed():
        server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
        name = server.sockets[0].getsockname()
        assert servers.asked == []  # an address is no name
        servers.answer = [(*ADDRESS[:4], name)]
        reader, writer = await asyncio.open_connection("mon.example.com", name[1])
        assert await reader.read() == b""
        writer.close()
        assert servers.asked == ["mon.example.com"]
        server.close()
