# SPDX-License-Identifier: GPL-2.0-or-later
"""Migrations both ways: what they share, and which way a VM goes that was found on its way.

daemon.py builds it; rpc/vm.py calls its departures and arrivals.
"""

from __future__ import annotations

import contextlib
from typing import Callable

from vdsmcinder.config import Migration as MigrationOptions
from vdsmcinder.errors import MigrationFailed
from vdsmcinder.hypervisor.connection import Connection
from vdsmcinder.tasks import Tasks
from vdsmcinder.virt.domain.document_policy import DocumentPolicy
from vdsmcinder.virt.domain.domain import Document
from vdsmcinder.virt.migration.arrivals import Arrivals
from vdsmcinder.virt.migration.common.context import Counts, Travel
from vdsmcinder.virt.migration.departures import Departures
from vdsmcinder.virt.migration.outgoing.debts import Debts
from vdsmcinder.virt.secrets.secrets import Secrets
from vdsmcinder.virt.storage.kept_marks import KeptMarks
from vdsmcinder.virt.storage.preflight import Preflight
from vdsmcinder.virt.vm import lifecycle
from vdsmcinder.virt.vm.migration import Dial, Progress, Source
from vdsmcinder.virt.vm.registry import Registry
from vdsmcinder.virt.vm.vm import VM


class Migrations:
    """departures: the VMs that leave. arrivals: those that come. counts: what is over.

    debts: what other hosts are still to be told.
    """

    def __init__(
        self,
        registry: Registry,
        connection: Connection,
        secrets: Secrets,
        preflight: Preflight,
        options: MigrationOptions,
        *,
        policy: DocumentPolicy,
        dial: Dial,
        here: Source,
        available_mib: Callable[[], int],
        on_progress: Callable[[VM, Progress], None],
        tasks: Tasks,
        marks: KeptMarks,
        debts: Debts,
    ) -> None:
        self.counts = Counts()
        self._tasks = tasks
        self.debts = debts
        travel = Travel(
            connection, secrets, options, dial, here, on_progress, tasks, self.counts, marks
        )
        self.departures = Departures(registry, travel, self.debts)
        self.arrivals = Arrivals(
            registry,
            travel,
            preflight,
            policy,
            available_mib=available_mib,
            on_arrival=self.debts.found,
        )

    async def close(self) -> None:
        """End all tasks; libvirt goes on with what it copies, and the next daemon takes it up."""
        await self._tasks.close()
        await self.debts.close()

    def troubles(self) -> list[str]:
        """What is left of migrations for long and needs somebody, as sentences."""
        return [*self.arrivals.troubles(), *self.debts.troubles()]

    async def prepare(self) -> bool:
        """Learn which host this is, so that take_up() need not ask; False if that is known.

        Raises ResourceUnavailable.
        """
        if self.departures.knows_own_uuid:
            return False
        # A libvirt that does not tell leaves those out that were on their way, and no others.
        with contextlib.suppress(MigrationFailed):
            await self.departures.own_uuid()
        return True

    async def take_up(self, vm: VM, document: Document) -> bool:
        """Take up the migration of a VM that is not known yet; False if it has none.

        Raises VdsmCinderError, while libvirt does not tell which host this is.
        """
        kept = vm.domain.metadata
        mark = kept.migration
        # Of one that is owed a word it had been decided already what becomes of the VM.
        if mark is None or any(debt.id == mark.id for debt in kept.debts):
            return False
        if mark.source == await self.departures.own_uuid():
            vm.found(document, lifecycle.MIGRATES)
            self.departures.found(vm, mark)
        else:
            vm.found(document, lifecycle.ARRIVES)
            self.arrivals.found(vm, mark)
        return True
