# SPDX-License-Identifier: GPL-2.0-or-later
"""Marks on images: their VM goes on, or has ended, without a copy that another host has of it.

Ceph is what two hosts share that do not hear each other. Whoever keeps a VM whose copy is whole
elsewhere says so in the metadata of its images ('rbd image-meta list' shows it), and whoever has
the copy looks there: it must not run, for its disks have been written since.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator

from vdsmcinder.ceph.fault_kinds import CephFault
from vdsmcinder.ceph.workers import Account, Workers
from vdsmcinder.errors import VdsmCinderError
from vdsmcinder.virt.disk.ceph_images import CephImage, CephImages
from vdsmcinder.virt.secrets.secret import Secret
from vdsmcinder.virt.secrets.secrets import Secrets
from vdsmcinder.virt.storage import ceph_access

log = logging.getLogger(__name__)

_PREFIX = "vdsm-cinder.kept."


class KeptMarks:
    """The marks of migrations, by their ids; on those images that the VM alone writes to."""

    def __init__(self, workers: Workers, secrets: Secrets) -> None:
        self._workers = workers
        self._secrets = secrets

    async def leave(self, ceph: CephImages, migration_id: str, words: str) -> bool:
        """Mark the images. words: who keeps the VM. False if none could be: there is none, or
        Ceph, or its key, is out of reach; that is logged.
        """
        return await self._change(ceph, _PREFIX + migration_id, words)

    async def remove(self, ceph: CephImages, migration_id: str) -> None:
        """Take the marks off; those that cannot be stay, and do no harm."""
        await self._change(ceph, _PREFIX + migration_id, None)

    async def found(
        self, ceph: CephImages, migration_id: str, failure: type[VdsmCinderError]
    ) -> str | None:
        """Who keeps the VM, as a mark says on one of the images; None if there is none.

        Raises failure, or the error of its own that a fault has, if Ceph cannot be asked.
        """
        for image, account, key in self._own(ceph):
            try:
                words = await self._workers.ask(
                    account, key, "marked", path=image.path, name=_PREFIX + migration_id
                )
            except CephFault as e:
                raise ceph_access.error(e, image.words, image, failure, disk=image.disk) from e
            if words is not None:
                return str(words)
        return None

    async def _change(self, ceph: CephImages, name: str, text: str | None) -> bool:
        """Give the images that metadata, or take it off; whether any of them has been changed."""
        own = list(self._own(ceph))
        done = await asyncio.gather(*(self._change_one(*one, name, text) for one in own))
        return any(done)

    async def _change_one(
        self, image: CephImage, account: Account, key: Secret | None, name: str, text: str | None
    ) -> bool:
        ask = self._workers.ask
        try:
            if text is None:
                await ask(account, key, "unmark", path=image.path, name=name)
            else:
                await ask(account, key, "mark", path=image.path, name=name, text=text)
        except CephFault as e:
            log.warning("%s: its mark could not be changed: %s", image.words, e)
            return False
        return True

    def _own(self, ceph: CephImages) -> Iterator[tuple[CephImage, Account, Secret | None]]:
        """Those images that can be asked about, with whom they are asked as."""
        for image in ceph.opened.images:
            key = ceph_access.key(image, self._secrets)
            if image.exclusive and (key is not None or image.user is None):
                yield image, ceph_access.account(image), key
