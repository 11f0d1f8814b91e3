# SPDX-License-Identifier: GPL-2.0-or-later
"""The volumes of each provider, opened once and kept until the provider changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from sqlalchemy import Connection

from cinderengine.access.sealing import Sealer
from cinderengine.flows.finding import needed
from cinderengine.model.domains import StorageDomain
from cinderengine.model.providers import Provider
from cinderengine.model.secret import Secret
from cinderengine.store.database import Store
from cinderengine.store.entities import providers, storage_domains
from cinderengine.volumes.service import VolumeService

T = TypeVar("T")
Opener = Callable[[Provider, Secret | None], VolumeService]


class Services:
    """open_volumes: volumes.opening.open, or what stands in its place."""

    def __init__(self, store: Store, sealer: Sealer, open_volumes: Opener) -> None:
        self._store = store
        self._sealer = sealer
        self._open = open_volumes
        self._opened: dict[str, tuple[Provider, VolumeService]] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def of(self, provider: Provider) -> VolumeService:
        """Of a provider as it is now."""
        known, service = self._opened.get(provider.id, (None, None))
        if service is None or known != provider:
            if service is not None:
                self._close(service)
            service = self.another(provider)
            self._opened[provider.id] = (provider, service)
        return service

    def another(self, provider: Provider) -> VolumeService:
        """One that whoever asks has to close: of a provider that may not become one."""
        sealed = provider.sealed_password
        return self._open(provider, self._sealer.open(sealed) if sealed else None)

    async def of_domain(self, domain_id: str) -> VolumeService:
        """Of a storage domain's provider. Raises NotFound."""
        return self.of(await self._store.read(provider_of, domain_id))

    def forget(self, provider_id: str) -> None:
        """A provider is gone."""
        opened = self._opened.pop(provider_id, None)
        if opened is not None:
            self._close(opened[1])

    async def close(self) -> None:
        """End all of them."""
        for provider_id in tuple(self._opened):
            self.forget(provider_id)
        await asyncio.gather(*self._closing, return_exceptions=True)

    def _close(self, service: VolumeService) -> None:
        task = asyncio.create_task(service.close(), name="close volumes")
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def provider_of(conn: Connection, domain_id: str) -> Provider:
    """The provider of a storage domain. Raises NotFound."""
    domain: StorageDomain = needed(conn, storage_domains, domain_id, "storage domain")
    return needed(conn, providers, domain.provider_id, "provider")
