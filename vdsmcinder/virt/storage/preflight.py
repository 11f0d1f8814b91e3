# SPDX-License-Identifier: GPL-2.0-or-later
"""What is checked before QEMU is handed Ceph disks, all of them at once and within a deadline.

QEMU finds the same faults, but late, in its own words, and in the case of monitors that are silent
only after minutes in which the VM hangs. That another host uses an image it does not find at all.
"""

from __future__ import annotations

import asyncio
import logging
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vdsmcinder.ceph.fault_kinds import DOWN, PASSING, CephFault, Kind
from vdsmcinder.ceph.image_use import Claim, ImageUse, Others
from vdsmcinder.ceph.monitor_survey import Survey, all_silent, survey
from vdsmcinder.ceph.workers import Account, Workers, result
from vdsmcinder.config import Ceph as CephOptions
from vdsmcinder.errors import VdsmCinderError
from vdsmcinder.tasks import Tasks
from vdsmcinder.virt.disk.drive import Drive
from vdsmcinder.virt.disk.source import NetworkSource
from vdsmcinder.virt.secrets.secret import Secret
from vdsmcinder.virt.secrets.secrets import Secrets
from vdsmcinder.virt.storage import ceph_access
from vdsmcinder.virt.storage.image_locks import Claims

log = logging.getLogger(__name__)

# Clusters that answer do so sooner; only for others are their monitors tried one by one.
_SURVEY_AFTER_S = 0.1
# A client that has just ended, or looks at the image for a moment, may still be seen for so long;
_PASSING_S = 1.5
# meanwhile it is looked for as often.
_RETRY_S = 0.2


@dataclass(frozen=True)
class CephDisk:
    """A disk on Ceph."""

    drive: Drive
    source: NetworkSource
    use: ImageUse

    @property
    def words(self) -> str:
        """How errors name it."""
        return f"disk {self.drive.name} ({self.source.location})"


