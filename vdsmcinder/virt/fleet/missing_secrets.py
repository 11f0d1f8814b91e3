# SPDX-License-Identifier: GPL-2.0-or-later
"""Which secrets VMs need and this host does not have: the engine is asked for them.

There are none where systemd keeps the keys (system/fdstore.py), unless somebody removed one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Collection, Mapping
from typing import Callable

import libvirt

from vdsmcinder.errors import ResourceUnavailable
from vdsmcinder.tasks import Tasks, within
from vdsmcinder.virt.secrets.secret import SecretName
from vdsmcinder.virt.secrets.secrets import Secrets
from vdsmcinder.virt.vm.registry import Registry

log = logging.getLogger(__name__)

# An engine that was not there to hear it is asked again.
REPEAT_S = 30.0
# What was refused so long ago, in seconds, may not be wanted any more.
FORGET_S = 600.0

Names = tuple[str, ...]
Needed = Mapping[SecretName, Names]


class MissingSecrets:
    """Looks when it is woken, and asks for what is missing until it is there.

    missing: the secrets that libvirt does not have, and the names of the VMs that need each, as
    last looked. unseen: likewise the keys that libvirt has and this daemon was not given, so that
    it cannot look who has their images open. ask: called with the uuids of both, also with none
    once they are there. keys_wanted: whether the daemon is to ask for keys that only it needs.
    """

    def __init__(
        self,
        registry: Registry,
        secrets: Secrets,
        ask: Callable[[Collection[str]], None],
        tasks: Tasks,
        *,
        keys_wanted: bool,
    ) -> None:
        self.missing: Needed = {}
        self.unseen: Needed = {}
        self._registry = registry
        self._secrets = secrets
        self._ask = ask
        self._keys_wanted = keys_wanted
        self._refused: dict[SecretName, tuple[str, float]] = {}
        self._wanted = asyncio.Event()
        self._tasks = tasks

    def start(self) -> None:
        """Begin to look."""
        self._tasks.spawn(self._run(), "look")

    async def close(self) -> None:
        """Stop looking."""
        await self._tasks.close()

    @property
    def uuids(self) -> list[str]:
        """All that engines are asked for."""
        return [name.uuid for name in (*self.missing, *self.unseen) if name.uuid is not None]

    def wake(self) -> None:
        """Look again: a VM, its disks or the secrets have changed."""
        self._wanted.set()

    def refused(self, name: SecretName, what: str) -> None:
        """Something was refused for want of a key; what: that, in words."""
        self._refused[name] = (what, time.monotonic())
        self.wake()

    async def look(self) -> None:
        """Bring both up to date; they stay as they are while libvirt cannot be asked."""
        needed, keys = self._needed()
        try:
            missing = await self._secrets.missing(needed)
        except (libvirt.libvirtError, ResourceUnavailable) as e:
            log.warning("which secrets are missing cannot be told: %s", e)
            return
        self.missing = {name: needed[name] for name in missing}
        self.unseen = {
            name: keys[name]
            for name in keys
            if name not in self.missing and self._secrets.value(name) is None
        }

    def _needed(self) -> tuple[dict[SecretName, Names], dict[SecretName, Names]]:
        """By secret, who needs it to run, and who needs it so that Ceph can be asked."""
        needed: dict[SecretName, Names] = {}
        keys: dict[SecretName, Names] = {}
        for vm in self._registry.vms():
            if vm.running:
                for name in vm.domain.ceph.secrets:
                    needed[name] = (*needed.get(name, ()), vm.name)
                for name in vm.domain.ceph.keys if self._keys_wanted else ():
                    keys[name] = (*keys.get(name, ()), vm.name)
        since_s = time.monotonic() - FORGET_S
        self._refused = {n: told for n, told in self._refused.items() if told[1] > since_s}
        for name, (what, _) in self._refused.items():
            keys[name] = (*keys.get(name, ()), what)
        return needed, keys

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(asyncio.TimeoutError):
                asking = self.missing or self.unseen
                await within(self._wanted.wait(), REPEAT_S if asking else None)
            self._wanted.clear()
            try:
                await self._look_and_ask()
            except Exception:
                log.exception("which secrets are missing could not be looked at")

    async def _look_and_ask(self) -> None:
        known = {*self.missing, *self.unseen}
        await self.look()
        found = {**self.missing, **self.unseen}
        if found or known:
            if known != set(found):
                log.warning("secrets that VMs need are missing: %s", _listed(found))
            self._ask(self.uuids)


def _listed(names: Needed) -> str:
    return ", ".join(f"{name} ({', '.join(vms)})" for name, vms in names.items()) or "none now"
