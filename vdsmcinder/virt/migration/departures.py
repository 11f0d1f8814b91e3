# SPDX-License-Identifier: GPL-2.0-or-later
"""The VMs that leave this host: begun, queued, told of, cancelled, found again.

rpc/vm.py calls it for VM.migrate and what belongs to it; virt/migration/migrations.py builds it.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import deque

import libvirt

from vdsmcinder.errors import (
    MigrationFailed,
    NoMigration,
    TooManyMigrations,
    Unexpected,
    UnsupportedOperation,
    VdsmCinderError,
)
from vdsmcinder.virt.domain.metadata import MigrationMark
from vdsmcinder.virt.migration.context import Direction, Travel
from vdsmcinder.virt.migration.outgoing import Outgoing
from vdsmcinder.virt.vm import lifecycle, migration
from vdsmcinder.virt.vm.migration import Handover, Phase, Progress
from vdsmcinder.virt.vm.migration_request import ADDRESS, MigrationRequest
from vdsmcinder.virt.vm.registry import Registry
from vdsmcinder.virt.vm.status import Status
from vdsmcinder.virt.vm.vm import VM

log = logging.getLogger(__name__)

# Between two tries with a host that takes in others now.
BUSY_RETRY_S = 1.0


class Departures:
    """All migrations away from this host. waiting: how many VMs wait for their turn."""

    def __init__(self, registry: Registry, travel: Travel) -> None:
        self._registry = registry
        self._travel = travel
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
        accepted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queue.append((going, request))
        self._admit()
        if not going.turn.is_set():
            log.info("%s waits for its turn to migrate to %s", vm.name, request.peer)
            _tell(accepted)
        self._travel.spawn(self._leave(going, request, accepted))
        await asyncio.shield(accepted)

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
            str(uuid.uuid4()), source, str(request.peer), handover.value, request.data_host
        )
        going = Outgoing(vm, mark, request.peer, self._travel)
        vm.migration = going
        known = self._registry.find
        self._last = {i: last for i, last in self._last.items() if known(i) is last.vm}
        self._last[vm.id] = going
        vm.apply(lifecycle.MIGRATES)
        return going

    async def own_uuid(self) -> str:
        """This host's UUID as libvirt knows it. Raises MigrationFailed, ResourceUnavailable."""
        if not self._host_uuid:
            connection = self._travel.connection
            try:
                self._host_uuid = await connection.call(migration.host_uuid, connection.handle)
            except libvirt.libvirtError as e:
                raise MigrationFailed(f"libvirt does not tell the host's UUID: {e}") from e
        return self._host_uuid

    async def _leave(
        self, going: Outgoing, request: MigrationRequest, accepted: asyncio.Future[None]
    ) -> None:
        """All of one VM's way; accepted: told when the other host has answered, or it waits."""
        try:
            encrypted = await self._taken(going, request, accepted)
            if encrypted is not None:
                _tell(accepted)
                await going.copy(request, encrypted=encrypted)
        finally:
            await self._ended(going)

    async def _taken(
        self, going: Outgoing, request: MigrationRequest, accepted: asyncio.Future[None]
    ) -> bool | None:
        """Whether its data is to be encrypted; None if it stays."""
        preparing = asyncio.create_task(self._prepare(going, request, accepted))
        halted = asyncio.create_task(going.halted.wait())
        await asyncio.wait({preparing, halted}, return_when=asyncio.FIRST_COMPLETED)
        halted.cancel()
        if going.halted.is_set():
            preparing.cancel()
        try:
            encrypted = await preparing
            if not going.halted.is_set():
                return encrypted
            error: VdsmCinderError = going.explain(None)
        except asyncio.CancelledError:
            error = going.explain(None)
        except VdsmCinderError as e:
            error = e
        except Exception as e:
            # Such as what no daemon answers: the VM must not be left between two hosts for it.
            log.exception("%s could not be offered to %s", going.vm.name, going.address)
            error = Unexpected(f"VM {going.vm.id} stays, for an error of this daemon's: {e!r}")
        await going.called_off(error)
        _tell(accepted, error)
        return None

    async def _prepare(
        self, going: Outgoing, request: MigrationRequest, accepted: asyncio.Future[None]
    ) -> bool:
        await going.turn.wait()
        told = False
        while True:
            try:
                return await going.prepare(request)
            except TooManyMigrations as e:
                if not told:
                    log.info("%s waits: %s", going.vm.name, e.message)
                    _tell(accepted)
                    told = True
            going.phase = Phase.WAITING
            await asyncio.sleep(BUSY_RETRY_S)

    async def _ended(self, going: Outgoing) -> None:
        if going.failure is None:
            await going.hang_up()
        self._running.discard(going)
        self._queue = deque(place for place in self._queue if place[0] is not going)
        outcome = "ok" if going.failure is None else "failed"
        if going.cancelled and going.failure is not None:
            outcome = "cancelled"
        self._travel.counts.over[Direction.OUT, outcome] += 1
        self._admit()

    def _admit(self) -> None:
        """Let those go whose turn it is."""
        while self._queue and len(self._running) < self._queue[0][1].outgoing_limit:
            going, _ = self._queue.popleft()
            self._running.add(going)
            going.turn.set()

    async def cancel(self, vm_id: str) -> None:
        """End a VM's migration; returns when it is known to stay.

        Raises NoSuchVM (1), NoMigration (81), MigrationNotCancelled (47).
        """
        await self._going(vm_id).cancel()

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

    def passed(self, vm_id: str, iteration: int) -> None:
        """QEMU begins another pass over the memory of a VM that leaves."""
        vm = self._registry.find(vm_id)
        if vm is not None and isinstance(vm.migration, Outgoing):
            vm.migration.passed(iteration)

    def found(self, vm: VM, mark: MigrationMark) -> None:
        """A VM was on its way from here when the daemon ended: take it up again."""
        going = Outgoing(vm, mark, ADDRESS.convert(mark.peer), self._travel)
        vm.migration = going
        self._last[vm.id] = going
        self._running.add(going)
        self._travel.spawn(self._taken_up(going))

    async def _taken_up(self, going: Outgoing) -> None:
        try:
            await going.adopt()
        finally:
            await self._ended(going)

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


def _tell(accepted: asyncio.Future[None], error: VdsmCinderError | None = None) -> None:
    if accepted.done():
        return
    if error is None:
        accepted.set_result(None)
    else:
        accepted.set_exception(error)
