# SPDX-License-Identifier: GPL-2.0-or-later
"""What other hosts are still to be told of VMs of this one, after migrations that failed.

Each debt stands in the VM's metadata until the other host has answered, so that it outlives this
process and goes along with the VM; last_word.py is how one is paid.
"""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field

import libvirt

from vdsmcinder.errors import (
    DestroyFailed,
    PeerUnreachable,
    ResourceUnavailable,
    Unexpected,
    VdsmCinderError,
)
from vdsmcinder.hypervisor.connection import Connection
from vdsmcinder.tasks import Tasks, within
from vdsmcinder.virt.domain.metadata import Debt, write_debts
from vdsmcinder.virt.migration.common import migration_job
from vdsmcinder.virt.migration.common.runner import Runner
from vdsmcinder.virt.migration.outgoing import events as ev
from vdsmcinder.virt.migration.outgoing import last_word
from vdsmcinder.virt.migration.outgoing.last_word import LastWord
from vdsmcinder.virt.migration.outgoing.other_host import OtherHost
from vdsmcinder.virt.migration.outgoing.source_domain import SourceDomain
from vdsmcinder.virt.storage.kept_marks import KeptMarks
from vdsmcinder.virt.vm import lifecycle
from vdsmcinder.virt.vm.migration import Dial, Verdict
from vdsmcinder.virt.vm.migration_request import ADDRESS
from vdsmcinder.virt.vm.vm import VM

log = logging.getLogger(__name__)

# So long, in seconds, another host may be away before that is trouble.
TROUBLE_S = 15.0


@dataclass
class _Payment:
    """A debt that is being paid. written: whether it stands in the metadata.

    marked: whether an image says that the copy must not run. settled: when that, or more, is so.
    """

    vm: VM
    debt: Debt
    machine: LastWord
    since_s: float
    written: bool = False
    marked: bool = False
    settled: asyncio.Event = field(default_factory=asyncio.Event)


