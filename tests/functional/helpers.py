# SPDX-License-Identifier: GPL-2.0-or-later
"""VMs, their guests and what was refused, in the words of the functional tests.

What waits for a guest does so in a thread, so that the engine's session stays alive.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any, Callable, Literal, TypeVar

import pytest
import pytest_asyncio

from lab.base import ENGINE_ADDRESS
from lab.engine import Engine, new_id
from lab.guest.console import GuestConsole
from lab.guest.domains import console_of, disk_xml
from lab.guest.image import pattern_checksum
from lab.host.daemon import HostDaemon
from lab.host.hypervisor import Host
from lab.running import Lab
from vdsmcinder.errors import RemoteError
from vdsmcinder.rpc.schema import schema
from vdsmcinder.stomp.client import NoSuchEvent

T = TypeVar("T")

# More than libvirt takes in one message, so that libvirt's own limit can be met too.
MAX_FRAME_BYTES = 8 * 1024 * 1024
# Tests that prove that a guest keeps a device need not wait for as long as an operator would.
OPTIONS: dict[str, dict[str, Any]] = {
    "listen": {"max_frame_bytes": MAX_FRAME_BYTES},
    # Each port takes the guest's firmware and kernel a while to look at.
    "vms": {"hotunplug_timeout_s": 6, "spare_pcie_ports": 6},
    "rpc": {"validate_results": True},
}

NO_SUCH_VM = 1
UNAVAILABLE = 40
CONTRACT = schema.load()
STATUS_EVENT = next(e for e in CONTRACT.events if e.name == "|virt|VM_status|<vmId>")
MORE_FIELDS = {"Down": {"exitCode", "exitMessage", "exitReason"}, "Paused": {"pauseCode"}}


def session_fixture(scope: Literal["function", "module", "session"]) -> Any:
    """An asynchronous fixture in the loop in which the engine's session lives."""
    return pytest_asyncio.fixture(scope=scope, loop_scope="session")


# Calls


async def ask(engine: Engine, verb: str, **params: Any) -> Any:
    """Call a verb, and check that its result is what the schema promises."""
    result = await engine.call(verb, **params)
    CONTRACT.verbs[verb].result.check(result, "result")
    return result


@contextmanager
def refused(code: int, *words: str, without: Sequence[str] = ()) -> Iterator[None]:
    """The call within is refused with this code, in a sentence with and without these words."""
    with pytest.raises(RemoteError) as caught:
        yield
    message = caught.value.message
    assert caught.value.code == code, message
    assert "\n" not in message
    assert [word for word in words if word not in message] == [], message
    said = f"{message} {caught.value.data}"
    assert [word for word in without if word in said] == [], said


async def eventually(look: Callable[[], Awaitable[T | None]], what: str) -> T:
    """The first true value of what can only be looked at, such as the next sample of statistics."""
    deadline = time.monotonic() + 60
    while not (value := await look()):
        assert time.monotonic() < deadline, f"waited 60 s for {what} in vain"
        await asyncio.sleep(0.05)
    return value


async def served(call: Callable[[], Awaitable[T]], what: str) -> T:
    """The result of a call that is refused with code 40 until what it needs can be reached."""

    async def attempt() -> list[T]:
        try:
            return [await call()]
        except RemoteError as e:
            assert e.code == UNAVAILABLE, e
            return []

    (result,) = await eventually(attempt, what)
    return result


async def within(limit_s: float, attempt: Callable[[], Awaitable[float]], what: str) -> None:
    """What takes the seconds that attempt returns takes less than limit_s.

    Tried up to three times: whatever else this machine does may delay it once.
    """
    took = []
    while not took or took[-1] >= limit_s:
        assert len(took) < 3, f"{what} took {took} s; expected less than {limit_s:g} s"
        took.append(await attempt())


async def stray(engine: Engine) -> Any:
    """The next reply that belongs to no call, such as that to a batch; waits for it."""
    strays = engine.session.strays

    async def came() -> list[Any]:
        return strays[:1]

    await eventually(came, "a reply")
    return strays.pop(0)


async def status(engine: Engine, vm_id: str) -> str:
    """A VM's status, as its statistics tell it."""
    (stats,) = await engine.call("VM.getStats", vmID=vm_id)
    return stats["status"]


async def paths(engine: Engine, vm_id: str) -> dict[str, str]:
    """A VM's disks as the daemon lists them: the image of each target."""
    info = await engine.call("VM.getInfo", vmID=vm_id)
    return {device["name"]: device["path"] for device in info["devices"]}


@asynccontextmanager
async def engine_on(
    lab: Lab, host: Host, name: str = "daemon", options: Mapping[str, Any] = OPTIONS
) -> AsyncIterator[Engine]:
    """An engine of a daemon of its own on a host; its VMs and secrets go at the end."""
    with HostDaemon(host, lab.pki, options, name) as daemon:
        async with Engine(lab, daemon) as engine:
            yield engine
            for vm in await engine.call("Host.getVMList"):
                await engine.destroy(vm["vmId"])
            await engine.call("Host.registerSecrets", secrets=[], clear=True)


# VMs


@dataclass(frozen=True)
class Machine:
    """A VM that runs the lab's guest: its id, its libvirt name, the image of vda, its console."""

    id: str
    name: str
    image: str
    console: GuestConsole


