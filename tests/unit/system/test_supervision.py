# SPDX-License-Identifier: GPL-2.0-or-later
"""What systemd hears from the daemon and hands to it: reports on a socket, listening sockets."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import systemd.daemon

from vdsmcinder.host import machine
from vdsmcinder.system import supervision
from vdsmcinder.system.supervision import Supervision
from vdsmcinder.tasks import Tasks

HEALTH = {"status": "ready", "ready": True}
# Serves /health on the sockets that it is handed, says which it listens on, and stops on SIGTERM.
SERVER = """
import asyncio, signal
from tests.unit.transport.serving import Verbs
from vdsmcinder.config import Listen, Rpc
from vdsmcinder.system.socket_activation import receive
from vdsmcinder.rpc.events import Events
from vdsmcinder.tasks import Tasks
from vdsmcinder.transport.listener import Listener
from vdsmcinder.transport.status_pages import Pages

HEALTH = {"status": "ready", "ready": True}

async def main():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    listen = Listen(port=1, tls=False, unix_socket="/nonexistent/socket")
    pages, handed = Pages(lambda: HEALTH, None), receive()
    listener = Listener(listen, Rpc(), Verbs(), Events(), pages, Tasks("listener"), handed.sockets)
    await listener.start()
    await stop.wait()
    await listener.close()

asyncio.run(main())
"""


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The service manager's end of sd_notify(3)."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(tmp_path / "notify"))
        ear.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield ear


async def heard(manager: socket.socket) -> list[str]:
    message = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(manager, 4096), 10)
    return message.decode().splitlines()


@contextlib.asynccontextmanager
async def supervised(text: list[str]) -> AsyncIterator[Supervision]:
    reports = Supervision(lambda: text[0], Tasks("supervision"))
    reports.ready()
    yield reports
    reports.stopping()
    await reports.close()


async def test_feeds_the_watchdog_when_no_file_descriptor_is_left(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "INTERVAL_S", 0.05)
    async with supervised(["1 VM"]):
        assert await heard(manager) == ["READY=1"]
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        # The lowest that is free, and so the first that would be taken.
        free = os.dup(0)
        os.close(free)
        resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
        try:
            with pytest.raises(OSError, match="Too many open files"):
                os.dup(0)
            for _ in range(3):
                assert (await heard(manager))[0] == "WATCHDOG=1"
            with pytest.raises(OSError, match="Too many open files"):
                os.dup(0)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_tells_of_its_start_its_changes_and_its_end(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "INTERVAL_S", 0.05)
    text = ["1 VM"]
    async with supervised(text):
        assert await heard(manager) == ["READY=1"]
        assert await heard(manager) == ["WATCHDOG=1", "STATUS=1 VM"]
        text[0] = "2 VMs"
        while await heard(manager) != ["WATCHDOG=1", "STATUS=2 VMs"]:
            pass
    while (await heard(manager))[0] != "STOPPING=1":
        pass


async def test_feeds_the_watchdog_three_times_in_its_timeout(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "150000")
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()))
    assert supervision.interval_s() == pytest.approx(0.05)
    async with supervised(["fine"]):
        assert await heard(manager) == ["READY=1"]
        for _ in range(3):
            assert (await heard(manager))[0] == "WATCHDOG=1"


def test_the_watchdog_of_another_process_is_not_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATCHDOG_USEC", "150000")
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert supervision.interval_s() == supervision.INTERVAL_S


async def test_a_manager_that_is_gone_ends_nothing(
    manager: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    os.unlink(os.environ["NOTIFY_SOCKET"])
    async with supervised(["fine"]):
        pass
    assert "could not be told READY=1" in caplog.text


async def test_that_reports_do_not_get_through_is_told_once(
    manager: socket.socket, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failed, enough = [], asyncio.Event()

    def notify(state: str) -> None:
        try:
            systemd.daemon.notify(state)
        except OSError as e:
            failed.append(e)
            if len(failed) == 5:
                enough.set()
            raise

    monkeypatch.setattr(supervision, "INTERVAL_S", 0.01)
    monkeypatch.setattr(supervision, "notify", notify)
    async with supervised(["fine"]):
        assert await heard(manager) == ["READY=1"]
        os.unlink(os.environ["NOTIFY_SOCKET"])
        await asyncio.wait_for(enough.wait(), 30)
    assert caplog.text.count("could not be told WATCHDOG=1") == 1


def test_what_only_root_may_read_comes_as_a_credential(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uuid = "9c3a4d4e-63d5-4f1e-a1f2-5a3f7a1c2b10"
    (tmp_path / "product_uuid").write_text(f"{uuid.upper()}\n")
    (tmp_path / "product_serial").write_text("SN-1\n")
    root = tmp_path / "no firmware here"
    assert machine.firmware_uuid(root) is None
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    assert machine.firmware_uuid(root) == uuid
    assert machine.hardware(root).serial == "SN-1"


@pytest.fixture
def handed(tmp_path: Path) -> Iterator[tuple[socket.socket, socket.socket]]:
    """A TCP and a unix socket, as systemd opens them."""
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_UNIX) as unix:
        unix.bind(str(tmp_path / "handed"))
        unix.listen()
        yield tcp, unix


@contextlib.contextmanager
def server(handed: tuple[socket.socket, socket.socket]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is handed the sockets as file descriptors 3 and 4 (sd_listen_fds(3))."""
    tcp, unix = (sock.fileno() for sock in handed)
    shell = f'export LISTEN_PID=$$ LISTEN_FDS=2; exec "$@" 3<&{tcp} 4<&{unix}'
    command = ["bash", "-c", shell, "sh", sys.executable, "-c", SERVER]
    with subprocess.Popen(command, pass_fds=(tcp, unix)) as process:
        try:
            yield process
        finally:
            process.kill()


def health(sock: socket.socket) -> dict[str, object]:
    with socket.socket(sock.family) as client:
        client.settimeout(30)
        client.connect(sock.getsockname())
        client.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    found: dict[str, object] = json.loads(answer.partition(b"\r\n\r\n")[2])
    return found


def test_serves_on_sockets_that_it_is_handed_and_leaves_them(
    handed: tuple[socket.socket, socket.socket],
) -> None:
    with server(handed) as first:
        assert [health(sock) for sock in handed] == [HEALTH] * 2
        first.terminate()
        assert first.wait(20) == 0
    assert stat.S_ISSOCK(os.stat(handed[1].getsockname()).st_mode)
    # Nobody accepts now: clients wait in the kernel until the next process does.
    with socket.create_connection(handed[0].getsockname(), timeout=30) as early:
        early.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        with server(handed):
            assert b"200 OK" in early.recv(4096)
            assert [health(sock) for sock in handed] == [HEALTH] * 2
