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
from typing import Any, Callable

from vdsmcinder.ceph.fault_kinds import DOWN, PASSING, TAKEN, CephFault, Kind
from vdsmcinder.ceph.image_use import CLAIM_S, Claim, ImageUse, Others
from vdsmcinder.ceph.monitor_survey import Survey, all_silent, survey
from vdsmcinder.ceph.workers import Account, Workers, result
from vdsmcinder.config import Ceph as CephOptions
from vdsmcinder.errors import ResourceUnavailable, VdsmCinderError
from vdsmcinder.tasks import Tasks, within
from vdsmcinder.virt.disk import ceph_images
from vdsmcinder.virt.disk.ceph_images import NO_IMAGES, CephImage, CephImages
from vdsmcinder.virt.secrets.secret import Secret, SecretName
from vdsmcinder.virt.secrets.secrets import Secrets
from vdsmcinder.virt.storage import ceph_access
from vdsmcinder.virt.storage.consent import NO_CONSENT, Consent
from vdsmcinder.virt.storage.image_locks import Claims

log = logging.getLogger(__name__)

# Clusters that answer do so sooner; only for others are their monitors tried one by one.
_SURVEY_AFTER_S = 0.1
# A client that has just ended, or looks at the image for a moment, may still be seen for so long;
_PASSING_S = 1.5
# meanwhile it is looked for as often.
_RETRY_S = 0.2


@dataclass(frozen=True)
class UsedImage:
    """An image, and how its disk uses it."""

    image: CephImage
    use: ImageUse


