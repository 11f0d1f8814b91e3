# SPDX-License-Identifier: GPL-2.0-or-later
"""CEPHX and other keys as libvirt secrets: ephemeral, private, and only ever our own.

libvirt forgets them when libvirtd ends, so that they are registered anew from the keyring before
the next VM needs them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Sequence
from typing import Callable

import libvirt

from vdsmcinder.errors import (
    ResourceUnavailable,
    SecretRegistrationFailed,
    SecretUnregistrationFailed,
)
from vdsmcinder.hypervisor.connection import Connection
from vdsmcinder.virt.secrets.keyring import Keyring
from vdsmcinder.virt.secrets.secret import (
    LIBVIRT_USAGE_TYPES,
    NO_VALUE,
    OUR_PREFIX,
    RegisteredSecret,
    Secret,
    SecretName,
    SecretSpec,
)

log = logging.getLogger(__name__)


class Secrets:
    """The secrets that we keep in libvirt, which gives no value of theirs back.

    keyring: the same ones with their values. on_change: called when libvirt may have more or fewer.
    count: how many there were when libvirt was last asked; None if it has not been.
    """

    def __init__(
        self, connection: Connection, keyring: Keyring, on_change: Callable[[], None]
    ) -> None:
        self._connection = connection
        self._keyring = keyring
        # What registers and what removes must not meet, or a secret comes back that was removed.
        self._lock = asyncio.Lock()
        self.count: int | None = None
        self._on_change = on_change

    def value(self, name: SecretName) -> Secret | None:
        """The value of a secret that an engine registered, or None."""
        means = (spec.value for spec in self._keyring.specs() if _means(name, spec))
        return next(means, None)

    def specs(self) -> list[SecretSpec]:
        """All secrets that engines registered, with their values."""
        return self._keyring.specs()

    async def registered(self) -> list[RegisteredSecret]:
        """Our secrets; those without our prefix are not ours and are not listed."""
        found = await self._connection.call(_list_secrets, self._connection.handle)
        self.count = len(found)
        return found

    async def restore(self) -> None:
        """Give a libvirt that was restarted what it has forgotten; never raises for what fails."""
        try:
            await self.missing(SecretName(spec.uuid) for spec in self._keyring.specs())
        except (libvirt.libvirtError, ResourceUnavailable) as e:
            log.warning("libvirt does not tell which secrets it has: %s", e)
        await self._recount()

    async def missing(self, names: Iterable[SecretName]) -> list[SecretName]:
        """Those that neither libvirt has, whoever defined them, nor we can give it."""
        wanted = list(names)
        if not wanted:
            return []
        handle = self._connection.handle
        missing = await self._connection.call(_missing, handle, wanted)
        if not any(self.value(name) for name in missing):
            return missing
        async with self._lock:
            for spec in self._keyring.specs():
                if any(_means(name, spec) for name in missing):
                    await self._register_anew(spec)
            return await self._connection.call(_missing, handle, wanted)

    async def _register_anew(self, spec: SecretSpec) -> None:
        try:
            await self._connection.call(_register, self._connection.handle, spec)
        except libvirt.libvirtError as e:
            log.error("libvirt did not take secret %s again: %s", spec.uuid, e.get_error_message())
        else:
            log.info("registered secret %s of usage %s again", spec.uuid, spec.usage_id)

    async def register(self, specs: Sequence[SecretSpec], *, clear: bool = False) -> None:
        """Register all secrets of the list, replacing those of the same uuid or usage id.

        When this returns they outlive this process, where systemd keeps them (fdstore.py).
        clear: also remove our secrets that are not in the list.
        Raises SecretRegistrationFailed (73) if libvirt refuses one.
        """
        async with self._lock:
            try:
                for spec in specs:
                    await self._register(spec)
                if clear:
                    await self._remove(lambda uuid: uuid not in {spec.uuid for spec in specs})
            finally:
                await self._changed()

    async def _register(self, spec: SecretSpec) -> None:
        try:
            await self._connection.call(_register, self._connection.handle, spec)
        except libvirt.libvirtError as e:
            raise SecretRegistrationFailed(
                f"libvirt did not take secret {spec.uuid} of usage {spec.usage_id}: "
                f"{e.get_error_message()}; the ones before it in the list are registered, "
                "send the list again when this is mended",
                uuid=spec.uuid,
            ) from None
        self._keyring.add(spec)
        log.info("registered secret %s of usage %s", spec.uuid, spec.usage_id)

    async def unregister(self, uuids: Collection[str]) -> None:
        """Remove those of our secrets; unknown uuids and those of others are passed over.

        uuids: in lower case. Raises SecretUnregistrationFailed (74) if libvirt refuses, or systemd
        keeps their values.
        """
        async with self._lock:
            try:
                await self._remove(uuids.__contains__)
            finally:
                kept = await self._changed()
            if kept:
                raise SecretUnregistrationFailed(
                    "libvirt has removed the secrets, but their values would come back with the "
                    f"next start of this daemon: {kept}; call again, and see the journal of systemd"
                )

    async def _remove(self, unwanted: Callable[[str], bool]) -> None:
        """Remove our secrets whose uuid is unwanted, from libvirt and from what we keep."""
        registered = await self.registered()
        for spec in self._keyring.specs():
            if unwanted(spec.uuid):
                self._keyring.remove(spec.uuid)
        handle = self._connection.handle
        for secret in registered:
            if not unwanted(secret.uuid):
                continue
            try:
                await self._connection.call(_undefine, handle, secret.uuid)
            except libvirt.libvirtError as e:
                raise SecretUnregistrationFailed(
                    f"libvirt did not remove secret {secret.uuid} of usage {secret.usage_id}: "
                    f"{e.get_error_message()}; call again when this is mended",
                    uuid=secret.uuid,
                ) from None
            log.info("removed secret %s of usage %s", secret.uuid, secret.usage_id)

    async def _changed(self) -> str:
        """Keep what there is now, and no more; why that is not so, empty if it is."""
        trouble = await self._keyring.save()
        await self._recount()
        return trouble

    async def _recount(self) -> None:
        """Bring count up to date; None if libvirt does not tell."""
        try:
            await self.registered()
        except (libvirt.libvirtError, ResourceUnavailable) as e:
            self.count = None
            log.warning("libvirt does not tell how many secrets there are: %s", e)
        self._on_change()


def _means(name: SecretName, spec: SecretSpec) -> bool:
    return name.means(spec.uuid, spec.usage_type, spec.usage_id)


# What follows runs in the connection's thread pool.


def _list_secrets(handle: libvirt.virConnect) -> list[RegisteredSecret]:
    return [
        RegisteredSecret(s.UUIDString(), LIBVIRT_USAGE_TYPES[s.usageType()], s.usageID())
        for s in handle.listAllSecrets()
        if _is_ours(s)
    ]


def _has_value(secret: libvirt.virSecret) -> bool:
    """Whether a secret has been given its value, as far as that was ours to do.

    Of a private one libvirt does not tell; one that we define says so itself until it has.
    """
    return not _is_ours(secret) or NO_VALUE not in secret.XMLDesc()


def _is_ours(secret: libvirt.virSecret) -> bool:
    usage_id = secret.usageID() or ""
    return secret.usageType() in LIBVIRT_USAGE_TYPES and usage_id.startswith(OUR_PREFIX)


def _missing(handle: libvirt.virConnect, names: list[SecretName]) -> list[SecretName]:
    known = [
        (s.UUIDString(), LIBVIRT_USAGE_TYPES.get(s.usageType()), s.usageID())
        for s in handle.listAllSecrets()
        if _has_value(s)
    ]
    return [name for name in names if not any(name.means(*secret) for secret in known)]


def _register(handle: libvirt.virConnect, spec: SecretSpec) -> None:
    # libvirt does not change the usage of a defined secret, nor give one usage to two of them.
    new = True
    for known in handle.listAllSecrets():
        same_usage = (
            LIBVIRT_USAGE_TYPES.get(known.usageType()) is spec.usage_type
            and known.usageID() == spec.usage_id
        )
        same_uuid = known.UUIDString() == spec.uuid
        if same_uuid != same_usage and _is_ours(known):
            known.undefine()
        elif same_uuid and same_usage and _has_value(known):
            new = False
    secret = handle.secretDefineXML(spec.xml(f"{NO_VALUE} {spec.description}" if new else None))
    try:
        secret.setValue(spec.value.reveal())
    except BaseException:
        if new:
            secret.undefine()
        raise
    if new:
        handle.secretDefineXML(spec.xml())


def _undefine(handle: libvirt.virConnect, uuid: str) -> None:
    try:
        handle.secretLookupByUUIDString(uuid).undefine()
    except libvirt.libvirtError as e:
        if e.get_error_code() != libvirt.VIR_ERR_NO_SECRET:
            raise
