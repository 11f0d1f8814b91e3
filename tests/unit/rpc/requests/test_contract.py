# SPDX-License-Identifier: GPL-2.0-or-later
"""schema.yml declares what the readers of requests read, no more and no less.

Each reader gets requests that watch what is looked up in them. What is declared and not read, or
read and not declared, stands below with the reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Callable

import pytest

from tests.unit.virt.disk.test_drive import network
from vdsmcinder.config import Migration
from vdsmcinder.errors import MissingParameter, SecretMalformed, VdsmCinderError
from vdsmcinder.rpc.requests import (
    devices,
    disk,
    iotune,
    memory,
    migration,
    nic,
    policy,
    secrets,
    vm,
)
from vdsmcinder.rpc.schema import schema
from vdsmcinder.rpc.schema.types import ListOf, MapOf, Record, Reference, Type, Union
from vdsmcinder.rpc.wire import migration as wire_migration
from vdsmcinder.virt.disk.tuning import LIMITS

ID = "5b7c1c1e-0e0b-4c0a-9a4e-3f1d2a6b8c9d"
CONTRACT = schema.load()

ALL_LIMITS = {**dict.fromkeys(LIMITS, 0), "total_iops_sec": 5, "group_name": "g"}
INFO = {
    "driver_volume_type": "rbd",
    "data": {
        **{"name": "volumes/v", "hosts": ["10.0.0.1"], "ports": ["6789"], "cluster_name": "ceph"},
        **{"auth_enabled": True, "auth_username": "cinder", "secret_type": "ceph"},
        **{"secret_uuid": ID, "volume_id": ID, "discard": True, "access_mode": "rw"},
        **{"qos_specs": {"total_iops_sec": "5"}, "encrypted": False},
    },
}
DISK = network(
    type="disk",
    encryption={"uuid": ID},
    detectZeroes="off",
    address={"type": "pci", **dict.fromkeys(("domain", "bus", "slot", "function"), "0x1")},
    specParams={"ioTune": ALL_LIMITS},
)
MEMORY = "<memory><alias name='ua-x'/></memory>"
POLICY = {"name": "vda", "maximum": ALL_LIMITS, "guaranteed": ALL_LIMITS}
NIC = {"type": "interface", "network": "br0", "macAddr": "00:1a:4a:16:01:51"}
KINDS = ("pci", "drive", "virtio-serial", "usb", "ccw")
ADDRESSES = [{"addressType": kind} for kind in KINDS] + [{"type": "pci"}]
NICS = [NIC, *({**NIC, "address": address} for address in ADDRESSES)]
BALLOON = {"type": "balloon", "specParams": {"model": "none"}}
SECRET = {"uuid": ID, "usageType": "ceph", "usageID": "ovirt/x", "password": "a2V5"}
SCHEDULE = {
    "init": [{"name": "setDowntime", "params": ["100"]}],
    "stalling": [{"limit": 1, "action": {"name": "setDowntime", "params": ["200"]}}],
}


Reader = Callable[[Any], Any]
# By type: what reads it, and requests that go through all of that. Those of its members that are
# objects are watched with it.
READERS: Mapping[str, tuple[Reader, list[Any]]] = {
    "DriveDescription": (
        lambda drive: disk.read_drive(drive, None),
        [
            DISK,
            *({**DISK, "address": address} for address in ADDRESSES),
            {"connectionInfo": INFO, "deviceId": ID},
        ],
    ),
    "HotplugDiskParams": (lambda params: disk.read_plug(params, None), [{"drive": DISK}, {}]),
    "HotplugNicParams": (nic.read_plug, [{"nic": NIC}, {}]),
    "HotplugMemoryParams": (
        memory.read_plug,
        [
            {"memory": {"size": 1, "node": 0, "deviceId": ID}, "memGuaranteedSize": 1},
            {"xml": MEMORY},
        ],
    ),
    "MemoryDescription": (
        lambda found: (memory.read_plug({"memory": found}), memory.read_unplug({"memory": found})),
        [{"size": 1, "node": 0, "deviceId": ID, "alias": "ua-x"}],
    ),
    "UpdateVmPolicyParams": (policy.read_policy, [{"vcpuLimit": 1}, {"ioTune": [POLICY]}]),
    "VmDiskDeviceTuneLimits": (lambda disk: policy.read_policy({"ioTune": [disk]}), [POLICY]),
    "NicDescription": (lambda found: nic.read_plug({"nic": found}), NICS),
    "vmUpdateInterfaceDeviceParams": (
        nic.read_change,
        [{"alias": "ua-x", "filter": "f", "filterParameters": [{"name": "a", "value": "b"}]}],
    ),
    "vmUpdateGraphicsDeviceParams": (
        devices.read_ticket,
        [{"graphicsType": "vnc", "password": "x", "ttl": 1}],
    ),
    "vmUpdateXMLDeviceParams": (nic.read_change, [{"xml": "<interface/>"}]),
    "CdDescription": (devices.read_cd, [{"path": "/a", "iface": "sata", "index": 1}]),
    "DriveSpec": (disk.read_names, [{"name": "vda"}]),
    "SnapshotDriveInfo": (disk.read_names, [{"name": "vda"}]),
    "VmDiskDeviceTuneParams": (
        lambda tunable: iotune.read_tunables([tunable]),
        [{"name": "vda", "ioTune": ALL_LIMITS}],
    ),
    "SecretInfo": (lambda secret: secrets.read_secrets([secret]), [SECRET]),
    "MigrateParams": (
        lambda params: migration.read_migration(ID, params, Migration()),
        [{"dst": "host2", "convergenceSchedule": SCHEDULE}],
    ),
    "MigrationParameters": (lambda params: migration.read_bandwidth(ID, params), [{}]),
    "MigrationOffer": (
        lambda offer: wire_migration.read_offer(ID, offer, None),
        [{"migrationId": ID, "handover": "libvirt", "xml": "<domain/>", "source": "host1"}],
    ),
    "MigrationVerdict": (
        lambda params: wire_migration.read_verdict(ID, params),
        [{"migrationId": ID, "verdict": "run"}],
    ),
    "VmParams": (
        lambda params: vm.read_vm(ID, params),
        [
            {"xml": "<domain/>"},
            {
                **{"memSize": 1, "kernel": "/k", "display": "vnc", "custom": {"a": "b"}},
                "devices": [{**DISK, "index": None}, NIC, BALLOON, {"type": "rng"}],
            },
            {"memSize": 1, "devices": [{"type": "graphics", "specParams": {}}]},
        ],
    ),
}
# What engines send and this host has no use for.
UNUSED: Mapping[str, set[str]] = {
    "HotplugDiskParams": {"vmId"},
    "HotplugMemoryParams": {"vmId"},
    "HotplugNicParams": {"vmId"},
    "MemoryDescription": {"device", "type"},
    "UpdateVmPolicyParams": {"vmId"},
    "VmDiskDeviceTuneLimits": {"domainID", "poolID"},
    "MigrationOffer": {"vmId"},
    "MigrateParams": {"cpusets", "dstparams", "enableGuestEvents", "numaNodesets"},
    "DriveSpec": {"device", "domainID", "poolID"},
    "SnapshotDriveInfo": {"domainID"},
    "CdDescription": {"device"},
    # Read where devices are told apart.
    "DriveDescription": {"type"},
    "NicDescription": {"type"},
    "vmUpdateInterfaceDeviceParams": {"deviceType"},
    "vmUpdateXMLDeviceParams": {"deviceType"},
    "vmUpdateGraphicsDeviceParams": {"consoleDisconnectActionDelay", "deviceType", "params"},
    # A file's parameters, of which engines send the path twice.
    "VmDiskDeviceSpecParams": {"path"},
}
# What is looked up so as to refuse it, to name the object in an error, or as another form has it.
UNDECLARED: Mapping[str, set[str]] = {
    "CdDescription": {"GUID", "hosts", "imageID", "protocol", "specParams", "volumeID"},
    "DriveDescription": {"name"},
    "VmDiskDeviceSpecParams": {"vmPayload"},
    "vmUpdateInterfaceDeviceParams": {"xml"},
    # In what Cinder's API wraps it, and what an attachment holds beside it.
    "CinderConnectionInfo": {"attachment", "connection_info", "attach_mode", "volume_id"},
    "DriveSpec": {"baseGUID", "baseUUID", "baseVolumeID"},
    "SnapshotDriveInfo": {"deviceId", "serial"},
    "VmDiskDeviceTuneLimits": {
        *("GUID", "UUID", "alias", "baseGUID", "baseUUID", "baseVolumeID", "deviceId", "serial"),
    },
}


class Watched(dict[str, Any]):
    """An object of a request that remembers which of its members were looked up, and theirs."""

    def __init__(self, values: Mapping[str, Any], asked: dict[str, set[str]], path: str) -> None:
        super().__init__(values)
        self._asked, self._path = asked, path
        asked.setdefault(path, set())

    def __getitem__(self, name: str) -> Any:
        return self._found(name, super().__getitem__(name))

    def get(self, name: str, default: Any = None) -> Any:
        self._asked[self._path].add(name)
        return (
            self._found(name, super().__getitem__(name)) if super().__contains__(name) else default
        )

    def __contains__(self, name: object) -> bool:
        self._asked[self._path].add(str(name))
        return super().__contains__(name)

    def _found(self, name: str, value: Any) -> Any:
        self._asked[self._path].add(name)
        return watched(value, self._asked, f"{self._path}.{name}")


def watched(value: Any, asked: dict[str, set[str]], path: str) -> Any:
    if isinstance(value, dict):
        return Watched(value, asked, path)
    if isinstance(value, list):
        return [watched(item, asked, path) for item in value]
    return value


def records(kind: Type, path: str, own: bool = True) -> Iterator[tuple[str, Record, bool]]:
    """The objects in a type, where they stand in it, and whether no other reader is for them."""
    while isinstance(kind, (Reference, ListOf)):
        kind = kind.element if isinstance(kind, ListOf) else kind.types[kind.label]
    if isinstance(kind, Union):
        for alternative in kind.alternatives:
            yield from records(alternative, path, own)
    elif isinstance(kind, Record):
        own = own and (not path or kind.label not in READERS)
        yield path, kind, own
        for member in kind.fields.values():
            yield from records(member.type, f"{path}.{member.name}", own)


@pytest.mark.parametrize("name", READERS)
def test_what_is_declared_is_what_is_read(name: str) -> None:
    reader, requests = READERS[name]
    asked: dict[str, set[str]] = {}
    for request in requests:
        try:
            reader(watched(json.loads(json.dumps(request)), asked, ""))
        except VdsmCinderError:
            # What {} lacks is looked up all the same.
            assert request in ({}, {"xml": "<interface/>"}) or "address" in request
    may_be: dict[str, set[str]] = {}
    must_be: dict[str, set[str]] = {}
    for path, record, own in records(CONTRACT.type(name), ""):
        members = set(record.fields)
        may_be.setdefault(path, set()).update(members | UNDECLARED.get(record.label, set()))
        if own:
            must_be.setdefault(path, set()).update(members - UNUSED.get(record.label, set()))
    for path, members in may_be.items():
        assert asked.get(path, set()) <= members, path
    for path, members in must_be.items():
        assert members <= asked.get(path, set()), path


@pytest.mark.parametrize("name", READERS)
def test_what_must_be_there(name: str) -> None:
    """A member that is declared without '?' is missed; the first request has all that must be."""
    reader, (request, *_) = READERS[name]
    _, record, _ = next(records(CONTRACT.type(name), ""))
    for member in record.fields.values():
        if not member.optional:
            with pytest.raises((MissingParameter, SecretMalformed)):
                reader({n: value for n, value in request.items() if n != member.name})


def structured(kind: Type) -> Iterator[str]:
    """The names of the objects that a parameter's type holds."""
    for path, record, _ in records(kind, ""):
        if not path:
            yield record.label


def test_every_object_of_a_request_has_a_reader() -> None:
    found = {name for verb in CONTRACT.served for p in verb.params for name in structured(p.type)}
    assert found <= set(READERS)


def test_no_request_takes_a_map_of_anything() -> None:
    free = {
        f"{verb.name} {p.name}"
        for verb in CONTRACT.served
        for p in verb.params
        if isinstance(p.type, MapOf)
    }
    # More about a display's user, and a manager's variables, for which there is no use.
    assert free == {"VM.setTicket params", "Host.setMOMPolicyParameters key_value_store"}
