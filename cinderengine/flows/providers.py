# SPDX-License-Identifier: GPL-2.0-or-later
"""Providers: where volumes come from. What does not answer as it should is not stored."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection

from cinderengine.access.sealing import Sealer
from cinderengine.errors import Conflict, Incomplete
from cinderengine.flows.caller import Caller
from cinderengine.flows.finding import idle, named, needed, unused
from cinderengine.flows.services import Services
from cinderengine.flows.told import Code, tell
from cinderengine.model.domains import DomainStatus, StorageDomain
from cinderengine.model.ids import new_id, now_ms
from cinderengine.model.providers import Provider
from cinderengine.model.secret import Secret
from cinderengine.store.database import Store
from cinderengine.store.entities import data_centers, disks, providers, storage_domains
from cinderengine.volumes.service import Room, VolumeService, VolumeType

# What a provider has to be asked about again when one of these changes.
_WAY = {
    *("url", "authentication_url", "username", "sealed_password", "project", "user_domain"),
    *("project_domain", "region", "requires_authentication"),
}
_PLACE = ("url", "project", "region")
_IDLE = (DomainStatus.UNATTACHED, DomainStatus.MAINTENANCE, DomainStatus.INACTIVE)


@dataclass(frozen=True)
class NewProvider:
    """A provider as it is asked for; fields are those of model.providers.Provider."""

    name: str
    url: str
    description: str = ""
    comment: str = ""
    data_center_id: str | None = None
    requires_authentication: bool = False
    authentication_url: str = ""
    username: str = ""
    password: Secret | None = None
    project: str = ""
    user_domain: str = ""
    project_domain: str = ""
    region: str = ""


class Providers:
    """Each method raises EngineError, and then nothing is changed."""

    def __init__(self, store: Store, sealer: Sealer, services: Services) -> None:
        self._store = store
        self._sealer = sealer
        self._services = services

    async def add(self, new: NewProvider, caller: Caller) -> Provider:
        """Add one that answers, and its storage domain, which is active in its data center."""
        if not new.url.strip():
            raise Incomplete(
                f"provider {new.name} has no URL; give it Cinder's, or rbd://MONITORS/POOL"
            )
        fields = {name: value for name, value in vars(new).items() if name != "password"}
        sealed = self._sealer.seal(new.password) if new.password else ""
        provider = Provider(new_id(), **fields, sealed_password=sealed)
        await self._store.read(_may_be, provider)
        room = await self._check(provider)
        return await self._store.write(self._add, provider, room, caller)

    async def edit(
        self, provider_id: str, caller: Caller, password: Secret | None = None, **changes: Any
    ) -> Provider:
        """Give some of its fields other values. password: None if it stays."""
        if password is not None:
            changes["sealed_password"] = self._sealer.seal(password) if password else ""
        before = await self._store.read(needed, providers, provider_id, "provider")
        after = replace(before, **changes)
        await self._store.read(_may_be, after)
        if any(getattr(before, name) != getattr(after, name) for name in _WAY):
            await self._check(after)
        return await self._store.write(self._edit, before, changes, caller)

    async def remove(self, provider_id: str, caller: Caller) -> None:
        """Remove one whose storage domain is idle and has no disks, its keys with it."""
        await self._store.write(self._remove, provider_id, caller)
        self._services.forget(provider_id)

    async def test(self, provider_id: str) -> None:
        """Return if it answers as it should."""
        await (await self._service(provider_id)).check()

    async def volume_types(self, provider_id: str) -> Sequence[VolumeType]:
        """The types that its volumes may have, as it tells them now."""
        return await (await self._service(provider_id)).types()

    async def _service(self, provider_id: str) -> VolumeService:
        provider = await self._store.read(needed, providers, provider_id, "provider")
        return self._services.of(provider)

    async def _check(self, provider: Provider) -> Room:
        async with _for_once(self._services, provider) as service:
            await service.check()
            return await service.room()

    @staticmethod
    def _add(conn: Connection, provider: Provider, room: Room, caller: Caller) -> Provider:
        _may_be(conn, provider)
        providers.insert(conn, provider)
        attached = provider.data_center_id is not None
        domain = StorageDomain(
            new_id(),
            provider.name,
            provider.id,
            provider.data_center_id,
            provider.description,
            # It has just answered, and has no keys yet that hosts would need.
            status=DomainStatus.ACTIVE if attached else DomainStatus.UNATTACHED,
            used_bytes=room.used_bytes,
            available_bytes=room.available_bytes,
            checked_ms=now_ms(),
        )
        storage_domains.insert(conn, domain)
        who = caller.user.principal
        tell(conn, Code.PROVIDER_ADDED, f"Provider {provider.name} was added by {who}.", caller)
        tell(
            conn,
            Code.DOMAIN_ADDED,
            f"Storage domain {domain.name} was added with its provider by {who}.",
            caller,
            domain_id=domain.id,
            data_center_id=domain.data_center_id,
        )
        return provider

    @staticmethod
    def _edit(
        conn: Connection, before: Provider, changes: dict[str, Any], caller: Caller
    ) -> Provider:
        if providers.get(conn, before.id) != before:
            raise Conflict(
                f"provider {before.name} was changed by somebody else meanwhile; try again"
            )
        after = replace(before, **changes)
        _may_be(conn, after)
        if any(getattr(before, name) != getattr(after, name) for name in _PLACE):
            # What jobs have begun is looked for where it was made.
            for domain in storage_domains.all(conn, provider_id=before.id):
                idle(conn, domain)
        if changes:
            providers.update(conn, before.id, **changes)
        if after.name != before.name:
            storage_domains.update_where(conn, {"provider_id": after.id}, name=after.name)
        tell(
            conn,
            Code.PROVIDER_EDITED,
            f"Provider {after.name} was edited by {caller.user.principal}.",
            caller,
        )
        return after

    @staticmethod
    def _remove(conn: Connection, provider_id: str, caller: Caller) -> None:
        provider = needed(conn, providers, provider_id, "provider")
        for domain in storage_domains.all(conn, provider_id=provider_id):
            if domain.status not in _IDLE:
                raise Conflict(
                    f"provider {provider.name} cannot be removed while its storage domain is "
                    f"{domain.status}; deactivate the domain first"
                )
            idle(conn, domain)
            count = disks.count(conn, domain_id=domain.id)
            if count:
                raise Conflict(
                    f"provider {provider.name} cannot be removed while its storage domain has "
                    f"{count} disks; remove the disks first"
                )
            storage_domains.delete(conn, domain.id)
        providers.delete(conn, provider_id)
        tell(
            conn,
            Code.PROVIDER_REMOVED,
            f"Provider {provider.name} was removed by {caller.user.principal}.",
            caller,
        )


def _may_be(conn: Connection, provider: Provider) -> None:
    """Make sure that there may be a provider like that. Raises NotFound, Conflict, Incomplete."""
    unused(conn, providers, "provider", provider.id, name=named(provider.name, "provider"))
    unused(conn, providers, "provider", provider.id, url=provider.url)
    for domain in storage_domains.all(conn, name=provider.name):
        if domain.provider_id != provider.id:
            raise Conflict(
                f"the name {provider.name} is that of a storage domain already, and provider and "
                "domain have the same; choose another one"
            )
    if provider.data_center_id is not None:
        needed(conn, data_centers, provider.data_center_id, "data center")


@asynccontextmanager
async def _for_once(services: Services, provider: Provider) -> AsyncIterator[VolumeService]:
    service = services.another(provider)
    try:
        yield service
    finally:
        await service.close()