@asynccontextmanager
async def destroyed_at_last(engine: Engine, vm_id: str) -> AsyncIterator[str]:
    """The id of a VM that goes at the end, unless a test destroyed it."""
    try:
        yield vm_id
    finally:
        try:
            await engine.destroy(vm_id)
        except RemoteError as e:
            if e.code != NO_SUCH_VM:
                raise


@asynccontextmanager
async def running(engine: Engine, params: Mapping[str, Any]) -> AsyncIterator[str]:
    """A VM that is Up; its id."""
    async with destroyed_at_last(engine, params["vmId"]):
        yield await engine.run(params)


@asynccontextmanager
async def booted(engine: Engine) -> AsyncIterator[Machine]:
    """A VM of a domain document whose guest is ready for commands; it has one disk of 64 MiB."""
    with new_image(engine) as image:
        params = engine.document(
            new_id(), disk_xml(engine.lab.ceph, image, "vda", engine.secret_id)
        )
        async with running(engine, params) as vm_id:
            name = f"vm-{vm_id}"
            with console_of(engine.daemon.host, name) as console:
                await asyncio.to_thread(console.wait_for, "^ready")
                yield Machine(vm_id, name, image, console)


def absent_disk() -> dict[str, str]:
    """A disk that is missed only by libvirt, so that a VM with it is defined and fails to start."""
    about = {"type": "disk", "device": "disk", "iface": "virtio", "format": "raw"}
    return {**about, "diskType": "file", "path": "/nowhere/disk.img"}


@contextmanager
def new_image(engine: Engine, size_mib: int = 64) -> Iterator[str]:
    """An image of the pool; removed at the end unless somebody still has it open."""
    ceph, name = engine.lab.ceph, f"volume-{new_id()}"
    ceph.create_image(name, size_mib)
    try:
        yield name
    finally:
        if not ceph.watchers(name):
            ceph.remove_image(name)


async def hears(vm: Machine, pattern: str) -> None:
    """Wait until the guest says it."""
    await asyncio.to_thread(vm.console.wait_for, pattern)


async def guest_disks(vm: Machine) -> dict[str, int]:
    """The disks that the guest has, and their sizes in bytes."""
    return await asyncio.to_thread(vm.console.disks)


async def assert_writes(engine: Engine, vm: Machine, disk: str, image: str, seed: str) -> None:
    """What the guest writes to the disk, past its cache, is in the image at once."""
    written = await asyncio.to_thread(vm.console.write, disk, 0, 2, seed)
    assert written == pattern_checksum(2, seed)
    assert engine.lab.ceph.checksum(image, 0, 2) == written


@contextmanager
def foreign_secret(host: Host, key: str | None = None) -> Iterator[str]:
    """The uuid of a secret that an operator defined by hand; it must be as it was at the end.

    key: base64 of its value.
    """
    uuid = new_id()
    file = host.lab_dir / f"{uuid}.xml"
    file.write_text(
        f"<secret ephemeral='yes' private='no'><uuid>{uuid}</uuid>"
        f"<usage type='ceph'><name>client.{uuid}</name></usage></secret>"
    )
    host.virsh("secret-define", file)
    file.unlink()
    value = key or base64.b64encode(uuid.encode()).decode()
    host.virsh("secret-set-value", uuid, "--base64", value)
    yield uuid
    assert f"{uuid}   ceph client.{uuid}" in host.virsh("secret-list")
    assert host.virsh("secret-get-value", uuid) == value
    host.virsh("secret-undefine", uuid)


# Monitors

SILENT_PORT = 16789
SILENT_MONITOR = {"name": ENGINE_ADDRESS, "port": str(SILENT_PORT), "transport": "tcp"}


@contextmanager
def silent_monitor() -> Iterator[None]:
    """Have SILENT_MONITOR accept connections and say nothing, as a monitor that hangs does."""
    with socket.create_server((ENGINE_ADDRESS, SILENT_PORT)):
        yield


# Events


@asynccontextmanager
async def recorded_events(engine: Engine) -> AsyncIterator[list[Mapping[str, Any]]]:
    """All events of the block that tell of VMs, in their order; the list is filled at its end."""
    events: list[Mapping[str, Any]] = []
    async with Engine(engine.lab, engine.daemon) as other:
        yield events
        # What was told before this is answered has come when the answer has.
        await other.call("Host.ping2")
        with contextlib.suppress(NoSuchEvent):
            while True:
                event = await other.session.wait_for_event(lambda event: True, 0.1)
                # Not those of the host's network, which tests change, and the like.
                if event["method"].startswith("|virt|"):
                    events.append(event)


def told(events: Sequence[Mapping[str, Any]], vm_id: str) -> list[str]:
    """The statuses that events told of a VM, once each event has what contract/wire.md says."""
    name = f"|virt|VM_status|{vm_id}"
    ours = [event for event in events if event["method"] == name]
    for event in ours:
        assert set(event) == {"jsonrpc", "method", "params"}
        assert set(event["params"]) == {vm_id, "notify_time"}
        STATUS_EVENT.params.check(event["params"], "params")
        fields = event["params"][vm_id]
        assert set(fields) == {"status", "hash"} | MORE_FIELDS.get(fields["status"], set())
    times = [event["params"]["notify_time"] for event in events]
    assert times == sorted(times)
    return [event["params"][vm_id]["status"] for event in ours]
