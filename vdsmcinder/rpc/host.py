# SPDX-License-Identifier: GPL-2.0-or-later
"""The Host.* verbs: each public method is one verb of schema.yml, and takes its parameters.

Values are those that the schema lets through. Reads answer at once, from the last sample; what asks
libvirt or the kernel is a coroutine.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from vdsmcinder.ceph.cluster_monitor import ClusterMonitor
from vdsmcinder.config import Config
from vdsmcinder.errors import InvalidParameter
from vdsmcinder.host.capabilities import Capabilities
from vdsmcinder.host.stats import HostSampler
from vdsmcinder.rpc import envelope
from vdsmcinder.rpc.envelope import Written
from vdsmcinder.rpc.requests.disk import read_drive
from vdsmcinder.rpc.requests.secrets import read_secrets, read_uuids
from vdsmcinder.rpc.wire import ceph as wire_ceph
from vdsmcinder.rpc.wire import common, host, iotune
from vdsmcinder.rpc.wire.listing import Listings
from vdsmcinder.rpc.wire.stats import EncodedStats
from vdsmcinder.virt.fleet.disk_checks import DiskChecks
from vdsmcinder.virt.fleet.missing_secrets import MissingSecrets
from vdsmcinder.virt.secrets.secrets import Secrets
from vdsmcinder.virt.vm.registry import Registry
from vdsmcinder.virt.vm.vm import VM

log = logging.getLogger(__name__)


class HostVerbs:
    """What concerns the host, or all of its VMs.

    What tells of many VMs raises OutOfResources (1100) where it would be too long.
    """

    def __init__(  # noqa: PLR0917 - one for each thing that a host has
        self,
        registry: Registry,
        secrets: Secrets,
        missing: MissingSecrets,
        capabilities: Capabilities,
        sampler: HostSampler,
        ceph: ClusterMonitor,
        listings: Listings,
        stats: EncodedStats,
        checks: DiskChecks,
        settings: Config,
    ) -> None:
        self._registry = registry
        self._secrets = secrets
        self._missing = missing
        self._capabilities = capabilities
        self._sampler = sampler
        self._ceph = ceph
        self._listings = listings
        self._stats = stats
        self._checks = checks
        self._default_secret = settings.vms.cinder_secret_uuid or None

    def ping(self) -> bool:
        return True

    def ping2(self) -> bool:
        return True

    def echo(self, message: str) -> str:
        return message

    async def getCapabilities(self) -> dict[str, Any]:
        found = await self._capabilities.get()
        await self._missing.look()
        return {**found, "missingSecrets": self._missing.uuids}

    async def getHardwareInfo(self) -> dict[str, Any]:
        return await self._capabilities.hardware()

    def getStats(self) -> dict[str, Any]:
        return host.host_stats(self._sampler.snapshot(), self._registry.vms(), self._ceph.clusters)

    async def getVMList(self, full: bool, vm_ids: Sequence[str], only_ids: bool) -> Written:
        write = _id if only_ids else _definition if full else _short_status
        return await self._listings.array(self._chosen(vm_ids), write)

    async def getVMFullList(self, vm_ids: Sequence[str]) -> Written:
        return await self._listings.array(self._chosen(vm_ids), _definition)

    async def getAllVmStats(self) -> Written:
        return await self._stats.of(self._registry.vms())

    async def getAllVmIoTunePolicies(self) -> Written:
        limited = [vm for vm in self._registry.vms() if vm.domain.io_tune_policy]
        return await self._listings.object(limited, _io_tune)

    async def dumpxmls(self, vm_ids: Sequence[str]) -> Written:
        return await self._listings.object(self._chosen(vm_ids), _document)

    def setLogLevel(self, level: str, name: str) -> None:
        if name and name not in logging.getLogger().manager.loggerDict:
            raise InvalidParameter(
                "there is no logger of that name; leave name empty for all, or name a module as "
                "log lines do, such as vdsmcinder.virt.vm.vm",
                field="name",
            )
        logging.getLogger(name).setLevel(level)

    def setMOMPolicyParameters(self, _values: Mapping[str, Any]) -> None:
        """No memory overcommit manager runs here, as momStatus in Host.getStats tells engines."""

    def hostdevListByCaps(self, _capabilities: Sequence[str]) -> dict[str, Any]:
        # No device of the host is given to VMs here.
        return {}

    def setSafeNetworkConfig(self) -> None:
        """What the host's networks are is its administrator's: there is nothing to be kept."""

    async def registerSecrets(self, secrets: Sequence[Any], clear: bool) -> None:
        await self._secrets.register(read_secrets(secrets), clear=clear)

    async def unregisterSecrets(self, uuids: Sequence[Any]) -> None:
        await self._secrets.unregister(read_uuids(uuids))

    async def getSecrets(self) -> list[dict[str, str]]:
        return [
            {"uuid": s.uuid, "usageType": s.usage_type.wire_name, "usageID": s.usage_id}
            for s in await self._secrets.registered()
        ]

    async def checkDisk(self, drive: Mapping[str, Any]) -> dict[str, Any]:
        described = read_drive(drive, self._default_secret)
        return wire_ceph.disk_check(await self._checks.of_description(described))

    def _chosen(self, vm_ids: Sequence[str]) -> list[VM]:
        """The VMs of those ids, each once, or all for none; ids of no VM are passed over."""
        if not vm_ids:
            return self._registry.vms()
        ids = dict.fromkeys(vm_ids)
        return [vm for vm_id in ids if (vm := self._registry.find(vm_id)) is not None]


def _id(vm: VM) -> bytes:
    return envelope.encode(vm.id)


def _short_status(vm: VM) -> bytes:
    return envelope.encode(common.short_status(vm))


def _definition(vm: VM) -> bytes:
    """One VM among others as VmDefinition; that it cannot be told keeps nobody from the others."""
    try:
        return envelope.encode(common.definition(vm))
    except Exception:
        log.exception("%s cannot be described", vm.name)
        return envelope.encode({"vmName": vm.name, **common.short_status(vm)})


def _document(vm: VM) -> bytes:
    return envelope.member(vm.id, vm.xml)


def _io_tune(vm: VM) -> bytes:
    policy = {"policy": iotune.policy(vm), "current_values": iotune.values(vm)}
    return envelope.member(vm.id, policy)
