# SPDX-License-Identifier: GPL-2.0-or-later
"""Authentication keys: kept sealed, and brought to the hosts that need them.

A change is a job with a step for each host that is up. A host that is not gets what it lacks
before it is up again; one that does not take a key is told of, and fails nobody else.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sqlalchemy import Connection

from cinderengine.access.sealing import Sealer
from cinderengine.errors import Conflict, EngineError, Incomplete, Invalid
from cinderengine.flows.caller import Caller
from cinderengine.flows.finding import needed
from cinderengine.flows.told import Code, tell
from cinderengine.jobs import book
from cinderengine.jobs.actions import Action, AfterFailure, Flow, Planned, Result, Work
from cinderengine.jobs.runner import Runner
from cinderengine.model.events import Severity
from cinderengine.model.ids import new_id, now_ms
from cinderengine.model.jobs import Job
from cinderengine.model.providers import AuthenticationKey
from cinderengine.model.secret import Secret
from cinderengine.store import keys as wanted_keys
from cinderengine.store.database import Store
from cinderengine.store.entities import authentication_keys, providers, storage_domains

USAGE_TYPES = ("ceph",)


class Deliveries(Protocol):
    """Brings keys to hosts (hosts/)."""

    async def deliver(self, host_id: str, flow_id: str = "") -> bool:
        """Give a host the keys that it must have, and take back others of ours.

        False if it is away: it gets them before it is up again. Raises EngineError.
        """


@dataclass(frozen=True)
class NewKey:
    """A key as it is asked for. uuid: libvirt's secret's."""

    uuid: str
    value: Secret
    usage_type: str = "ceph"
    description: str = ""


class Deliver(Action):
    """Brings a host's keys up to date. params: host_id."""

    name = "keys.deliver"
    after_failure = AfterFailure.GO_ON
    patience_s = 30.0

    def __init__(self, store: Store, deliveries: Deliveries) -> None:
        self._store = store
        self._deliveries = deliveries

    async def do(self, work: Work) -> Result:
        host_id = work.params["host_id"]
        try:
            there = await self._deliveries.deliver(host_id, work.job.correlation_id)
            return {"delivered": there}
        except EngineError as e:
            await self._store.write(self._tell, work.job, host_id, str(e))
            raise

    @staticmethod
    def _tell(conn: Connection, job: Job, host_id: str, why: str) -> None:
        tell(
            conn,
            Code.KEYS_NOT_ON_HOST,
            f"Keys were not brought to a host, which is tried again: {why}.",
            job,
            severity=Severity.ERROR,
            host_id=host_id,
        )


class KeysChanged(Flow):
    """The hosts have what they can have; which do not is told at their steps."""

    name = "keys.changed"


def deliveries_of(conn: Connection, data_center_id: str | None) -> Sequence[Planned]:
    """The steps that bring keys to the hosts of a data center that are up."""
    return [
        Planned(Deliver.name, f"Bringing keys to host {host.name}", {"host_id": host.id})
        for host in wanted_keys.hosts_up(conn, data_center_id)
    ]


