# SPDX-License-Identifier: GPL-2.0-or-later
"""One virtual machine: what it is, what state it is in, and what libvirt tells of it.

registry.py keeps VMs and hands them libvirt's events; power.py and disks.py do things with them.
Commands on one VM are serialised by its lock; reads take none and answer from what is known.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, replace
from typing import Any, Callable, TypeVar

import libvirt

from vdsmcinder import logs
from vdsmcinder.ceph.workers import Workers
from vdsmcinder.config import Vms as VmOptions
from vdsmcinder.errors import (
    DuringMigration,
    VdsmCinderError,
    VMIsDown,
)
from vdsmcinder.hypervisor import process
from vdsmcinder.hypervisor.connection import Connection
from vdsmcinder.tasks import Tasks
from vdsmcinder.virt.domain import stats
from vdsmcinder.virt.domain.document_policy import DocumentPolicy
from vdsmcinder.virt.domain.domain import Document
from vdsmcinder.virt.secrets.secrets import Secrets
from vdsmcinder.virt.storage.preflight import Preflight
from vdsmcinder.virt.vm import event_log, libvirt_errors, lifecycle
from vdsmcinder.virt.vm.lifecycle import Change
from vdsmcinder.virt.vm.migration import Copies, Migration
from vdsmcinder.virt.vm.parts.commands import Commands
from vdsmcinder.virt.vm.parts.ending import Ending
from vdsmcinder.virt.vm.parts.freeze_state import Freezing, LateThaw
from vdsmcinder.virt.vm.parts.io_errors import IoTrouble
from vdsmcinder.virt.vm.parts.starting import Starting
from vdsmcinder.virt.vm.parts.unplugs import Unplugs
from vdsmcinder.virt.vm.qemu_monitor import Monitor
from vdsmcinder.virt.vm.status import Cause, Exit, PauseCode, Status, after

log = logging.getLogger(__name__)

T = TypeVar("T")


NOT_STARTED_YET = frozenset({Status.WAIT_FOR_LAUNCH, Status.POWERING_UP})


@dataclass(frozen=True)
class Services:
    """What every VM works with.

    policy: what its domain, and devices that it is given, may hold. copies: on other hosts.
    on_change: called after a VM's status or devices changed.
    on_thaw: called when a guest was thawed because nobody else did, with how that went.
    on_taken: called when a VM is to stay paused, for another host has opened its image.
    tasks: of all VMs; each has a group of them.
    """

    connection: Connection
    secrets: Secrets
    ceph: Workers
    preflight: Preflight
    options: VmOptions
    policy: DocumentPolicy
    copies: Copies
    start_timeout_s: float
    on_change: Callable[[VM], None]
    on_thaw: Callable[[VM, LateThaw], None]
    on_taken: Callable[[VM], None]
    tasks: Tasks


class VM:
    """A persistent libvirt domain of ours, running or not.

    id: the domain's uuid. xml: its document as libvirt last gave it, without passwords; domain:
    the same, read. exit: set once it is Down. status_changed_ms: monotonic clock.
    monitor: calls that its QEMU process answers go through it. commands: requests that are served
    on it. start: what was told while it started. ending: how it is to end. unplugs: devices that
    the guest is to let go of. io: the I/O errors for which QEMU paused it. freezing: whether its
    guest is frozen, for guest_agent.py. migration: that which is under way. began_here_s: when its
    guest, come from another host, was seen to begin to run here (monotonic clock).
    balloon_target_kib: what was last asked of the guest's balloon, None for nothing. adrift:
    libvirt went away while it started the VM, and whether it did is not known yet.

    Its fields are for reading: what changes them are its methods, and those of its parts.
    """

    def __init__(self, uuid: str, document: Document, services: Services) -> None:
        self.id = uuid
        self.xml = document.xml
        self.domain = document.domain
        self.status = Status.WAIT_FOR_LAUNCH
        self.status_changed_ms = _now_ms()
        self.pause_code: PauseCode | None = None
        self.exit: Exit | None = None
        self.sample: stats.VmSample | None = None
        self.pid = 0
        self.services = services
        self.monitor = Monitor(uuid, self.name, services.connection, self._monitor_is_back)
        self.lock = asyncio.Lock()
        self.start = Starting()
        self.ending = Ending()
        self.unplugs = Unplugs()
        self.freezing = Freezing()
        self.balloon_target_kib: int | None = None
        self.io = IoTrouble(self.domain.metadata.held)
        self.migration: Migration | None = None
        self.began_here_s: float | None = None
        self.adrift = False
        self._taken = ""
        self._started_s = time.monotonic()
        self.commands = Commands()
        self._status_changes = asyncio.Event()
        self._tasks = services.tasks.group(self.name)

    # What is known of it

    @property
    def name(self) -> str:
        """The domain's name."""
        return self.domain.name

    @property
    def hash(self) -> str:
        """Changes when the VM's devices do."""
        return self.domain.devices_hash

    @property
    def running(self) -> bool:
        """Whether there is, or is about to be, a QEMU process."""
        return self.status is not Status.DOWN

    @property
    def starting(self) -> bool:
        """Whether a task of ours starts it, and tells what comes of it."""
        return self.status in NOT_STARTED_YET and not self.adrift

    @property
    def elapsed_s(self) -> int:
        """How long it has been running, on whichever host, in seconds; 0 when it is Down."""
        if not self.running:
            return 0
        here_s = time.monotonic() - self._started_s
        since_s = self.domain.metadata.running_since_s
        # A host whose clock is behind that of the first knows at least its own part of it.
        return int(here_s if since_s is None else max(here_s, time.time() - since_s))

    @property
    def running_since_s(self) -> int:
        """When it was started, on whichever host, in seconds since 1970."""
        known = self.domain.metadata.running_since_s
        # Not reckoned anew on each host, or it would come nearer with each migration.
        return int(time.time() - time.monotonic() + self._started_s) if known is None else known

    @property
    def doomed(self) -> bool:
        """Whether it is being destroyed, and its domain removed."""
        return self.ending.doomed

    @property
    def wanted_exit(self) -> Change | None:
        """The end that we asked for."""
        return self.ending.wanted

    @property
    def taken(self) -> str:
        """Why it is not to run on: another host has opened its image; empty if none has."""
        return self._taken or self.domain.metadata.taken or ""

    @property
    def monitor_responsive(self) -> bool:
        """Whether QEMU answered the last time it was asked."""
        return self.monitor.responsive

    @property
    def failed_disks(self) -> list[str]:
        """Target names of the disks whose I/O errors made QEMU pause the VM."""
        return sorted(self.io.disks) if self.status is Status.PAUSED else []

    def take_sample(self, fields: Mapping[str, Any], taken_ms: int, answers: bool) -> None:
        """Keep a fresh sample out of libvirt's bulk statistics.

        taken_ms: monotonic clock. answers: whether QEMU's monitor does.
        """
        self.monitor.answers = answers
        self.sample = stats.sample(fields, self.sample, taken_ms)

    def take(self, document: Document) -> None:
        """Keep the document that libvirt gives now."""
        known = self.domain
        self.xml = document.xml
        self.domain = document.domain
        settled = self.status not in NOT_STARTED_YET and self.migration is None
        if self.hash == known.devices_hash or not settled:
            return
        with logs.caused_by(self.commands.latest):
            for clause in event_log.devices_changed(known, self.domain):
                log.info("%s: %s", self.name, clause)
        self.services.on_change(self)

    # What happens to it

    def happened(self, change: Change) -> None:
        """Take in something that libvirt tells; while the VM starts it waits until that is done.

        While it migrates, its migration looks by itself.
        """
        if self.migration is not None or self.start.hides(change):
            return
        if self.starting:
            self.start.tell(change)
        else:
            self.apply(change)

    def process_began(self) -> None:
        """What libvirt told before it started the VM was of another of that uuid."""
        self.start.forget()

    def migrates(self, migration: Migration) -> None:
        """It leaves this host, or comes to it: until that is over, libvirt's events go there."""
        self.migration = migration

    def settles(self) -> None:
        """Its migration is over."""
        self.migration = None

    def guest_began(self, at_s: float | None) -> None:
        """Its guest, come from another host, runs here; at_s: since when, if that was seen."""
        self.began_here_s = at_s

    def start_goes_on(self, document: Document) -> None:
        """It is found as its start was left: QEMU is there, paused, its images to be looked at."""
        self.take(document)
        self.pid = process.qemu_pid(self.name)
        self.adrift = False
        if self.status is Status.WAIT_FOR_LAUNCH:
            self.apply(Change(Cause.LAUNCH))

    def lost_sight(self) -> None:
        """libvirt went away while it started the VM: whether it did is not known yet."""
        self.adrift = True

    def balloon_asked(self, target_kib: int) -> None:
        """The guest's balloon was asked for another size."""
        self.balloon_target_kib = target_kib

    def gone(self) -> None:
        """libvirt does not know the domain any more."""
        self.adrift = False
        if self.migration is not None:
            self.migration.recheck()
        else:
            self.apply(lifecycle.DOMAIN_GONE)

    def io_error(self, disk: str, reason: str) -> None:
        """QEMU pauses the VM for an I/O error, of which libvirt tells next.

        disk: its target or alias. reason: "enospc", or another of libvirt's words.
        """
        code = PauseCode.ENOSPC if reason == "enospc" else PauseCode.EIO
        self.io.met(next((d.target for d in self.domain.drives if d.alias == disk), disk), code)
        if self.pause_code in (PauseCode.EIO, PauseCode.ENOSPC):
            self.pause_code = code
            self.services.on_change(self)

    def image_taken(self, why: str) -> None:
        """Another host has opened an image while it stood here: it is not to run on. why: that."""
        self._taken = why
        if self.status is Status.PAUSED:
            self.pause_code = PauseCode.EPERM
            self.services.on_change(self)
        self.services.on_taken(self)

    def lacks_room(self) -> None:
        """What QEMU paused it for is that a pool of its disks is full."""
        self.io.lacks_room()
        if self.pause_code is PauseCode.EIO:
            self.pause_code = PauseCode.ENOSPC
            self.services.on_change(self)

    def device_removed(self, alias: str) -> None:
        """The guest has let go of a device."""
        if not self.unplugs.removed(alias) and self.running:
            self.spawn(self.refresh())

    def apply(self, change: Change) -> None:
        """Go to the status that the change leads to, if any, and tell of it."""
        status = after(self.status, change.cause)
        if status is None:
            log.debug("%s: %s changes nothing", self.status.value, change.cause.name)
            return
        change = self._explained(change)
        with logs.caused_by(self.commands.latest):
            lasted_s = (_now_ms() - self.status_changed_ms) / 1000
            # From trouble with storage virt/vm/io_resume.py brings it back, of itself.
            ours = logs.cause() is not None or self.io.code is not None
            told = event_log.changed(self.status, lasted_s, status, change, asked_for=ours)
            log.log(event_log.severity(change), "%s %s", self.name, told)
        self._become(status, change)

    def _become(self, status: Status, change: Change) -> None:
        self.status = status
        self.status_changed_ms = _now_ms()
        self.pause_code = change.pause_code if status is Status.PAUSED else None
        if status is not Status.PAUSED:
            self.io.over()
        if status is Status.DOWN:
            self._end(change.exit)
        changes, self._status_changes = self._status_changes, asyncio.Event()
        changes.set()
        self.services.on_change(self)

    def started(self, document: Document, change: Change) -> None:
        """libvirt has started the domain; an event that came meanwhile knows more than change."""
        self._started_s = time.monotonic()
        self.pid = process.qemu_pid(self.name)
        self.take(document)
        self.start.over()
        self.apply(self.start.told or change)

    def arrived(self, change: Change) -> None:
        """The VM came from another host and runs here now."""
        self.pid = process.qemu_pid(self.name)
        self._started_s = time.monotonic() - process.age_s(self.pid)
        self.apply(change)

    def found(self, document: Document, change: Change) -> None:
        """Take over what libvirt tells of a domain that was not watched for a while."""
        self.take(document)
        self.pid = process.qemu_pid(self.name)
        self._started_s = time.monotonic() - process.age_s(self.pid)
        if self.adrift:
            self.adrift = False
            change = lifecycle.START_LOST if change is lifecycle.NOT_RUNNING else change
            self.apply(change)
            return
        if self.status not in NOT_STARTED_YET:
            self.apply(change)
            return
        status = after(Status.POWERING_UP, change.cause)
        assert status is not None, (
            "whatever a domain's state is, one that is powering up gets there"
        )
        change = self._explained(change)
        log.info("%s %s", self.name, event_log.found(status, change, process.age_s(self.pid)))
        self._become(status, change)

    def _explained(self, change: Change) -> Change:
        """The change with what only we know: which I/O error it was, that we asked for the end."""
        if change.cause is Cause.SUSPENDED and self.taken:
            return replace(change, pause_code=PauseCode.EPERM)
        if change is lifecycle.PAUSED_BY_IO_ERROR and self.io.code is not None:
            return replace(change, pause_code=self.io.code)
        return self.ending.explained(change)

    def _end(self, how: Exit | None) -> None:
        self.exit = how
        self.sample = None
        self.pid = 0
        self.freezing.end()
        self.unplugs.over(f"VM {self.id} ended meanwhile")

    # For the commands in power.py and disks.py

    def require_running(self, doing: str) -> None:
        """Raise VMIsDown (6) for a VM that is Down; doing completes 'cannot be ...'.

        Raises DuringMigration (51) for one that migrates.
        """
        if self.migration is not None:
            raise DuringMigration(
                f"VM {self.id} {self.migration.words} and cannot be {doing} meanwhile; "
                f"{self.migration.remedy}"
            )
        if self.running:
            return
        why = self.exit.message if self.exit else "it never ran"
        raise VMIsDown(
            f"VM {self.id} is Down and cannot be {doing} ({why}); destroy it and create it anew"
        )

    async def command(
        self, func: Callable[..., T], *args: Any, doing: str, failure: type[VdsmCinderError]
    ) -> T:
        """Run a libvirt command on the domain; what libvirt refuses is raised as failure."""
        try:
            return await self.call(func, *args)
        except libvirt.libvirtError as e:
            raise libvirt_errors.explain(e, f"VM {self.id} could not be {doing}", failure) from e

    async def call(self, func: Callable[..., T], *args: Any, timeout_s: float | None = None) -> T:
        """Run func(domain, *args), as virt/vm/qemu_monitor.py does."""
        return await self.monitor.call(func, *args, timeout_s=timeout_s)

    def _monitor_is_back(self) -> None:
        """A call that overran its deadline is done after all, and may have changed devices."""
        if self.running:
            log.info("the QEMU process of %s answers again", self.name)
            self.spawn(self.refresh())

    async def refresh(self) -> None:
        """Read the domain's document anew."""
        try:
            self.take(await self.call(described))
        except (libvirt.libvirtError, VdsmCinderError) as e:
            log.warning("the devices of %s could not be read: %s", self.name, e)

    async def wait_while(self, status: Status) -> None:
        """Return when the VM's status is another."""
        while self.status is status:
            await self._status_changes.wait()

    async def wait_until_down(self) -> None:
        """Return when the VM is Down."""
        while self.running:
            await self.wait_while(self.status)

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Own a task of this VM's, which ends with it; its failure is logged."""
        self._tasks.spawn(work)

    def end(self) -> None:
        """End the VM's tasks, not the VM: this is not the one of that id any more."""
        self.freezing.end()
        self._tasks.end()


def described(domain: libvirt.virDomain) -> Document:
    """The domain's document, read in the thread that asks libvirt for it: it may be long."""
    return Document.read(domain.XMLDesc())


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
