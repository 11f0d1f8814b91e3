# SPDX-License-Identifier: GPL-2.0-or-later
"""Claims of images by hosts that are about to open them, so that of two hosts one gets it.

Two hosts that look whether anybody uses an image both see nobody, and both start QEMU; so each
first takes an advisory lock of ours on the image's header object, looks then, and keeps the lock
until QEMU is seen by others (https://docs.ceph.com, cls_lock). It is not librbd's exclusive lock,
which two QEMUs would hand each other back and forth. The lock of a host that died lapses by itself.
"""

from __future__ import annotations

import asyncio
import logging

from vdsmcinder.ceph.fault_kinds import CephFault
from vdsmcinder.ceph.image_use import Claim
from vdsmcinder.ceph.workers import Account, Workers
from vdsmcinder.tasks import Tasks
from vdsmcinder.virt.secrets.secret import Secret

log = logging.getLogger(__name__)

RENEW_S = 10.0


class Claims:
    """The claims that one preflight made; kept up until they are released."""

    def __init__(self, workers: Workers, tasks: Tasks) -> None:
        self._workers = workers
        self._tasks = tasks
        self._held: dict[tuple[Account, str], tuple[Secret | None, Claim]] = {}
        self._renewing: asyncio.Task[None] | None = None

    def add(self, account: Account, key: Secret | None, path: str, claim: Claim) -> None:
        """Count in a claim that the worker has made."""
        self._held[account, path] = (key, claim)

    def keep(self) -> None:
        """Renew the claims, until release()."""
        if self._held and self._renewing is None:
            self._renewing = self._tasks.spawn(self._renew(), "renew")

    async def _renew(self) -> None:
        while True:
            await asyncio.sleep(RENEW_S)
            await self._all("renew")

    async def release(self) -> None:
        """Give the images free; does not raise, for what is not released lapses."""
        if self._renewing is not None:
            self._renewing.cancel()
            await asyncio.gather(self._renewing, return_exceptions=True)
            self._renewing = None
        await self._all("release")
        self._held.clear()

    async def _all(self, op: str) -> None:
        await asyncio.gather(*(self._one(op, *place) for place in self._held))

    async def _one(self, op: str, account: Account, path: str) -> None:
        key, claim = self._held[account, path]
        try:
            await self._workers.ask(account, key, op, path=path, claim=claim.params())
        except CephFault as e:
            log.debug("the claim of image %s: %s failed: %s", path, op, e)