class Keys:
    """Each method raises EngineError, and then nothing is changed."""

    def __init__(self, store: Store, sealer: Sealer, jobs: Runner) -> None:
        self._store = store
        self._sealer = sealer
        self._jobs = jobs

    async def add(self, provider_id: str, new: NewKey, caller: Caller) -> AuthenticationKey:
        """Add one; hosts get it in the background."""
        if not new.uuid:
            raise Incomplete(
                "the authentication key has no uuid; give it that of the secret which "
                "cinder.conf names as rbd_secret_uuid"
            )
        key = AuthenticationKey(
            new_id(),
            provider_id,
            _uuid(new.uuid),
            self._sealed(new.uuid, new.value),
            new.description,
            _usage(new.usage_type),
            now_ms(),
        )
        await self._jobs.begin(self._add, key, caller)
        return key

    async def edit(
        self,
        provider_id: str,
        key_id: str,
        caller: Caller,
        value: Secret | None = None,
        **changes: Any,
    ) -> AuthenticationKey:
        """Give some of its fields other values; hosts get it anew. value: None if it stays."""
        if value is not None:
            changes["sealed_value"] = self._sealed(key_id, value)
        if "uuid" in changes:
            changes["uuid"] = _uuid(changes["uuid"])
        if "usage_type" in changes:
            _usage(changes["usage_type"])
        await self._jobs.begin(self._edit, provider_id, key_id, changes, caller)
        return await self._store.read(needed, authentication_keys, key_id, "authentication key")

    async def remove(self, provider_id: str, key_id: str, caller: Caller) -> None:
        """Remove one, from the hosts too."""
        await self._jobs.begin(self._remove, provider_id, key_id, caller)

    def _sealed(self, name: str, value: Secret) -> str:
        if not value:
            raise Incomplete(f"the authentication key {name} has no value; give it the CEPHX key")
        return self._sealer.seal(value)

    def _add(self, conn: Connection, key: AuthenticationKey, caller: Caller) -> Job:
        _unused(conn, key.uuid)
        needed(conn, providers, key.provider_id, "provider")
        authentication_keys.insert(conn, key)
        return self._changed(conn, key, Code.KEY_ADDED, "added", caller)

    def _edit(
        self,
        conn: Connection,
        provider_id: str,
        key_id: str,
        changes: dict[str, Any],
        caller: Caller,
    ) -> Job:
        key = _of(conn, provider_id, key_id)
        if changes.get("uuid", key.uuid) != key.uuid:
            _unused(conn, changes["uuid"])
        authentication_keys.update(conn, key_id, revision=key.revision + 1, **changes)
        return self._changed(conn, key, Code.KEY_EDITED, "edited", caller)

    def _remove(self, conn: Connection, provider_id: str, key_id: str, caller: Caller) -> Job:
        key = _of(conn, provider_id, key_id)
        authentication_keys.delete(conn, key_id)
        return self._changed(conn, key, Code.KEY_REMOVED, "removed", caller)

    def _changed(
        self, conn: Connection, key: AuthenticationKey, code: Code, what: str, caller: Caller
    ) -> Job:
        provider = needed(conn, providers, key.provider_id, "provider")
        text = f"Authentication key {key.uuid} of provider {provider.name} was {what}"
        tell(conn, code, f"{text} by {caller.user.principal}.", caller)
        plan = [
            planned
            for domain in storage_domains.all(conn, provider_id=provider.id)
            if domain.status in wanted_keys.NEEDING
            for planned in deliveries_of(conn, domain.data_center_id)
        ]
        what = f"Bringing keys of provider {provider.name} to hosts"
        return book.begin(conn, caller.job(self._jobs, KeysChanged, what), plan)


def _of(conn: Connection, provider_id: str, key_id: str) -> AuthenticationKey:
    return needed(conn, authentication_keys, key_id, "authentication key", provider_id=provider_id)


def _unused(conn: Connection, key_uuid: str) -> None:
    if authentication_keys.find(conn, uuid=key_uuid) is not None:
        raise Conflict(
            f"the uuid {key_uuid} is that of another authentication key; "
            "edit that one, or give this one another uuid"
        )


def _uuid(text: str) -> str:
    try:
        return str(uuid.UUID(text))
    except ValueError:
        raise Invalid(
            f"the uuid {text!r} of the authentication key is none; "
            "give it the form 0e6fff8d-8af9-49e2-b04f-1a5dbbe883a2"
        ) from None


def _usage(usage_type: str) -> str:
    if usage_type not in USAGE_TYPES:
        raise Invalid(
            f"the usage type {usage_type!r} of the authentication key is unknown; give it "
            f"{' or '.join(USAGE_TYPES)}"
        )
    return usage_type
