# SPDX-License-Identifier: GPL-2.0-or-later
"""The door to libvirt, against libvirt's own test driver."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import libvirt
import pytest

from tests.refusals import libvirt_error
from tests.unit.transport.serving import until
from vdsmcinder.config import Libvirt
from vdsmcinder.errors import ResourceUnavailable
from vdsmcinder.hypervisor import connection as module
from vdsmcinder.hypervisor.connection import CallOverrun, Connection
from vdsmcinder.tasks import Tasks


class Heard(Connection):
    """Keeps the events of domains' lives."""

    def __init__(self, options: Libvirt) -> None:
        super().__init__(options, Tasks("libvirt"))
        self.events: asyncio.Queue[tuple[Any, ...]] = asyncio.Queue()


class Ups(Connection):
    """Its on_up() does what outcomes holds, in turn, and then succeeds."""

    def __init__(self, options: Libvirt) -> None:
        super().__init__(options, Tasks("libvirt"))
        self.outcomes: list[Callable[[], object]] = []
        self.succeeded = asyncio.Event()

    async def on_up(self) -> None:
        if self.outcomes:
            self.outcomes.pop(0)()
            return self.require()
        self.succeeded.set()


@pytest.fixture
async def connection():
    conn = Heard(Libvirt(uri="test:///default", threads=2))
    up = asyncio.Event()

    async def on_up():
        up.set()

    handlers = {libvirt.VIR_DOMAIN_EVENT_ID_LIFECYCLE: lambda *args: conn.events.put_nowait(args)}
    conn.start(on_up, handlers)
    await asyncio.wait_for(up.wait(), 10)
    yield conn
    await conn.close()


async def test_calls_and_events(connection):
    domain = await connection.call(connection.handle.lookupByName, "test")
    uuid = domain.UUIDString()
    await connection.on_domain(uuid, libvirt.virDomain.suspend)
    # The test driver is one for the whole process: what other tests left may still be told.
    while (event := await asyncio.wait_for(connection.events.get(), 10))[0] != uuid:
        pass
    assert event == (
        uuid,
        libvirt.VIR_DOMAIN_EVENT_SUSPENDED,
        libvirt.VIR_DOMAIN_EVENT_SUSPENDED_PAUSED,
    )


async def test_what_libvirt_refuses_is_raised(connection):
    with pytest.raises(libvirt.libvirtError) as error:
        await connection.call(connection.handle.lookupByName, "nobody")
    assert error.value.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN


async def test_an_overrun_costs_a_thread_and_not_the_loop(connection):
    release = threading.Event()
    with pytest.raises(CallOverrun, match=r"did not come back within 0\.05 s") as error:
        await connection.call(release.wait, timeout_s=0.05)
    assert connection.stuck_calls == 1
    assert await connection.call(connection.handle.getHostname)
    release.set()
    await error.value.finished
    await asyncio.sleep(0)
    assert connection.stuck_calls == 0


@pytest.mark.parametrize("hangs", [False, True])
async def test_what_is_under_way_has_a_moment_when_it_is_closed(connection, monkeypatch, hangs):
    monkeypatch.setattr(module, "GRACE_S", 0.05 if hangs else 60)
    begun, gate = threading.Event(), threading.Event()

    def answer() -> None:
        begun.set()
        gate.wait(60)

    async with Tasks("test") as tasks:
        asking = tasks.begin(connection.call(answer))
        assert await asyncio.to_thread(begun.wait, 60)
        asking.cancel()
        closing = tasks.begin(connection.close())
        await asyncio.sleep(0)
        if not hangs:
            gate.set()
        await closing
        assert connection.calls_under_way == int(hangs)
        gate.set()


async def test_what_is_opened_while_it_is_closed_is_closed_too(monkeypatch):
    begun, gate, closed = threading.Event(), threading.Event(), []

    def open_late(uri: str) -> libvirt.virConnect:
        begun.set()
        gate.wait(60)
        return libvirt.open(uri)

    async def on_up() -> None:
        raise AssertionError("it is not wanted any more")

    monkeypatch.setattr(module, "GRACE_S", 60)
    monkeypatch.setattr(module, "open_handle", open_late)
    monkeypatch.setattr(module, "close", closed.append)
    late = Connection(Libvirt(uri="test:///default"), Tasks("libvirt"))
    late.start(on_up, {})
    assert await asyncio.to_thread(begun.wait, 60)
    async with Tasks("test") as tasks:
        closing = tasks.begin(late.close())
        await asyncio.sleep(0)
        gate.set()
        await closing
    await until(lambda: closed, "what was opened stays open")
    (handle,) = closed
    handle.close()


async def test_a_slow_call_keeps_its_line_until_it_is_known_why_it_failed(connection, monkeypatch):
    """Calls that follow are made on another; the old one is closed when nobody needs it."""
    monkeypatch.setattr(module, "SLOW_S", 0.01)
    monkeypatch.setattr(module, "is_remote", lambda _handle: True)
    monkeypatch.setattr(module, "open_handle", libvirt.open)
    for _ in range(10):
        first, release = connection.handle, threading.Event()

        def fail(handle=first, release=release):
            release.wait(30)
            handle.lookupByName("nobody")

        slow = asyncio.ensure_future(connection.call(fail))
        await until(partial(replaced, connection, first), "calls go on on the old line")
        assert await connection.call(connection.handle.getHostname)
        release.set()
        with pytest.raises(libvirt.libvirtError, match="Domain not found"):
            await slow
        await until(partial(closed, first), "the old line is still open")


def replaced(connection, handle):
    return connection.handle is not handle


def closed(handle):
    try:
        return not handle.isAlive()
    except libvirt.libvirtError:
        return True


async def _nothing() -> None:
    pass


async def test_a_libvirt_that_is_not_there_is_told_at_once():
    conn = Connection(
        Libvirt(uri="qemu+unix:///system?socket=/nonexistent/libvirt-sock"), Tasks("libvirt")
    )
    conn.start(_nothing, {})
    with pytest.raises(ResourceUnavailable, match="check that libvirtd runs") as error:
        await conn.call(print)
    assert error.value.code == 40
    await conn.close()


@pytest.fixture
async def ups():
    """A connection whose on_up does what is put in its list, in turn, and then succeeds."""
    conn = Ups(Libvirt(uri="test:///default", threads=2))
    yield conn
    await conn.close()


async def test_what_cannot_be_read_when_libvirt_is_back_is_read_again(ups):
    def refuse():
        raise libvirt_error("not now")

    ups.outcomes[:] = [refuse, lambda: 1 / 0]
    ups.start(ups.on_up, {})
    await asyncio.wait_for(ups.succeeded.wait(), 10)
    assert await ups.call(ups.handle.getHostname)


async def test_a_libvirt_that_goes_while_it_is_read_is_reached_again(ups):
    def lose():
        ups._closed(libvirt.VIR_CONNECT_CLOSE_REASON_EOF)

    ups.outcomes[:] = [lose, lose]
    ups.start(ups.on_up, {})
    await asyncio.wait_for(ups.succeeded.wait(), 10)
    assert await ups.call(ups.handle.getHostname)
