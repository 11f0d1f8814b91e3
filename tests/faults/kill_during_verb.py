# SPDX-License-Identifier: GPL-2.0-or-later
"""Every verb that changes something, and the daemon's death in the middle of it.

What is done is brought back by verbs alone: nobody repairs by hand.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import libvirt
from lxml import etree

from lab.engine import new_id, secret_params
from tests.faults.scene import Late, Scene, until
from tests.functional.guests import DISK_MIB, Guest, new_guest
from vdsmcinder.errors import RemoteError

TIMES = 10
# Beyond what the verb takes by itself, so that its last moments are met too.
LONGER = 1.2
KNOWN_S = 30.0
BRIDGE = "faults0"
STATES = {
    libvirt.VIR_DOMAIN_RUNNING: "Up",
    libvirt.VIR_DOMAIN_PAUSED: "Paused",
    libvirt.VIR_DOMAIN_SHUTOFF: "Down",
}
NO_SUCH_VM = 1
MOST_CPUS = 4  # of new_guest()
FULL_KIB, HALF_KIB = 256 * 1024, 128 * 1024


class Cast:
    """Whom the verbs are done to: a guest with all devices, and a VM that comes and goes."""

    def __init__(self, scene: Scene, guest: Guest, image: str) -> None:
        self.scene = scene
        self.guest = guest
        self.extra = new_id()
        self.secret = new_id()
        self.grown_mib = DISK_MIB
        self.cpus = 1
        self.medium = scene.lab.directory / "faults.iso"
        self.disk = scene.engine.disk(image)
        self.nic = {
            **{"type": "interface", "device": "bridge", "network": BRIDGE},
            **{"macAddr": "52:54:00:77:00:0f", "nicModel": "pv", "deviceId": new_id()},
        }

    @classmethod
    async def of(cls, scene: Scene) -> Cast:
        """That of the scene, which is made when it is first asked for and goes with the scene."""
        if scene.cast is None:
            stack, image = scene.belongings, f"volume-{new_id()}"
            scene.ceph.create_image(image, 8)
            stack.enter_context(_bridge(scene))
            guest = await stack.enter_async_context(new_guest(scene.engine))
            scene.cast = cls(scene, guest, image)
            scene.cast.medium.write_bytes(bytes(1024**2))
        assert isinstance(scene.cast, cls)
        return scene.cast

    async def call(self, verb: str, **params: Any) -> Any:
        """Call a verb of the scene's engine."""
        return await self.scene.engine.call(verb, **params)

    async def devices(self) -> list[dict[str, Any]]:
        """The guest's devices as the API has them."""
        info = await self.guest.call("getInfo")
        devices: list[dict[str, Any]] = info["devices"]
        return devices

    def extra_vm(self) -> dict[str, Any]:
        """A description of the VM that comes and goes."""
        return self.scene.engine.flat(self.extra, memSize=64)


@contextmanager
def _bridge(scene: Scene) -> Iterator[None]:
    scene.host.run(["ip", "link", "add", BRIDGE, "type", "bridge"])
    try:
        yield
    finally:
        scene.host.run(["ip", "link", "del", BRIDGE])


@dataclass(frozen=True)
class Deed:
    """One verb. ready: brings about what it needs, by other verbs. params: of a call of it.

    lasts_s: how long what it begins goes on, if that is longer than its call.
    """

    verb: str
    ready: Callable[[Cast], Awaitable[Any]]
    params: Callable[[Cast], dict[str, Any]]
    lasts_s: float = 0.0


def killing_during(deed: Deed) -> Callable[[Scene], Awaitable[None]]:
    """kill -9 of the daemon at random moments of the verb, each followed by a look at all VMs.

    Raises Late for what is not as it has to be.
    """

    async def kill(scene: Scene) -> None:
        cast = await Cast.of(scene)
        loop = asyncio.get_running_loop()
        await deed.ready(cast)
        began = loop.time()
        await cast.call(deed.verb, **deed.params(cast))
        lasts_s = LONGER * max(loop.time() - began, deed.lasts_s)
        for _ in range(TIMES):
            await deed.ready(cast)
            call = asyncio.create_task(_attempt(cast, deed))
            await asyncio.sleep(random.uniform(0, lasts_s))
            scene.daemon.process.send_signal(signal.SIGKILL)
            await call
            await until(lambda: _answers(scene), "the daemon to know its VMs", KNOWN_S)
            await until(lambda: _true(scene), "API and libvirt to agree about all VMs", KNOWN_S)
        await deed.ready(cast)
        await _quiet(cast)

    return kill


