# SPDX-License-Identifier: GPL-2.0-or-later
"""The VM.* verbs: each public method is one verb of schema.yml, and takes its parameters.

Values are those that the schema lets through; what verbs do is done in virt/.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from typing import Any

from vdsmcinder.config import Config
from vdsmcinder.errors import InvalidParameter, UnsupportedOperation
from vdsmcinder.rpc.requests import devices, memory, nic
from vdsmcinder.rpc.requests import disk as disk_request
from vdsmcinder.rpc.requests.iotune import read_tunables
from vdsmcinder.rpc.requests.long import read_aside
from vdsmcinder.rpc.requests.migration import read_bandwidth, read_migration
from vdsmcinder.rpc.requests.policy import read_policy
from vdsmcinder.rpc.requests.vm import read_vm
from vdsmcinder.rpc.wire import ceph, common, migration, stats
from vdsmcinder.rpc.wire import iotune as wire_iotune
from vdsmcinder.virt.fleet.disk_checks import DiskChecks
from vdsmcinder.virt.live import disks, iotune, media, nics, resize, resources, screenshot, ticket
from vdsmcinder.virt.live import memory as live_memory
from vdsmcinder.virt.live import policy as live_policy
from vdsmcinder.virt.live.ticket import Ticket
from vdsmcinder.virt.migration.migrations import Migrations
from vdsmcinder.virt.secrets.secret import Secret
from vdsmcinder.virt.vm import guest_agent, power
from vdsmcinder.virt.vm.registry import Registry
from vdsmcinder.virt.vm.vm import VM


class VmVerbs:
    """What concerns one VM. Each raises NoSuchVM (1) for an id that is not of a VM here."""

    def __init__(
        self, registry: Registry, migrations: Migrations, checks: DiskChecks, settings: Config
    ) -> None:
        self._registry = registry
        self._departures = migrations.departures
        self._arrivals = migrations.arrivals
        self._checks = checks
        self._default_secret = settings.vms.cinder_secret_uuid or None
        self._migration = settings.migration

    async def create(self, vm_id: str, params: Mapping[str, Any]) -> dict[str, Any]:
        request = await read_aside(params, read_vm, vm_id, params, self._default_secret)
        return common.definition(await self._registry.create(vm_id, request))

    async def destroy(self, vm_id: str, graceful_attempts: int) -> None:
        await self._registry.destroy(vm_id, graceful_attempts)

    async def shutdown(  # noqa: PLR0917 - the verb has that many
        self,
        vm_id: str,
        delay_s: int,
        message: str,
        reboot: bool,
        timeout_s: int | None,
        force: bool,
    ) -> None:
        await power.shutdown(
            self._registry.get(vm_id),
            delay_s=delay_s,
            message=message,
            reboot=reboot,
            timeout_s=timeout_s,
            force=force,
        )

    async def reset(self, vm_id: str) -> None:
        await power.reset(self._registry.get(vm_id))

    async def pause(self, vm_id: str) -> dict[str, Any]:
        vm = self._registry.get(vm_id)
        await power.pause(vm)
        return common.definition(vm)

    async def cont(self, vm_id: str) -> dict[str, Any]:
        vm = self._registry.get(vm_id)
        await power.cont(vm)
        return common.definition(vm)

    def getStats(self, vm_id: str) -> list[dict[str, Any]]:
        return [stats.vm_stats(self._registry.get(vm_id))]

    def getInfo(self, vm_id: str) -> dict[str, Any]:
        return common.definition(self._registry.get(vm_id))

    async def checkDisks(self, vm_id: str) -> list[dict[str, Any]]:
        checks = await self._checks.of_vm(self._registry.get(vm_id))
        return [ceph.disk_check(check) for check in checks]

    async def hotplugDisk(self, vm_id: str, params: Mapping[str, Any]) -> dict[str, Any]:
        vm = self._running(vm_id, "given a disk")
        wanted = await read_aside(params, disk_request.read_plug, params, self._default_secret)
        await disks.plug(vm, *wanted)
        return common.definition(vm)

    async def hotunplugDisk(self, vm_id: str, params: Mapping[str, Any]) -> dict[str, Any]:
        vm = self._running(vm_id, "unplugged from")
        await disks.unplug(vm, await read_aside(params, disk_request.read_unplug, params))
        return common.definition(vm)

    async def hotplugNic(self, vm_id: str, params: Mapping[str, Any]) -> dict[str, Any]:
        vm = self._running(vm_id, "given a NIC")
        await nics.plug(vm, await read_aside(params, nic.read_plug, params))
        return common.definition(vm)

    async def hotunplugNic(self, vm_id: str, params: Mapping[str, Any]) -> dict[str, Any]:
        vm = self._running(vm_id, "unplugged from")
        await nics.unplug(vm, await read_aside(params, nic.read_unplug, params))
        return common.definition(vm)

    async def updateDevice(self, vm_id: str, params: Mapping[str, Any]) -> dict[str, Any]:
        vm = self._running(vm_id, "changed")
        change = await read_aside(params, devices.read_update, vm.id, params)
        if isinstance(change, Ticket):
            await ticket.set_ticket(vm, change)
        else:
            await nics.update(vm, change)
        return common.definition(vm)

    async def changeCD(self, vm_id: str, drive_spec: Any) -> dict[str, Any]:
        vm = self._running(vm_id, "given another CD")
        await media.change_cd(vm, devices.read_cd(drive_spec))
        return common.definition(vm)

    async def diskSizeExtend(self, vm_id: str, specs: Mapping[str, Any], new_size: int) -> str:
        vm = self._registry.get(vm_id)
        return str(await resize.extend(vm, disk_request.read_names(specs), new_size))

    async def setIoTune(self, vm_id: str, tunables: Sequence[Mapping[str, Any]]) -> None:
        vm = self._running(vm_id, "limited in its I/O")
        await iotune.set_limits(vm, read_tunables(tunables))

    def getIoTune(self, vm_id: str) -> list[dict[str, Any]]:
        return wire_iotune.values(self._registry.get(vm_id))

    def getIoTunePolicy(self, vm_id: str) -> list[dict[str, Any]]:
        return wire_iotune.policy(self._registry.get(vm_id))

    async def freeze(self, vm_id: str) -> None:
        await guest_agent.freeze(self._registry.get(vm_id))

    async def thaw(self, vm_id: str) -> None:
        await guest_agent.thaw(self._registry.get(vm_id))

    async def snapshot(  # noqa: PLR0917 - the verb has that many
        self,
        vm_id: str,
        drives: Sequence[Mapping[str, Any]],
        memory: object,
        frozen: bool,
        freeze_timeout_s: int | None,
        freeze_timeout_min: int | None,
        _job_id: str | None,
        _memory_timeout_min: int | None,
    ) -> None:
        if freeze_timeout_s is None and freeze_timeout_min is not None:
            freeze_timeout_s = freeze_timeout_min * 60
        vm, meant = self._registry.get(vm_id), disk_request.read_all_names(drives)
        await guest_agent.prepare_snapshot(vm, meant, bool(memory), frozen, freeze_timeout_s)

    async def setNumberOfCpus(self, vm_id: str, count: int) -> dict[str, Any]:
        vm = self._registry.get(vm_id)
        await resources.set_cpus(vm, count)
        return common.definition(vm)

    async def setBalloonTarget(self, vm_id: str, target_kib: int) -> None:
        await resources.set_balloon_target(self._registry.get(vm_id), target_kib)

    async def hotplugMemory(self, vm_id: str, params: Mapping[str, Any]) -> dict[str, Any]:
        vm = self._running(vm_id, "given memory")
        await live_memory.plug(vm, memory.read_plug(params))
        return common.definition(vm)

    async def hotunplugMemory(self, vm_id: str, params: Mapping[str, Any]) -> None:
        vm = self._running(vm_id, "unplugged from")
        await live_memory.unplug(vm, memory.read_unplug(params))

    async def updateVmPolicy(self, vm_id: str, params: Mapping[str, Any]) -> None:
        vm = self._running(vm_id, "given another policy")
        await live_policy.change(vm, read_policy(params))

    async def setDestroyOnReboot(self, vm_id: str) -> None:
        await power.set_destroy_on_reboot(self._registry.get(vm_id))

    def getExternalData(
        self, vm_id: str, kind: str, _last_hash: str | None, _force: bool
    ) -> dict[str, str]:
        vm = self._registry.get(vm_id)
        if kind not in ("tpm", "nvram"):
            raise InvalidParameter(
                f"VM {vm.id} has no data of that kind; ask for tpm or nvram", field="kind"
            )
        if kind in vm.domain.kept_outside:
            raise UnsupportedOperation(
                f"the {kind} data of VM {vm.id} cannot be read by this daemon, libvirt keeps it on "
                "this host; copy it from there before the VM is started elsewhere"
            )
        return {"hash": ""}

    async def setTicket(
        self,
        vm_id: str,
        password: str,
        ttl_s: int,
        existing: str,
        _params: Mapping[str, str],
    ) -> None:
        wanted = Ticket(Secret(password.encode()), ttl_s, existing=existing)
        await ticket.set_ticket(self._registry.get(vm_id), wanted)

    async def screenshot(self, vm_id: str) -> dict[str, str]:
        picture = await screenshot.take(self._registry.get(vm_id))
        data = base64.b64encode(picture).decode()
        return {"data": data, "encoding": "base64", "mime_type": "image/png"}

    async def migrate(self, vm_id: str, params: Mapping[str, Any]) -> None:
        vm = self._registry.get(vm_id)
        request = read_migration(vm.id, params, self._migration)
        await self._departures.migrate(vm.id, request)

    async def migrateCancel(self, vm_id: str) -> None:
        await self._departures.cancel(vm_id)

    def getMigrationStatus(self, vm_id: str) -> dict[str, Any]:
        progress, done = self._departures.status(vm_id)
        return migration.stats(vm_id, progress, done=done)

    async def migrateChangeParams(self, vm_id: str, params: Mapping[str, Any]) -> None:
        await self._departures.change(vm_id, read_bandwidth(vm_id, params))

    async def migrationCreate(
        self, vm_id: str, params: Mapping[str, Any], limit: int | None
    ) -> dict[str, Any]:
        offer = migration.read_offer(vm_id, params, limit)
        return migration.write_acceptance(*await self._arrivals.accept(offer))

    async def migrationConclude(self, vm_id: str, params: Mapping[str, Any]) -> dict[str, int]:
        migration_id, verdict = migration.read_verdict(vm_id, params)
        running_ms = await self._arrivals.conclude(vm_id.lower(), migration_id, verdict)
        return migration.write_conclusion(running_ms)

    def migrationKept(self, vm_id: str, migration_id: str) -> bool:
        return self._departures.keeps(vm_id, migration_id)

    def _running(self, vm_id: str, doing: str) -> VM:
        """A VM that is to be changed while it runs; doing completes 'cannot be ...'.

        That it does not run is told before what is wrong with a request. It is looked at again when
        its lock is held.
        """
        vm = self._registry.get(vm_id)
        vm.require_running(doing)
        return vm
