# SPDX-License-Identifier: GPL-2.0-or-later
"""Keys between two runs of the daemon: what is kept, in which memory, and what systemd is sent."""

from __future__ import annotations

import array
import asyncio
import base64
import contextlib
import fcntl
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from vdsmcinder.system import fdstore
from vdsmcinder.system.fdstore import FdStore
from vdsmcinder.tasks import Tasks
from vdsmcinder.virt.disk.ceph_images import CephImage, CephImages
from vdsmcinder.virt.fleet.missing_secrets import MissingSecrets
from vdsmcinder.virt.secrets.keyring import Keyring
from vdsmcinder.virt.secrets.secret import SecretName, SecretSpec

ONE = "12345678-1234-1234-1234-123456789abc"
TWO = "22345678-1234-1234-1234-123456789abc"
KEY = b"\x01\x02the key that must not show\xff"
# What a daemon does with the store when it starts: says what it was handed, and keeps something.
STARTED = """
import os, sys
os.environ["LISTEN_PID"] = str(os.getpid())
from vdsmcinder.system.fdstore import FdStore
from vdsmcinder.system.socket_activation import receive
handed = receive()
assert len(handed.sockets) == 1
sys.stdout.write((FdStore("secrets", handed.stored).read() or b"nothing").decode())
"""


def spec(uuid: str = ONE, usage: str = "ovirt/one", key: bytes = KEY) -> SecretSpec:
    password = base64.b64encode(key).decode()
    params = {"uuid": uuid, "usageType": "ceph", "usageID": usage, "password": password}
    return SecretSpec.from_params({**params, "description": "key of <cinder>"}, 0)


class Memory:
    """Memory that outlives a keyring."""

    def __init__(self, content: bytes | None = None) -> None:
        self.content = content

    def read(self) -> bytes | None:
        return self.content

    async def write(self, content: bytes) -> str:
        self.content = content
        return ""


async def test_a_keyring_is_as_it_was_saved() -> None:
    memory = Memory()
    keyring = Keyring(memory)
    keyring.add(spec())
    keyring.add(spec(TWO, "ovirt/two", b"other"))
    await keyring.save()
    again = Keyring(memory)
    assert [s.xml() for s in again.specs()] == [s.xml() for s in keyring.specs()]
    value = again.value(ONE.upper())
    assert value is not None
    assert value.reveal() == KEY
    again.remove(ONE)
    again.remove(TWO)
    await again.save()
    assert memory.content == b""
    assert Keyring(memory).specs() == []


def test_one_usage_has_one_secret_as_in_libvirt() -> None:
    keyring = Keyring(Memory())
    keyring.add(spec())
    keyring.add(spec(TWO))
    assert [s.uuid for s in keyring.specs()] == [TWO]
    keyring.add(spec(TWO, "ovirt/other", b"new"))
    (left,) = keyring.specs()
    assert (left.usage_id, left.value.reveal()) == ("ovirt/other", b"new")


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"version": 9}', b'{"version": 1, "secrets": 3}', b"\xff", b'"secrets"'],
)
def test_what_cannot_be_read_is_no_reason_not_to_start(content: bytes) -> None:
    assert Keyring(Memory(content)).specs() == []


async def test_a_later_version_is_read_as_far_as_it_is_known(
    caplog: pytest.LogCaptureFixture,
) -> None:
    memory = Memory()
    keyring = Keyring(memory)
    keyring.add(spec())
    await keyring.save()
    kept = json.loads(memory.content or b"")
    kept["version"], kept["more"] = 2, True
    kept["secrets"][0]["color"] = "red"
    kept["secrets"].append({**kept["secrets"][0], "uuid": TWO, "usageType": "quantum"})
    assert [s.uuid for s in Keyring(Memory(json.dumps(kept).encode())).specs()] == [ONE]
    assert "secrets[1].usageType is not known" in caplog.text
    assert base64.b64encode(KEY).decode() not in caplog.text


