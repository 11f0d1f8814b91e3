# SPDX-License-Identifier: GPL-2.0-or-later
"""Looks after storage domains: how much room they have, and whether their providers answer."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any

from sqlalchemy import Connection

from cinderengine.errors import EngineError
from cinderengine.flows.domains import move
from cinderengine.flows.services import Services
from cinderengine.flows.told import Code, tell
from cinderengine.model.domains import DomainStatus, StorageDomain
from cinderengine.model.events import Severity
from cinderengine.model.ids import now_ms
from cinderengine.store.database import Store
from cinderengine.store.entities import storage_domains

log = logging.getLogger(__name__)

# A domain is inactive once its provider has not answered so often.
FAILURES = 2
_WATCHED = (DomainStatus.ACTIVE, DomainStatus.INACTIVE)


class DomainWatch:
    """run() is a task of whoever makes it."""

    def __init__(self, store: Store, services: Services, interval_s: float) -> None:
        self._store = store
        self._services = services
        self._interval_s = interval_s
        self._failures: Counter[str] = Counter()

    async def run(self) -> None:
        """Look again and again, until cancelled."""
        while True:
            try:
                await self.look()
            except EngineError as e:
                log.warning("storage domains were not looked at: %s", e)
            except Exception:
                log.exception("storage domains were not looked at")
            await asyncio.sleep(self._interval_s)

    async def look(self) -> None:
        """Look at each domain that is active or should be, side by side."""
        domains = await self._store.read(storage_domains.all)
        watched = [domain for domain in domains if domain.status in _WATCHED]
        await asyncio.gather(*(self._look_at(domain) for domain in watched))

    async def _look_at(self, domain: StorageDomain) -> None:
        try:
            service = await self._services.of_domain(domain.id)
            await service.check()
            room = await service.room()
        except EngineError as e:
            self._failures[domain.id] += 1
            if self._failures[domain.id] >= FAILURES:
                await self._store.write(_went_away, domain.id, str(e))
            return
        del self._failures[domain.id]
        seen = {"used_bytes": room.used_bytes, "available_bytes": room.available_bytes}
        await self._store.write(_is_there, domain.id, {**seen, "checked_ms": now_ms()})


def _went_away(conn: Connection, domain_id: str, reason: str) -> None:
    domain = storage_domains.get(conn, domain_id)
    if domain is None or domain.status is not DomainStatus.ACTIVE:
        return
    move(conn, domain_id, DomainStatus.INACTIVE, reason)
    log.warning("storage domain %s is inactive: %s", domain.name, reason)
    tell(
        conn,
        Code.DOMAIN_WENT_AWAY,
        f"Storage domain {domain.name} is inactive: {reason}.",
        severity=Severity.WARNING,
        domain_id=domain_id,
        data_center_id=domain.data_center_id,
    )


def _is_there(conn: Connection, domain_id: str, seen: dict[str, Any]) -> None:
    domain = storage_domains.get(conn, domain_id)
    if domain is None:
        return
    storage_domains.update(conn, domain_id, **seen)
    if domain.status is not DomainStatus.INACTIVE:
        return
    move(conn, domain_id, DomainStatus.ACTIVE)
    log.info("storage domain %s is active again", domain.name)
    tell(
        conn,
        Code.DOMAIN_CAME_BACK,
        f"Storage domain {domain.name} is active again.",
        domain_id=domain_id,
        data_center_id=domain.data_center_id,
    )