class Debts:
    """All debts of this host. host_name: its own, for whoever reads a mark."""

    def __init__(
        self, connection: Connection, dial: Dial, marks: KeptMarks, host_name: str, tasks: Tasks
    ) -> None:
        self._connection = connection
        self._dial = dial
        self._marks = marks
        self._host_name = host_name
        self._tasks = tasks
        # By the id of the migration.
        self._payments: dict[str, _Payment] = {}
        # By the id of the VM, which was to be destroyed here: where it runs.
        self._elsewhere: dict[str, str] = {}

    async def close(self) -> None:
        """End all tasks; what is owed stands in the VMs' metadata."""
        await self._tasks.close()

    def owe(self, vm: VM, debt: Debt) -> None:
        """Have it paid, once; returns at once."""
        if debt.id in self._payments:
            return
        machine = LastWord(vm.name, debt.peer, _owed(debt))
        written = debt in vm.domain.metadata.debts
        payment = _Payment(vm, debt, machine, time.monotonic(), written)
        self._payments[debt.id] = payment
        self._tasks.spawn(self._pay(payment), f"last word on {vm.name}")

    def found(self, vm: VM) -> None:
        """Have paid what stands in the metadata of a VM that was found, or has come."""
        for debt in vm.domain.metadata.debts:
            self.owe(vm, debt)

    def written(self, vm: VM, *more: Debt) -> str:
        """What is owed for a VM, and more, as its metadata holds it."""
        known = {p.debt.id: p.debt for p in self._payments.values() if p.vm.id == vm.id}
        return write_debts({**known, **{debt.id: debt for debt in more}}.values())

    async def end(self, vm_id: str) -> VdsmCinderError | None:
        """As virt/vm/migration.py has it."""
        until_s = time.monotonic() + self._connection.call_timeout_s
        for payment in [p for p in self._payments.values() if p.vm.id == vm_id]:
            try:
                await within(payment.settled.wait(), max(until_s - time.monotonic(), 0.0))
            except asyncio.TimeoutError:
                why = payment.machine.trouble or "it has not answered yet"
                return DestroyFailed(
                    f"VM {vm_id} has ended here, but host {payment.debt.peer} may let its copy run "
                    f"and cannot be told not to ({why}); call again when that host answers, or has "
                    "been off for a minute",
                    vmId=vm_id,
                )
        where = self._elsewhere.pop(vm_id, None)
        if where is None:
            return None
        return DestroyFailed(
            f"VM {vm_id} runs on host {where}, to which it had been handed over; destroy it there, "
            "and call again for what is left of it here",
            vmId=vm_id,
        )

    def troubles(self) -> list[str]:
        """Of each host that has been away for long, what it has to be told, as a sentence."""
        long_ago_s = time.monotonic() - TROUBLE_S
        return [
            _sentence(payment)
            for payment in self._payments.values()
            if payment.machine.trouble and payment.since_s < long_ago_s
        ]

    async def _pay(self, payment: _Payment) -> None:
        vm, debt = payment.vm, payment.debt
        other = OtherHost(self._dial, ADDRESS.convert(debt.peer))

        async def say(say: ev.Say) -> ev.Event:
            return await self._say(payment, other, say.verdict)

        runner = Runner(
            payment.machine,
            {},
            {ev.Say: say, ev.Yield: lambda _: self._yield(payment)},
            lasting=(),
            failed=_failed,
            tasks=self._tasks.group(f"last word on {vm.name}"),
        )
        runner.feed(last_word.BEGIN)
        try:
            await runner.run()
        finally:
            await other.hang_up()
        del self._payments[debt.id]
        if payment.machine.runs_there and (vm.doomed or debt.may_run):
            self._elsewhere[vm.id] = debt.peer
        payment.settled.set()
        if payment.marked:
            await self._marks.remove(vm.domain.ceph, debt.id)
        await self._write(vm)

    async def _say(self, payment: _Payment, other: OtherHost, verdict: Verdict) -> ev.Event:
        vm, debt = payment.vm, payment.debt
        if not payment.written:
            payment.written = await self._write(vm)
        if vm.migration is not None and vm.migration.id != debt.id:
            # It may be that host that it goes to, which then has it by right.
            return ev.Unreached(PeerUnreachable(f"VM {vm.id} migrates again"))
        reply = await other.say(vm.id, debt.id, verdict)
        if not (payment.marked or last_word.is_heard(verdict, reply)):
            await self._mark(payment)
        return reply

    async def _mark(self, payment: _Payment) -> None:
        """Have the images say that the copy must not run, for whoever has it and does not hear."""
        vm, debt = payment.vm, payment.debt
        words = f"VM {vm.id} stayed on {self._host_name}; its copy on {debt.peer} must not run"
        payment.marked = await self._marks.leave(vm.domain.ceph, debt.id, words)
        # Without images that could say it, it takes somebody's word to let the copy run.
        if not debt.may_run and (payment.marked or not vm.domain.ceph.images):
            payment.settled.set()

    async def _write(self, vm: VM) -> bool:
        """Have the VM's metadata say what is owed; False if that was not possible.

        A domain that has been removed holds nothing, and nothing is to be said of it.
        """
        try:
            await self._connection.on_domain(vm.id, migration_job.set_owed, self.written(vm))
        except libvirt.libvirtError as e:
            if e.get_error_code() == libvirt.VIR_ERR_NO_DOMAIN:
                return True
            log.warning("%s: what is owed for it could not be noted: %s", vm.name, e)
            return False
        except ResourceUnavailable as e:
            log.warning("%s: what is owed for it could not be noted: %s", vm.name, e)
            return False
        return True

    async def _yield(self, payment: _Payment) -> ev.Event:
        vm = payment.vm
        if not vm.running or vm.doomed:
            return ev.Destroyed()
        if vm.wanted_exit is not lifecycle.MIGRATED_AWAY:
            log.error(
                "%s runs on host %s too, to which it was said that this one is off; it is ended "
                "here",
                vm.name,
                payment.debt.peer,
            )
            vm.ending.want(lifecycle.MIGRATED_AWAY)
        return await SourceDomain(vm).destroy()


def _owed(debt: Debt) -> ev.Owe:
    return ev.Owe(Verdict(debt.verdict), debt.may_yield, debt.may_run)


def _failed(action: ev.Action, error: Exception) -> ev.Event | None:
    """What an action led to that failed as none should; an error of this daemon's."""
    if isinstance(action, ev.Say):
        return ev.Unreached(Unexpected(f"an error of this daemon's: {error!r}"))
    return ev.NotDestroyed(repr(error))


def _sentence(payment: _Payment) -> str:
    vm, debt = payment.vm, payment.debt
    return (
        f"host {debt.peer} has not been told yet that its copy of VM {vm.id} ({vm.name}) is to end "
        f"({payment.machine.trouble}); have vdsm-cinderd run there, and do not let the copy run"
    )