async def _attempt(cast: Cast, deed: Deed) -> None:
    """An answer, be it a refusal, or a closed connection; silence is not let pass."""
    try:
        await cast.call(deed.verb, **deed.params(cast))
    except (RemoteError, ConnectionError):
        pass
    except asyncio.TimeoutError as e:
        raise Late(f"{deed.verb} got neither an answer nor a closed connection") from e


async def _answers(scene: Scene) -> bool:
    return await scene.asked("Host.getVMList") is not None


async def _true(scene: Scene) -> bool:
    """Whether the API tells of each VM what libvirt does, and each runs in at most one QEMU."""
    told = {}
    for vm in await scene.engine.call("Host.getVMFullList"):
        disks = {disk["path"] for disk in vm["devices"] if disk.get("path")}
        told[vm["vmId"]] = (vm["status"], disks if vm["status"] != "Down" else set())
    found = await asyncio.to_thread(_libvirts, scene)
    return told == found and -1 not in scene.qemus().values()


def _libvirts(scene: Scene) -> dict[str, tuple[str, set[str]]]:
    found = {}
    with closing(libvirt.open(scene.host.uri)) as connection:
        for domain in connection.listAllDomains():
            status = STATES.get(domain.state()[0], "between")
            root = etree.fromstring(domain.XMLDesc())
            sources = (s.get("name") or s.get("file") for s in root.iterfind("devices/disk/source"))
            disks = {source for source in sources if source}
            found[domain.UUIDString()] = (status, disks if status != "Down" else set())
    return found


async def _quiet(cast: Cast) -> None:
    """Leave the cast as the next deed expects it."""
    await _gone(cast)
    await _unplugged(cast)
    await _without_nic(cast)
    await _thawed(cast)
    await _running(cast)


# What verbs need, brought about by others


async def _nothing(_cast: Cast) -> None:
    pass


async def _gone(cast: Cast) -> None:
    try:
        await cast.call("VM.destroy", vmID=cast.extra)
    except RemoteError as e:
        if e.code != NO_SUCH_VM:
            raise


async def _up(cast: Cast) -> None:
    await _gone(cast)
    await cast.scene.engine.run(cast.extra_vm())


async def _running(cast: Cast) -> None:
    await cast.call("VM.cont", vmID=cast.scene.bystander)


async def _paused(cast: Cast) -> None:
    await cast.call("VM.pause", vmID=cast.scene.bystander)


async def _unplugged(cast: Cast) -> None:
    if any(d.get("path") == cast.disk["path"] for d in await cast.devices()):
        await cast.guest.call("hotunplugDisk", params=_disk(cast))


async def _plugged(cast: Cast) -> None:
    if not any(d.get("path") == cast.disk["path"] for d in await cast.devices()):
        await cast.guest.call("hotplugDisk", params=_disk(cast))
    # Only a guest that has seen the disk lets go of it.
    name = next(d["name"] for d in await cast.devices() if d.get("path") == cast.disk["path"])
    await until(lambda: _guest_has(cast, name), f"the guest to have {name}", KNOWN_S)


async def _guest_has(cast: Cast, name: str) -> bool:
    return name in await asyncio.to_thread(cast.guest.console.disks)


async def _without_nic(cast: Cast) -> None:
    # One that is not plugged is refused.
    with suppress(RemoteError):
        await cast.guest.call("hotunplugNic", params=_nic(cast))


async def _with_nic(cast: Cast) -> None:
    # One that is plugged is refused.
    with suppress(RemoteError):
        await cast.guest.call("hotplugNic", params=_nic(cast))


async def _without_medium(cast: Cast) -> None:
    await cast.guest.call("changeCD", driveSpec=_medium(""))


async def _thawed(cast: Cast) -> None:
    await cast.guest.call("thaw")


async def _frozen(cast: Cast) -> None:
    await _thawed(cast)
    await cast.guest.call("freeze")


async def _larger(cast: Cast) -> None:
    # The verb asks Ceph, and the key goes with the daemon here, where no systemd keeps it.
    await cast.scene.engine.register_key()
    cast.grown_mib += 1
    await asyncio.to_thread(cast.scene.ceph.resize_image, cast.guest.image, cast.grown_mib)


async def _more_cpus(cast: Cast) -> None:
    # Never fewer: QEMU under emulation does not tell that a guest has let go of one.
    cast.cpus = min(cast.cpus + 1, MOST_CPUS)