def test_what_is_sealed_can_be_read_and_not_changed() -> None:
    fd = fdstore.sealed("secrets-1", KEY)
    try:
        assert os.pread(fd, 4096, 0) == KEY
        with pytest.raises(PermissionError):
            os.pwrite(fd, b"x", 0)
        with pytest.raises(PermissionError):
            os.ftruncate(fd, 0)
        with pytest.raises(PermissionError):
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    finally:
        os.close(fd)


class Manager:
    """systemd's part: keeps what it is sent by name, and hands it to the next process."""

    def __init__(self, path: Path) -> None:
        self.kept: dict[str, int] = {}
        self.most = 0
        self._ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._ear.bind(str(path))
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while True:
            data, passed, _, _ = self._ear.recvmsg(4096, socket.CMSG_SPACE(64))
            fds = [fd for _, _, found in passed for fd in array.array("i", found)]
            words = dict(line.split("=") for line in data.decode().splitlines())
            name = words.get("FDNAME", "")
            if "FDSTORE" in words:
                (self.kept[name],) = fds
                self.most = max(self.most, len(self.kept))
            elif "FDSTOREREMOVE" in words:
                stored = self.kept.pop(name, None)
                if stored is not None:
                    os.close(stored)
            elif "BARRIER" in words:
                os.close(*fds)
            else:
                return

    def handed_to(self, program: str) -> str:
        """What a process says that is started with what is kept, behind a socket."""
        names = ":".join(["vdsm-cinderd.socket", *self.kept])
        with socket.socket(socket.AF_UNIX) as sock, contextlib.ExitStack() as stack:
            # Out of the way of the numbers that they are handed over as.
            fds = [
                fcntl.fcntl(fd, fcntl.F_DUPFD, 50) for fd in (sock.fileno(), *self.kept.values())
            ]
            for fd in fds:
                stack.callback(os.close, fd)
            handed = " ".join(f"{number}<&{fd}" for number, fd in enumerate(fds, start=3))
            shell = f'export LISTEN_FDS={len(fds)} LISTEN_FDNAMES={names}; exec "$@" {handed}'
            command = ["bash", "-c", shell, "sh", sys.executable, "-c", program]
            done = subprocess.run(command, pass_fds=fds, check=True, capture_output=True, text=True)
            return done.stdout

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as last:
            last.sendto(b"END=1", self._ear.getsockname())
        self._thread.join()
        self._ear.close()
        for fd in self.kept.values():
            os.close(fd)


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Manager]:
    manager = Manager(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setenv("INVOCATION_ID", "0123456789abcdef0123456789abcdef")
    yield manager
    manager.close()


async def test_systemd_keeps_one_version_and_hands_over_the_newest(manager: Manager) -> None:
    store = FdStore("secrets", {})
    assert store.read() is None
    for content in (b"first", b"second", b"third"):
        await store.write(content)
        assert len(manager.kept) == 1
        assert manager.handed_to(STARTED) == content.decode()
    assert (manager.most, store.trouble) == (2, "")
    # A crash before the one before was dropped leaves two.
    manager.kept["secrets-9"] = fdstore.sealed("secrets-9", b"ninth")
    # And one of a crash in the middle of writing could not be there, but would not count.
    manager.kept["secrets-10"] = os.memfd_create("secrets-10", os.MFD_ALLOW_SEALING)
    assert manager.handed_to(STARTED) == "ninth"
    await store.write(b"")
    assert set(manager.kept) == {"secrets-9", "secrets-10"}


async def test_without_systemd_nothing_is_kept_and_nothing_wrong(
    manager: Manager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INVOCATION_ID")
    store = FdStore("secrets", {})
    assert not store.available
    await store.write(KEY)
    assert (manager.most, store.trouble) == (0, "")


async def test_a_systemd_that_is_gone_is_told(
    manager: Manager, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "nobody"))
    store = FdStore("secrets", {})
    await store.write(KEY)
    assert "systemd could not be given them" in store.trouble
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    await store.write(KEY)
    assert (store.trouble, len(manager.kept)) == ("", 1)


async def test_a_systemd_that_is_silent_is_told(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "silent"))
    monkeypatch.setenv("INVOCATION_ID", "0123456789abcdef0123456789abcdef")
    monkeypatch.setattr(fdstore, "BARRIER_TIMEOUT_S", 0.1)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ear:
        ear.bind(str(tmp_path / "silent"))
        store = FdStore("secrets", {})
        await store.write(KEY)
    assert store.trouble == "systemd did not take them within 0.1 s"


