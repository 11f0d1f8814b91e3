# SPDX-License-Identifier: GPL-2.0-or-later
"""Which secrets the running VMs need and this host does not have: the engine is asked for them.

There are none where systemd keeps the keys (system/fdstore.py), unless somebody removed one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Collection, Mapping
from typing import Callable

import libvirt

from vdsmcinder.errors import ResourceUnavailable
from vdsmcinder.tasks import Tasks, within
from vdsmcinder.virt.secrets.secrets import Secrets
from vdsmcinder.virt.vm.registry import Registry

log = logging.getLogger(__name__)

# An engine that was not there to hear it is asked again.
REPEAT_S = 30.0


class MissingSecrets:
    """Looks when it is woken, and asks for what is missing until it is there.

    by_uuid: the secrets that are missing, and the names of the VMs that need each, as last looked.
    ask: called with their uuids, also with none once they are there again.
    """

    def __init__(
        self,
        registry: Registry,
        secrets: Secrets,
        ask: Callable[[Collection[str]], None],
        tasks: Tasks,
    ) -> None:
        self.by_uuid: Mapping[str, tuple[str, ...]] = {}
        self._registry = registry
        self._secrets = secrets
        self._ask = ask
        self._wanted = asyncio.Event()
        self._tasks = tasks

    def start(self) -> None:
        """Begin to look."""
        self._tasks.spawn(self._run(), "look")

    async def close(self) -> None:
        """Stop looking."""
        await self._tasks.close()

    def wake(self) -> None:
        """Look again: a VM, its disks or the secrets have changed."""
        self._wanted.set()

    async def look(self) -> None:
        """Bring by_uuid up to date; it stays as it is while libvirt cannot be asked."""
        needed = self._needed()
        try:
            missing = await self._secrets.missing(needed)
        except (libvirt.libvirtError, ResourceUnavailable) as e:
            log.warning("which secrets are missing cannot be told: %s", e)
            return
        self.by_uuid = {uuid: needed[uuid] for uuid in missing}

    def _needed(self) -> dict[str, tuple[str, ...]]:
        needed: dict[str, tuple[str, ...]] = {}
        for vm in self._registry.vms():
            if vm.running:
                for uuid in vm.domain.secret_uuids:
                    needed[uuid] = (*needed.get(uuid, ()), vm.name)
        return needed

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                await within(self._wanted.wait(), REPEAT_S if self.by_uuid else None)
            self._wanted.clear()
            try:
                await self._look_and_ask()
            except Exception:
                log.exception("which secrets are missing could not be looked at")

    async def _look_and_ask(self) -> None:
        known = set(self.by_uuid)
        await self.look()
        if self.by_uuid or known:
            if known != set(self.by_uuid):
                log.warning("secrets that VMs need are missing: %s", _listed(self.by_uuid))
            self._ask(list(self.by_uuid))


def _listed(by_uuid: Mapping[str, tuple[str, ...]]) -> str:
    return ", ".join(f"{uuid} ({', '.join(vms)})" for uuid, vms in by_uuid.items()) or "none now"