async def _all_memory(cast: Cast) -> None:
    await cast.guest.call("setBalloonTarget", target=str(FULL_KIB))


async def _keyed(cast: Cast) -> None:
    await cast.call("Host.registerSecrets", **_secret(cast))


async def _unkeyed(cast: Cast) -> None:
    await cast.call("Host.unregisterSecrets", uuids=[cast.secret])


# What they are called with


def _disk(cast: Cast) -> dict[str, Any]:
    return {"vmId": cast.guest.id, "drive": cast.disk}


def _nic(cast: Cast) -> dict[str, Any]:
    return {"vmId": cast.guest.id, "nic": cast.nic}


def _medium(path: str) -> dict[str, str]:
    return {"path": path, "iface": "scsi", "index": "0"}


def _secret(cast: Cast) -> dict[str, Any]:
    return {"secrets": [secret_params(cast.secret, cast.scene.ceph.key)]}


def _guests(**params: Any) -> Callable[[Cast], dict[str, Any]]:
    return lambda cast: {"vmID": cast.guest.id, **params}


def _others(**params: Any) -> Callable[[Cast], dict[str, Any]]:
    return lambda cast: {"vmID": cast.scene.bystander, **params}


def _extras(**params: Any) -> Callable[[Cast], dict[str, Any]]:
    return lambda cast: {"vmID": cast.extra, **params}


_TICKET = {"ttl": 120, "existingConnAction": "keep", "params": {}}
_TUNE = {"tunables": [{"name": "vda", "ioTune": {"total_iops_sec": 2000}}]}
_POLICY = {"ioTune": [{"name": "vda", "maximum": {"total_iops_sec": 2000}}]}
_SHUTDOWN = {"delay": 0, "message": "", "timeout": 1, "force": True}

DEEDS: Sequence[Deed] = (
    Deed("VM.create", _gone, lambda c: {"vmID": c.extra, "vmParams": c.extra_vm()}, 0.8),
    Deed("VM.destroy", _up, _extras()),
    Deed("VM.shutdown", _up, _extras(**_SHUTDOWN), 1.5),
    Deed("VM.reset", _running, _others()),
    Deed("VM.pause", _running, _others()),
    Deed("VM.cont", _paused, _others()),
    Deed("VM.hotplugDisk", _unplugged, lambda c: {"vmID": c.guest.id, "params": _disk(c)}),
    Deed("VM.hotunplugDisk", _plugged, lambda c: {"vmID": c.guest.id, "params": _disk(c)}),
    Deed("VM.hotplugNic", _without_nic, lambda c: {"vmID": c.guest.id, "params": _nic(c)}),
    Deed("VM.hotunplugNic", _with_nic, lambda c: {"vmID": c.guest.id, "params": _nic(c)}),
    Deed(
        "VM.updateDevice",
        _with_nic,
        lambda c: {
            "vmID": c.guest.id,
            "params": {
                "deviceType": "interface",
                "alias": f"ua-{c.nic['deviceId']}",
                "linkActive": random.choice([True, False]),
            },
        },
    ),
    Deed(
        "VM.changeCD",
        _without_medium,
        lambda c: {"vmID": c.guest.id, "driveSpec": _medium(str(c.medium))},
    ),
    Deed(
        "VM.diskSizeExtend",
        _larger,
        lambda c: {
            "vmID": c.guest.id,
            "driveSpecs": {"name": "vda"},
            "newSize": str(c.grown_mib * 1024**2),
        },
    ),
    Deed("VM.setIoTune", _nothing, _others(**_TUNE)),
    Deed("VM.updateVmPolicy", _nothing, _others(params=_POLICY)),
    Deed("VM.setDestroyOnReboot", _up, _extras()),
    Deed("VM.freeze", _thawed, _guests()),
    Deed("VM.thaw", _frozen, _guests()),
    Deed("VM.snapshot", _thawed, _guests(snapDrives=[])),
    Deed(
        "VM.setNumberOfCpus",
        _more_cpus,
        lambda c: {"vmID": c.guest.id, "numberOfCpus": str(c.cpus)},
    ),
    Deed("VM.setBalloonTarget", _all_memory, _guests(target=str(HALF_KIB))),
    Deed("VM.setTicket", _nothing, _guests(password="secret01", **_TICKET)),
    Deed("Host.registerSecrets", _unkeyed, _secret),
    Deed("Host.unregisterSecrets", _keyed, lambda c: {"uuids": [c.secret]}),
)
