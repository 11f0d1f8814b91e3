# SPDX-License-Identifier: GPL-2.0-or-later
"""An engine as a host sees one: registers keys, describes disks, creates VMs, waits for events.

Over STOMP and TLS, as an oVirt engine does.
"""

from __future__ import annotations

import contextlib
import ssl
import uuid
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Protocol

from lab.ceph.cluster import Ceph
from lab.guest.domains import domain_xml
from lab.host.hypervisor import Host
from lab.pki import Identity, Pki
from lab.running import Lab
from vdsmcinder.stomp import client

UP_TIMEOUT_S = 60
# Longer than all tests together: while those run that need no loop, none sends heart-beats.
HEARTBEAT_MS = 3_600_000


def client_context(pki: Pki, identity: Identity | None) -> ssl.SSLContext:
    """A client's TLS context that trusts the lab's CA; without an identity it shows none."""
    context = ssl.create_default_context(cafile=str(pki.ca))
    if identity is not None:
        context.load_cert_chain(str(identity.cert), str(identity.key))
    return context


def secret_params(secret_id: str, key: str, usage_type: str = "ceph") -> dict[str, str]:
    """A secret as Host.registerSecrets takes it."""
    usage = f"ovirt/{secret_id}"
    return {"uuid": secret_id, "usageType": usage_type, "usageID": usage, "password": key}


def disk_params(ceph: Ceph, image: str, secret_id: str, **changes: Any) -> dict[str, Any]:
    """A disk on an image of the pool as an engine describes it; None in changes leaves out."""
    hosts = [{"name": m.address, "port": str(m.v1_port), "transport": "tcp"} for m in ceph.monitors]
    disk = {
        "type": "disk",
        "device": "disk",
        "iface": "virtio",
        "diskType": "network",
        "protocol": "rbd",
        "path": f"{ceph.pool}/{image}",
        "format": "raw",
        "hosts": hosts,
        "auth": {"type": "ceph", "username": ceph.user, "uuid": secret_id},
        "propagateErrors": "off",
        "readonly": "false",
        "shared": "none",
        "cache": "none",
        "deviceId": str(uuid.uuid4()),
        **changes,
    }
    return {name: value for name, value in disk.items() if value is not None}


def connection_info(ceph: Ceph, image: str, secret_id: str | None, **changes: Any) -> Any:
    """What Cinder's os-initialize_connection answers for an image of the pool."""
    return {
        "driver_volume_type": "rbd",
        "data": {
            "name": f"{ceph.pool}/{image}",
            "hosts": [m.address for m in ceph.monitors],
            "ports": [str(m.v1_port) for m in ceph.monitors],
            "cluster_name": "ceph",
            "auth_enabled": True,
            "auth_username": ceph.user,
            "secret_type": "ceph",
            "secret_uuid": secret_id,
            "volume_id": image[len("volume-") :],
            "discard": True,
            "qos_specs": None,
            "access_mode": "rw",
            "encrypted": False,
            "cacheable": False,
            **changes,
        },
    }


def new_id() -> str:
    """An id for a VM, a disk, a secret."""
    return str(uuid.uuid4())


class Daemon(Protocol):
    """What an engine needs of a daemon: where it listens, and the host of its VMs."""

    host: Host
    port: int


async def forget_events(session: client.StompSession) -> None:
    """Drop the events that have come and that nobody waited for."""
    with contextlib.suppress(client.NoSuchEvent):
        while True:
            await session.wait_for_event(lambda event: True, 0)


class Engine:
    """A session with one daemon, over which VMs are run. Use it as an async context manager."""

    def __init__(self, lab: Lab, daemon: Daemon) -> None:
        self.lab = lab
        self.daemon = daemon
        self.secret_id = new_id()
        self._session: client.StompSession | None = None

    async def __aenter__(self) -> Engine:
        await self.connect()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, e: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self.session.close()

    @property
    def session(self) -> client.StompSession:
        """The session; connect() made it."""
        assert self._session is not None, "connect() comes first"
        return self._session

    async def connect(self) -> None:
        """Connect as the engine does, with its certificate, and subscribe to events."""
        context = client_context(self.lab.pki, self.lab.pki.engine)
        host = self.daemon.host.address
        self._session = await client.connect(host, self.daemon.port, context, HEARTBEAT_MS)
        await self._session.subscribe_events()

    async def call(self, verb: str, **params: Any) -> Any:
        """Call a verb; its result, or RemoteError."""
        return await self.session.call(verb, params)

    async def register_key(self) -> None:
        """Register the lab's Ceph key under this engine's secret_id."""
        secret = secret_params(self.secret_id, self.lab.ceph.key)
        await self.call("Host.registerSecrets", secrets=[secret])

    def disk(self, image: str, **changes: Any) -> dict[str, Any]:
        """A disk on an image, with this engine's key."""
        return disk_params(self.lab.ceph, image, self.secret_id, **changes)

    def flat(self, vm_id: str, *disks: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
        """vmParams as a flat description: a small VM that boots from its first disk."""
        return {
            "vmId": vm_id,
            "vmName": f"vm-{vm_id[:8]}",
            "memSize": 256,
            "smp": 1,
            "kvmEnable": "true",
            "devices": list(disks),
            **changes,
        }

    def document(self, vm_id: str, *disk_elements: str, name: str | None = None) -> dict[str, Any]:
        """vmParams as a domain document: boots the lab's kernel, so that it is up quickly.

        Its serial console is lab.guest.domains.console_of(host, name). name: vm-<vm_id> if not
        given.
        """
        host, guest = self.daemon.host, self.lab.guest
        xml = domain_xml(host, name or f"vm-{vm_id}", vm_id, disk_elements, guest)
        return {"vmId": vm_id, "xml": xml.replace("<domain type='qemu'", "<domain type='kvm'")}

    async def create(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """VM.create; returns the reply, which comes before the VM is up."""
        reply: dict[str, Any] = await self.call("VM.create", vmID=params["vmId"], vmParams=params)
        return reply

    async def wait_status(
        self, vm_id: str, status: str, timeout_s: float = UP_TIMEOUT_S
    ) -> dict[str, Any]:
        """What the event says that tells of a VM's status; waits for it."""
        event = await self.session.wait_for_event(
            lambda e: e["params"].get(vm_id, {}).get("status") == status, timeout_s
        )
        told: dict[str, Any] = event["params"][vm_id]
        return told

    async def run(self, params: Mapping[str, Any]) -> str:
        """Create a VM and wait until it is Up; its id."""
        await self.create(params)
        vm_id: str = params["vmId"]
        await self.wait_status(vm_id, "Up")
        return vm_id

    async def destroy(self, vm_id: str) -> None:
        """VM.destroy."""
        await self.call("VM.destroy", vmID=vm_id)