@dataclass
class Held:
    """Secrets: those that libvirt has, and those whose values the daemon was given."""

    in_libvirt: set[str]
    given: set[str]

    async def missing(self, names: Collection[SecretName]) -> list[SecretName]:
        return [name for name in names if name.uuid not in self.in_libvirt]

    def value(self, name: SecretName) -> str | None:
        return "key" if name.uuid in self.given else None


def using(name: str, *uuids: str, running: bool = True) -> SimpleNamespace:
    """A VM whose disks are opened with these keys."""
    images = tuple(CephImage("vda", "p/i", user="u", secret=SecretName(uuid)) for uuid in uuids)
    needs = tuple(("vda", SecretName(uuid)) for uuid in uuids)
    ceph = CephImages(images, needs=needs)
    return SimpleNamespace(name=name, running=running, domain=SimpleNamespace(ceph=ceph))


def asking(
    held: Held, asked: asyncio.Queue[Collection[str]], *vms: SimpleNamespace, keys: bool = True
) -> MissingSecrets:
    registry = SimpleNamespace(vms=lambda: list(vms))
    tasks = Tasks("secrets")
    return MissingSecrets(registry, held, asked.put_nowait, tasks, keys_wanted=keys)  # type: ignore[arg-type]


async def test_a_key_that_libvirt_alone_has_is_asked_for():
    """Without it nobody can look who else has the images open."""
    held = Held(in_libvirt={ONE}, given=set())
    asked: asyncio.Queue[Collection[str]] = asyncio.Queue()
    missing = asking(held, asked, using("db", ONE))
    await missing.look()
    assert (missing.missing, missing.unseen) == ({}, {SecretName(ONE): ("db",)})
    assert missing.uuids == [ONE]
    unwanted = asking(held, asked, using("db", ONE), keys=False)
    await unwanted.look()
    assert unwanted.uuids == []


async def test_a_key_for_want_of_which_something_was_refused_is_asked_for_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    held = Held(in_libvirt={ONE}, given=set())
    missing = asking(held, asyncio.Queue())
    missing.refused(SecretName(ONE), "VM x")
    await missing.look()
    assert missing.unseen == {SecretName(ONE): ("VM x",)}
    held.given.add(ONE)
    await missing.look()
    assert missing.uuids == []
    held.given.clear()
    monkeypatch.setattr("vdsmcinder.virt.fleet.missing_secrets.FORGET_S", 0)
    await missing.look()
    assert missing.uuids == []


async def test_the_engine_is_asked_until_nothing_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vdsmcinder.virt.fleet.missing_secrets.REPEAT_S", 0.01)
    vm, down = using("db", ONE, TWO), using("old", TWO[::-1], running=False)
    held = Held(in_libvirt={TWO}, given={TWO})
    asked: asyncio.Queue[Collection[str]] = asyncio.Queue()
    missing = asking(held, asked, vm, down)
    missing.start()
    missing.wake()
    for _ in range(3):
        assert await asyncio.wait_for(asked.get(), 10) == [ONE]
    assert missing.missing == {SecretName(ONE): ("db",)}
    held.in_libvirt.add(ONE)
    held.given.add(ONE)
    missing.wake()
    while await asyncio.wait_for(asked.get(), 10) != []:
        pass
    await missing.close()
    assert asked.empty()