class Preflight:
    """Checks of images. options: how strict, and the deadline; see config.py.

    on_unseen: called with the key that was not there to ask Ceph with, and for what it is needed.
    """

    def __init__(
        self,
        workers: Workers,
        secrets: Secrets,
        options: CephOptions,
        tasks: Tasks,
        on_unseen: Callable[[SecretName, str], None],
    ) -> None:
        self._workers = workers
        self._tasks = tasks
        self._secrets = secrets
        self._options = options
        self._on_unseen = on_unseen

    async def check(
        self,
        ceph: CephImages,
        vm_id: str,
        failure: type[VdsmCinderError],
        others: Others = Others.NOBODY,
        *,
        beside: CephImages = NO_IMAGES,
        consent: Consent = NO_CONSENT,
    ) -> Claims:
        """Raise for the first image that cannot be used on this host now.

        ceph: what is to be opened. failure: what to raise for faults without a class of their own
        (the verb's own code). others: who may have images open that are the VM's alone. beside:
        what the VM has open already.
        Returns claims of the images, to be released when QEMU has opened them or will not.
        Raises ImageNotFound (13); ResourceUnavailable (40) where no monitor of an image answers.
        """
        ceph = ceph.opened
        _refuse_twice(ceph, beside, vm_id, failure)
        await self._check_secrets(ceph, failure)
        claims = self.no_claims()
        if self._options.preflight == "off":
            return claims
        used = [UsedImage(image, ceph_access.use(image, others)) for image in ceph.images]
        try:
            self._check_untold(ceph, failure, consent)
            await self._check_images(used, vm_id, claims, failure, consent)
        except BaseException:
            await claims.release()
            raise
        claims.keep()
        return claims

    def confirms(self, ceph: CephImages) -> bool:
        """Whether images are to be looked at once more when QEMU has them open."""
        return self.looks and any(image.exclusive for image in ceph.opened.images)

    async def confirm(
        self,
        ceph: CephImages,
        vm_id: str,
        claims: Claims,
        failure: type[VdsmCinderError],
        consent: Consent = NO_CONSENT,
    ) -> None:
        """Raise for the first image that not only the VM's own QEMU process has open.

        QEMU may have taken so long that claims have lapsed: they are made anew, and who has the
        images open is looked at then, before the guest writes. claims: those of check(), or none
        yet, of a start that another daemon began. Raises as check() does.
        """
        used = [
            UsedImage(image, ceph_access.use(image, Others.OWN))
            for image in ceph.opened.images
            if image.exclusive
        ]
        await self._check_images(used, vm_id, claims, failure, consent)

    @property
    def looks(self) -> bool:
        """Whether images are looked at."""
        return self._options.preflight != "off"

    async def open_elsewhere(self, ceph: CephImages, within_s: float) -> str | None:
        """What tells of an image that is the VM's alone and that another host has open.

        ceph: the images of a VM that is here. Empty where there is none, and for those whose key
        is not known. None where Ceph does not tell within so many seconds.
        """
        if not self.looks:
            return ""
        used = [
            UsedImage(image, ceph_access.use(image, Others.HERE))
            for image in ceph.opened.images
            if image.exclusive
            and (image.secret is None or ceph_access.key(image, self._secrets) is not None)
        ]
        until_s = time.monotonic() + _PASSING_S
        while True:
            try:
                found = await within(self._look(used, "", self.no_claims()), within_s)
            except asyncio.TimeoutError:
                return None
            taken = {one: f for one, f in found.items() if f.kind is Kind.IN_USE_THERE}
            if not taken or time.monotonic() > until_s:
                break
            await asyncio.sleep(_RETRY_S)
        for one, fault in taken.items():
            return f"the image of {one.image.words} is open on another host ({fault.text})"
        return None if any(f.kind.error is ResourceUnavailable for f in found.values()) else ""

    def no_claims(self) -> Claims:
        """Claims of no image yet."""
        return Claims(self._workers, self._tasks)

    async def _check_secrets(self, ceph: CephImages, failure: type[VdsmCinderError]) -> None:
        needed = {secret: disk for disk, secret in reversed(ceph.needs)}
        for name in await self._secrets.missing(needed):
            of_disk = (image.words for image in ceph.images if image.disk == needed[name])
            raise failure(
                f"secret {name}, which {next(of_disk, f'disk {needed[name]}')} needs, is not "
                "registered on this host; register it with Host.registerSecrets and call again",
                secret=str(name),
                disk=needed[name],
            )

    def _check_untold(
        self, ceph: CephImages, failure: type[VdsmCinderError], consent: Consent
    ) -> None:
        for untold in ceph.untold:
            error = failure(
                f"{untold.why}, so that nobody knows who has it open; correct the disk, or vouch "
                "for it with allowUnchecked",
                disk=untold.disk,
            )
            if not consent.unchecked:
                self._raise(error)

    async def _check_images(
        self,
        used: Sequence[UsedImage],
        vm_id: str,
        claims: Claims,
        failure: type[VdsmCinderError],
        consent: Consent,
    ) -> None:
        began_s = time.monotonic()
        while True:
            faults = await self._look(used, vm_id, claims)
            passing = all(f.kind in PASSING for f in faults.values())
            if not faults or not passing or time.monotonic() - began_s > _patience_s(faults):
                break
            await asyncio.sleep(_RETRY_S)
        for one in sorted(faults, key=lambda one: faults[one].kind not in TAKEN):
            image, fault = one.image, faults[one]
            if fault.kind is Kind.UNSEEN and image.secret is not None:
                self._on_unseen(image.secret, f"VM {vm_id}")
            error = ceph_access.error(
                fault, image.words, image, failure, disk=image.disk, **_details(fault, image)
            )
            if fault.kind in TAKEN:
                raise error
            if consent.lets_pass(fault):
                log.warning("the request vouches for it, so QEMU is to try although: %s", error)
            else:
                self._raise(error)

    def _raise(self, error: VdsmCinderError) -> None:
        """Raise an error that does not say that somebody else has an image, if that is wanted."""
        if self._options.preflight == "warn":
            log.warning("ceph.preflight is warn, so QEMU is to try although: %s", error)
        else:
            raise error

    async def _look(
        self, used: Sequence[UsedImage], vm_id: str, claims: Claims
    ) -> dict[UsedImage, CephFault]:
        """What is wrong, in the order of the images; each cluster and user is asked once."""
        parties: dict[tuple[Account, SecretName | None], list[UsedImage]] = {}
        for one in used:
            party = (ceph_access.account(one.image), one.image.secret)
            parties.setdefault(party, []).append(one)
        looks = await asyncio.gather(
            *(
                self._look_at(account, party, vm_id, claims)
                for (account, _), party in parties.items()
            )
        )
        found = {one: fault for faults in looks for one, fault in faults.items()}
        return {one: found[one] for one in used if one in found}

    async def _look_at(
        self, account: Account, used: Sequence[UsedImage], vm_id: str, claims: Claims
    ) -> dict[UsedImage, CephFault]:
        key = ceph_access.key(used[0].image, self._secrets)
        if key is None and account.user is not None:
            return await self._without_key(account, used)
        claim = Claim(vm_id, f"VM {vm_id} on {platform.node()}")
        try:
            answers = await self._ask(account, key, [one.use.question(claim) for one in used])
        except CephFault as e:
            return dict.fromkeys(used, e)
        faults = {}
        for one, answer in zip(used, answers):
            try:
                found = result(answer)
                if one.use.exclusive:
                    claims.add(account, key, one.image.path, claim)
            except CephFault as e:
                faults[one] = e
                continue
            fault = one.use.held_elsewhere(found) or one.use.unfit(found)
            if fault is not None:
                faults[one] = fault
            elif one.use.others is Others.NOBODY and one.use.lacks_blocklist(found):
                lacking = CephFault(Kind.DENIED_BLOCKLIST)
                log.warning("%s", ceph_access.told(lacking, one.image.words, one.image))
        return faults

    async def _without_key(
        self, account: Account, used: Sequence[UsedImage]
    ) -> dict[UsedImage, CephFault]:
        """libvirt has the key, but gives it to QEMU alone: who has images open cannot be seen."""
        found = await survey(account.hosts, self._options.timeout_s)
        if all_silent(found):
            return dict.fromkeys(used, CephFault(Kind.SILENT, monitors=found))
        unseen = [one for one in used if one.use.others is not Others.ANYBODY]
        for one in used:
            if one not in unseen:
                log.warning(
                    "%s was not checked: the key of Ceph user %s has not been given since the "
                    "daemon started; Host.registerSecrets gives it",
                    one.image.words,
                    account.user,
                )
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


def _patience_s(faults: Mapping[UsedImage, CephFault]) -> float:
    """How long to wait for what passes, in seconds.

    An image that QEMU has open may be claimed for it yet, by a connection to Ceph that is gone,
    as of a daemon that was killed.
    """
    ours = (one.use.others is Others.OWN and f.kind is Kind.CLAIMED for one, f in faults.items())
    return CLAIM_S + _PASSING_S if any(ours) else _PASSING_S


def _refuse_twice(
    ceph: CephImages, beside: CephImages, vm_id: str, failure: type[VdsmCinderError]
) -> None:
    image = ceph_images.twice(ceph.images, beside.images)
    if image is not None:
        raise failure(
            f"{image.words}: VM {vm_id} has that image as another disk too, and what one of them "
            "writes the other destroys; leave one out, or give both shared",
            disk=image.disk,
        )


def _details(fault: CephFault, image: CephImage) -> dict[str, Any]:
    details: dict[str, Any] = {}
    if fault.monitors:
        details["monitors"] = [m.name for m in fault.monitors]
    if fault.kind is Kind.UNSEEN and image.secret is not None:
        details["secret"] = str(image.secret)
        # The host that a VM comes from may have the key, and hand it over.
        details["missingSecrets"] = [image.secret.uuid] if image.secret.uuid else []
    return details
