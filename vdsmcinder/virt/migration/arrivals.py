# SPDX-License-Identifier: GPL-2.0-or-later
"""The VMs that come to this host: announced by their source, taken in, let run or forgotten.

rpc/vm.py calls it for the verbs that another host's daemon calls; virt/migration/migrations.py
builds it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Callable

from vdsmcinder.ceph.image_use import Others
from vdsmcinder.errors import (
    InvalidParameter,
    MigrationFailed,
    NoSuchVM,
    TooManyMigrations,
    VMExists,
)
from vdsmcinder.hypervisor.long_xml import aside
from vdsmcinder.hypervisor.xmldoc import parse
from vdsmcinder.virt.domain.document_policy import DocumentPolicy
from vdsmcinder.virt.domain.domain import Document
from vdsmcinder.virt.domain.metadata import MigrationMark
from vdsmcinder.virt.migration import destination_checks
from vdsmcinder.virt.migration.common import migration_job
from vdsmcinder.virt.migration.common.context import Travel
from vdsmcinder.virt.migration.incoming.shell import Incoming
from vdsmcinder.virt.storage.preflight import Preflight
from vdsmcinder.virt.vm import lifecycle
from vdsmcinder.virt.vm.migration import Acceptance, Handover, Offer, Source, Verdict
from vdsmcinder.virt.vm.migration_request import known_address
from vdsmcinder.virt.vm.registry import Registry
from vdsmcinder.virt.vm.status import ExitReason
from vdsmcinder.virt.vm.vm import VM

log = logging.getLogger(__name__)

# What a QEMU that was killed had open is shown as open for 30 s, and OSDs may notice late.
LINGER_S = 45.0


class Arrivals:
    """All migrations to this host. on_arrival: called with each VM that has come and runs."""

    def __init__(
        self,
        registry: Registry,
        travel: Travel,
        preflight: Preflight,
        policy: DocumentPolicy,
        *,
        available_mib: Callable[[], int],
        on_arrival: Callable[[VM], None],
    ) -> None:
        self._registry = registry
        self._on_arrival = on_arrival
        self._travel = travel
        self._preflight = preflight
        self._policy = policy
        self._host = destination_checks.Host(travel.connection, travel.secrets, available_mib)
        # One offer at a time, so that two do not count on the same memory.
        self._lock = asyncio.Lock()
        self._ended_s: dict[str, float] = {}
        self._began_s = time.monotonic()

    async def accept(self, offer: Offer) -> tuple[Acceptance, VM]:
        """Check that a VM can run here, and expect it.

        Raises VMExists (4), TooManyMigrations (82), MigrationFailed (12), OutOfMemory (14), and
        what virt/storage/preflight.py and Secrets.register raise; nothing is expected then.
        """
        document = await aside(self._read, offer.xml, offer.vm_id)
        domain = document.domain
        if domain.uuid != offer.vm_id:
            raise InvalidParameter(
                f"migration of VM {offer.vm_id}: its xml is of domain {domain.uuid}", field="xml"
            )
        async with self._lock:
            await self._make_room(offer)
            if offer.secrets:
                await self._travel.secrets.register(offer.secrets)
            announced = [coming.vm.domain for coming in self._coming() if not coming.came]
            await self._host.check(domain, offer.xml, announced, post_copy=offer.post_copy)
            await self._preflight.check(
                domain.ceph, offer.vm_id, MigrationFailed, self._others(offer.vm_id)
            )
            vm = self._registry.expect(offer.vm_id, document)
            coming = self._incoming(vm, offer.migration_id, offer.source)
            vm.apply(lifecycle.ARRIVES)
            coming.expect()
        log.info("%s is expected from %s", vm.name, offer.source.words)
        return Acceptance(migration_job.has_tls()), vm

    def _read(self, xml: str, vm_id: str) -> Document:
        document = Document.censored(xml)
        self._policy.check(parse(xml, "domain xml"), f"migration of VM {vm_id}")
        return document

    def _incoming(self, vm: VM, migration_id: str, source: Source) -> Incoming:
        coming = Incoming(
            vm,
            migration_id,
            source,
            self._travel,
            on_arrival=self._on_arrival,
            on_end=self._copy_ended,
            on_kept=self._drop,
        )
        vm.migrates(coming)
        self._travel.tasks.spawn(coming.run(), f"{vm.name} comes")
        return coming

    def _copy_ended(self, vm_id: str) -> None:
        self._ended_s[vm_id] = time.monotonic()

    def _others(self, vm_id: str) -> Others:
        """Who may have the images of a VM open that comes: what was killed here counts as open."""
        now_s = time.monotonic()
        self._ended_s = {k: at_s for k, at_s in self._ended_s.items() if now_s - at_s < LINGER_S}
        # What ended here before the daemon began is not known.
        lately = vm_id in self._ended_s or now_s - self._began_s < LINGER_S
        return Others.SOURCE_AND_HERE if lately else Others.SOURCE

    async def _make_room(self, offer: Offer) -> None:
        known = self._registry.find(offer.vm_id)
        if known is not None:
            await self._replace(known, offer)
        limit = offer.limit or self._travel.options.incoming_limit
        number = len(self._coming())
        if number >= limit:
            raise TooManyMigrations(
                f"{number} VMs are on their way to this host, as many as may be at once; it can "
                "take in another when one of them has arrived"
            )

    async def _replace(self, known: VM, offer: Offer) -> None:
        """Forget what an earlier migration left, if it is only that.

        The source has the VM, or it could not offer it: a copy that does not run is of no use.
        """
        if isinstance(known.migration, Incoming):
            await known.migration.drop("its source offered it anew")
        elif known.migration is not None and known.migration.id == offer.migration_id:
            raise InvalidParameter(
                f"VM {known.id} is on this host already, which is the one that it is to leave; "
                "name another as dst",
                field="dst",
            )
        elif not _did_not_arrive(known):
            raise VMExists(
                f"VM {known.id} exists on this host already and is {known.status.value}; "
                "VM.destroy removes one that is Down",
                vmId=known.id,
            )
        self._registry.forget(known)

    def _coming(self) -> list[Incoming]:
        return [m for vm in self._registry.vms() if isinstance(m := vm.migration, Incoming)]

    def troubles(self) -> list[str]:
        """Of each VM that is whole and waits for its source for long, what to do."""
        return [coming.trouble for coming in self._coming() if coming.trouble]

    async def conclude(self, vm_id: str, migration_id: str | None, verdict: Verdict) -> int | None:
        """Do what the source says, or who speaks for it: let the VM run here, or forget it.

        For how long its guest has been running here, in ms; None if that was not seen to begin.
        RUN and FENCED raise NoSuchVM (1) and MigrationFailed (12) if there is no whole copy; RUN
        also if the VM came by another migration, FENCED if an image of it is open elsewhere, or
        was written since. DROP
        raises VMExists (4) if it runs here already.
        All raise ResourceUnavailable (40).
        """
        vm = self._registry.find(vm_id)
        coming = None if vm is None else vm.migration
        if verdict is Verdict.RUN:
            if vm is not None and migration_id not in _came_by(vm):
                raise MigrationFailed(
                    f"VM {vm_id} is on this host, and not by migration {migration_id}, so that "
                    "nothing was done; who began that one has to look which host runs the VM",
                    vmId=vm_id,
                )
            return await self._let_run(vm_id, vm, coming)
        if verdict is Verdict.FENCED:
            if isinstance(coming, Incoming):
                await self._check_source_is_off(coming)
            return await self._let_run(vm_id, vm, coming)
        if isinstance(coming, Incoming):
            if coming.id == migration_id:
                await self._drop(coming)
        elif vm is not None and vm.running:
            raise VMExists(f"VM {vm.id} runs on this host and is {vm.status.value}", vmId=vm.id)
        elif vm is not None and _did_not_arrive(vm):
            self._registry.forget(vm)
        return None

    async def _drop(self, coming: Incoming) -> None:
        """End the copy of a VM that stays where it was. Raises VMExists, ResourceUnavailable."""
        await coming.drop("its source keeps it")
        self._registry.forget(coming.vm)

    async def _check_source_is_off(self, coming: Incoming) -> None:
        """Raise for a copy that is not whole or is outdated, or whose source Ceph still sees."""
        await coming.require_whole()
        vm = coming.vm
        kept = await coming.who_keeps()
        if kept is not None:
            raise MigrationFailed(
                f"VM {vm.id} must not run here, for its disks have been written since it was "
                f"copied ({kept}); VM.destroy it here, and start it anew if it runs nowhere",
                vmId=vm.id,
            )
        await self._preflight.check(vm.domain.ceph, vm.id, MigrationFailed, Others.HERE)
        log.warning("%s is let run, for it is said that %s is off", vm.name, coming.source)

    async def _let_run(self, vm_id: str, vm: VM | None, coming: object) -> int | None:
        if vm is None:
            raise NoSuchVM(f"VM {vm_id} did not come to this host", vmId=vm_id)
        if isinstance(coming, Incoming):
            await coming.let_run()
        elif not vm.running:
            raise MigrationFailed(f"VM {vm.id} is Down on this host")
        if vm.began_here_s is None:
            return None
        return round((time.monotonic() - vm.began_here_s) * 1000)

    def found(self, vm: VM, mark: MigrationMark) -> None:
        """A VM was on its way to this host when the daemon ended."""
        # Its name went with the daemon that was told it.
        words = f"the host with UUID {mark.source}" if mark.source else "another host"
        address = known_address(mark.source_peer)
        if address is not None:
            words = f"host {address}"
        self._incoming(vm, mark.id, Source(words, address)).has_come()

    def stranger(self, vm: VM) -> None:
        """libvirt takes in a VM of ours that nobody announced, or that was given up."""
        mark = vm.domain.metadata.migration or MigrationMark("", "", "", Handover.LIBVIRT.value)
        log.warning("%s comes to this host without having been announced", vm.name)
        vm.apply(lifecycle.ARRIVES)
        self.found(vm, mark)


def _came_by(vm: VM) -> set[str | None]:
    """The ids of the migration that brings the VM, or that has brought it."""
    if isinstance(vm.migration, Incoming):
        return {vm.migration.id}
    # Until its document is read anew it says that the migration is not over.
    told = vm.domain.metadata
    mark = () if told.migration is None else (told.migration.id,)
    return {told.arrived_by, *mark} - {None}


def _did_not_arrive(vm: VM) -> bool:
    """Whether it is but the memory of a migration that failed."""
    return vm.exit is not None and vm.exit.reason is ExitReason.MIGRATION_FAILED