class Preflight:
    """Checks of disks. options: how strict, and the deadline; see config.py."""

    def __init__(
        self, workers: Workers, secrets: Secrets, options: CephOptions, tasks: Tasks
    ) -> None:
        self._workers = workers
        self._tasks = tasks
        self._secrets = secrets
        self._options = options

    async def check(
        self,
        drives: Sequence[Drive],
        vm_id: str,
        failure: type[VdsmCinderError],
        others: Others = Others.NOBODY,
    ) -> Claims:
        """Raise for the first drive that cannot work on this host now.

        failure: what to raise for faults without a class of their own (the verb's own code).
        others: who may have images open that are the VM's alone.
        Returns claims of the images, to be released when QEMU has opened them or will not.
        Raises ImageNotFound (13); ResourceUnavailable (40) where no monitor of a drive answers.
        """
        disks = [
            CephDisk(d, d.source, ceph_access.use(d, d.source, others))
            for d in drives
            if isinstance(d.source, NetworkSource)
        ]
        await self._check_secrets(disks, failure)
        claims = Claims(self._workers, self._tasks)
        if self._options.preflight == "off" or not disks:
            return claims
        try:
            await self._check_images(disks, vm_id, claims, failure)
        except VdsmCinderError as e:
            if self._options.preflight == "warn":
                log.warning("ceph.preflight is warn, so QEMU is to try although: %s", e)
                return claims
            await claims.release()
            raise
        except BaseException:
            await claims.release()
            raise
        claims.keep()
        return claims

    async def _check_secrets(
        self, disks: Sequence[CephDisk], failure: type[VdsmCinderError]
    ) -> None:
        needed = {d.source.auth.secret_uuid: d for d in disks if d.source.auth is not None}
        for uuid in await self._secrets.missing(needed):
            disk = needed[uuid]
            raise failure(
                f"secret {uuid}, which {disk.words} needs, is not registered on this host; "
                "register it with Host.registerSecrets and call again",
                secret=uuid,
                disk=disk.drive.name,
            )

    async def _check_images(
        self,
        disks: Sequence[CephDisk],
        vm_id: str,
        claims: Claims,
        failure: type[VdsmCinderError],
    ) -> None:
        until_s = time.monotonic() + _PASSING_S
        while True:
            faults = await self._look(disks, vm_id, claims)
            passing = all(f.kind in PASSING for f in faults.values())
            if not faults or not passing or time.monotonic() > until_s:
                break
            await asyncio.sleep(_RETRY_S)
        for disk, fault in faults.items():
            raise ceph_access.error(
                fault, disk.words, disk.source, failure, disk=disk.drive.name, **_monitors(fault)
            )

    async def _look(
        self, disks: Sequence[CephDisk], vm_id: str, claims: Claims
    ) -> dict[CephDisk, CephFault]:
        """What is wrong, in the order of the disks; each cluster and user is asked once."""
        parties: dict[tuple[Account, str | None], list[CephDisk]] = {}
        for disk in disks:
            secret = disk.source.auth.secret_uuid if disk.source.auth else None
            parties.setdefault((ceph_access.account(disk.source), secret), []).append(disk)
        looks = await asyncio.gather(
            *(
                self._look_at(account, party, vm_id, claims)
                for (account, _), party in parties.items()
            )
        )
        found = {disk: fault for faults in looks for disk, fault in faults.items()}
        return {disk: found[disk] for disk in disks if disk in found}

    async def _look_at(
        self, account: Account, disks: Sequence[CephDisk], vm_id: str, claims: Claims
    ) -> dict[CephDisk, CephFault]:
        key = ceph_access.key(disks[0].source, self._secrets)
        if key is None and account.user is not None:
            return await self._without_key(account, disks)
        claim = Claim(vm_id, f"VM {vm_id} on {platform.node()}")
        images = [disk.use.question(claim) for disk in disks]
        try:
            answers = await self._ask(account, key, images)
        except CephFault as e:
            return dict.fromkeys(disks, e)
        faults = {}
        for disk, answer in zip(disks, answers):
            try:
                found = result(answer)
                if disk.use.exclusive:
                    claims.add(account, key, disk.source.path, claim)
            except CephFault as e:
                faults[disk] = e
                continue
            fault = disk.use.held_elsewhere(found) or disk.use.unfit(found)
            if fault is not None:
                faults[disk] = fault
        return faults

    async def _without_key(
        self, account: Account, disks: Sequence[CephDisk]
    ) -> dict[CephDisk, CephFault]:
        """libvirt has the key, but gives it to QEMU alone."""
        log.warning(
            "%s was not checked: the key of Ceph user %s has not been given since the daemon "
            "started; Host.registerSecrets gives it",
            ", ".join(disk.words for disk in disks),
            account.user,
        )
        found = await survey(account.hosts, self._options.timeout_s)
        if all_silent(found):
            return dict.fromkeys(disks, CephFault(Kind.SILENT, monitors=found))
        # Then who has it open is all that is asked.
        unseen = [disk for disk in disks if disk.use.others is Others.HERE]
        return dict.fromkeys(unseen, CephFault(Kind.UNSEEN))

    async def _ask(
        self, account: Account, key: Secret | None, images: Sequence[Mapping[str, Any]]
    ) -> list[dict[str, Any]]:
        """What the worker tells of images; if the cluster is silent, with what its monitors do."""
        inspect = self._workers.ask(account, key, "inspect", self._options.timeout_s, images=images)
        async with Tasks("preflight") as tasks:
            asking = tasks.begin(inspect, "images")
            surveying = tasks.begin(self._survey(account), "monitors")
            try:
                await asyncio.wait({asking, surveying}, return_when=asyncio.FIRST_COMPLETED)
                if not asking.done() and all_silent(surveying.result()):
                    raise CephFault(Kind.SILENT, monitors=surveying.result())
                answers: list[dict[str, Any]] = await asking
                return answers
            except CephFault as e:
                if e.kind in DOWN or e.kind is Kind.BAD_NAMES:
                    raise await self._explained(e, account, surveying) from e
                raise

    async def _explained(
        self, fault: CephFault, account: Account, surveying: asyncio.Future[Survey]
    ) -> CephFault:
        """The fault with what the cluster's monitors do; the next callers meet it at once."""
        if fault.monitors is None:
            fault.monitors = await surveying
            if all_silent(fault.monitors):
                fault = CephFault(Kind.SILENT, monitors=fault.monitors)
        if fault.kind is Kind.SILENT:
            self._workers.found_down(account, fault)
        return fault

    async def _survey(self, account: Account) -> Survey:
        await asyncio.sleep(_SURVEY_AFTER_S)
        return await survey(account.hosts, self._options.timeout_s)


def _monitors(fault: CephFault) -> dict[str, Any]:
    return {"monitors": [m.name for m in fault.monitors]} if fault.monitors else {}
