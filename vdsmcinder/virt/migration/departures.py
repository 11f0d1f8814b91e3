# SPDX-License-Identifier: GPL-2.0-or-later
"""The VMs that leave this host: begun, queued, told of, cancelled, found again."""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import deque

import libvirt

from vdsmcinder.errors import (
    MigrationFailed,
    MigrationNotCancelled,
    NoMigration,
    TooManyMigrations,
    UnsupportedOperation,
)
from vdsmcinder.virt.domain.metadata import MigrationMark
from vdsmcinder.virt.migration.common.context import Direction, Travel
from vdsmcinder.virt.migration.outgoing.debts import Debts
from vdsmcinder.virt.migration.outgoing.shell import Outgoing
from vdsmcinder.virt.vm import lifecycle, migration
from vdsmcinder.virt.vm.migration import Handover, Progress
from vdsmcinder.virt.vm.migration_request import ADDRESS, MigrationRequest
from vdsmcinder.virt.vm.registry import Registry
from vdsmcinder.virt.vm.status import ExitReason, Status
from vdsmcinder.virt.vm.vm import VM

log = logging.getLogger(__name__)


class Departures:
    """All migrations away from this host. waiting: how many VMs wait for their turn."""

    def __init__(self, registry: Registry, travel: Travel, debts: Debts) -> None:
        self._registry = registry
        self._travel = travel
        self._debts = debts
        self._running: set[Outgoing] = set()
        self._queue: deque[tuple[Outgoing, MigrationRequest]] = deque()
        self._last: dict[str, Outgoing] = {}
        self._host_uuid = ""

    @property
    def waiting(self) -> int:
        return len(self._queue)

    async def migrate(self, vm_id: str, request: MigrationRequest) -> None:
        """Begin to move a VM; returns when the other host has accepted it, or it waits its turn.

        Raises NoSuchVM (1), VMIsDown (6), DuringMigration (51),
        PeerUnreachable (10), MigrationFailed (12) and what the other host's checks raise,
        TooManyMigrations (82). The VM stays as it was then.
        """
        vm = self._registry.get(vm_id)
        # An agent that is asked to freeze the guest may have done so and not have answered yet.
        async with vm.lock, vm.freezing.lock:
            going = await self._begin(vm, request)
        self._queue.append((going, request))
        self._admit()
        if going not in self._running:
            log.info("%s waits for its turn to migrate to %s", vm.name, request.peer)
            going.waits()
        self._travel.tasks.spawn(self._leave(going), f"{vm.name} leaves")
        await asyncio.shield(going.answer)

    async def _begin(self, vm: VM, request: MigrationRequest) -> Outgoing:
        vm.require_running("migrated")
        _refuse_immobile(vm)
        full = self.waiting >= self._travel.options.queue_limit
        if len(self._running) >= request.outgoing_limit and full:
            raise TooManyMigrations(
                f"VM {vm.id} cannot migrate now: {len(self._running)} VMs leave this host and "
                f"{self.waiting} wait, which is all that may (option migration.queue_limit); call "
                "again later"
            )
        wanted = Handover(self._travel.options.handover)
        handover = Handover.LIBVIRT if request.schedule.post_copy else wanted
        source = await self.own_uuid()
        mark = MigrationMark(
            str(uuid.uuid4()),
            source,
            str(request.peer),
            handover.value,
            request.data_host,
            source_peer=str(self._travel.here.address or ""),
        )
        going = Outgoing(vm, mark, request.peer, self._travel, debts=self._debts, request=request)
        vm.migrates(going)
        known = self._registry.find
        self._last = {i: last for i, last in self._last.items() if known(i) is last.vm}
        self._last[vm.id] = going
        vm.apply(lifecycle.MIGRATES)
        return going

    @property
    def knows_own_uuid(self) -> bool:
        """Whether own_uuid() returns at once."""
        return bool(self._host_uuid)

    async def own_uuid(self) -> str:
        """This host's UUID as libvirt knows it. Raises MigrationFailed, ResourceUnavailable."""
        if not self._host_uuid:
            connection = self._travel.connection
            try:
                self._host_uuid = await connection.call(migration.host_uuid, connection.handle)
            except libvirt.libvirtError as e:
                raise MigrationFailed(f"libvirt does not tell the host's UUID: {e}") from e
        return self._host_uuid

    async def _leave(self, going: Outgoing) -> None:
        """All of one VM's way."""
        try:
            await going.run()
        finally:
            self._running.discard(going)
            self._queue = deque(place for place in self._queue if place[0] is not going)
            self._travel.counts.over[Direction.OUT, going.outcome] += 1
            self._admit()

    def _admit(self) -> None:
        """Let those go whose turn it is."""
        while self._queue and len(self._running) < self._queue[0][1].outgoing_limit:
            going, _ = self._queue.popleft()
            self._running.add(going)
            going.its_turn()

    async def cancel(self, vm_id: str) -> None:
        """End a VM's migration; returns when it is known to stay.

        Raises NoSuchVM (1), MigrationNotCancelled (47), also where it does not leave this host:
        oVirt's engine knows that code, and goes on with the next VM.
        """
        try:
            going = self._going(vm_id)
        except NoMigration as e:
            raise MigrationNotCancelled(e.message) from None
        await going.cancel()

    async def change(self, vm_id: str, bandwidth_mib_s: int | None) -> None:
        """Change the limit of a migration: 0 for none, None leaves it. Raises NoMigration (81)."""
        going = self._going(vm_id)
        if bandwidth_mib_s is not None:
            await going.limit_bandwidth(bandwidth_mib_s)

    def status(self, vm_id: str) -> tuple[Progress, bool]:
        """How far a VM's migration is, and whether it is over.

        Raises NoSuchVM (1), NoMigration (81) for one that never migrated, MigrationFailed (12) with
        the reason for one whose last migration failed.
        """
        vm = self._registry.get(vm_id)
        if vm.migration is not None:
            return vm.migration.progress, False
        last = self._last.get(vm.id)
        # One that has come back since is another VM to this host.
        if last is None or last.vm is not vm:
            raise NoMigration(f"VM {vm.id} does not migrate, and has not since the daemon started")
        if last.failure is not None:
            raise MigrationFailed(last.failure.message)
        return last.progress, True

    def keeps(self, vm_id: str, migration_id: str) -> bool:
        """Whether a VM stays on this host that was to leave it by that migration.

        A copy of it that is elsewhere must not run then. False while that is not known, and where
        it has left. Raises NoSuchVM (1) for one that is not here any more.
        """
        vm = self._registry.get(vm_id)
        if vm.migration is not None:
            return isinstance(vm.migration, Outgoing) and vm.migration.id != migration_id
        return vm.exit is None or vm.exit.reason is not ExitReason.MIGRATION_SUCCEEDED

    def passed(self, vm_id: str, iteration: int) -> None:
        """QEMU begins another pass over the memory of a VM that leaves."""
        vm = self._registry.find(vm_id)
        if vm is not None and isinstance(vm.migration, Outgoing):
            vm.migration.passed(iteration)

    def found(self, vm: VM, mark: MigrationMark) -> None:
        """A VM was on its way from here when the daemon ended: take it up again."""
        going = Outgoing(vm, mark, ADDRESS.convert(mark.peer), self._travel, debts=self._debts)
        vm.migrates(going)
        self._debts.found(vm)
        self._last[vm.id] = going
        self._running.add(going)
        going.found()
        self._travel.tasks.spawn(self._leave(going), f"{vm.name} leaves")

    def _going(self, vm_id: str) -> Outgoing:
        vm = self._registry.get(vm_id)
        if not isinstance(vm.migration, Outgoing):
            what = "does not migrate" if vm.migration is None else vm.migration.words
            raise NoMigration(f"VM {vm.id} {what}; only the host that it leaves can change that")
        return vm.migration


def _refuse_immobile(vm: VM) -> None:
    """Raise UnsupportedOperation (75) for a VM that cannot migrate as it is."""
    if vm.status is not Status.UP:
        raise UnsupportedOperation(
            f"VM {vm.id} is {vm.status.value}, and only VMs that are Up migrate; have it run first"
        )
    if vm.freezing.limited:
        raise UnsupportedOperation(
            f"VM {vm.id} is frozen for a snapshot; call VM.thaw before VM.migrate"
        )
