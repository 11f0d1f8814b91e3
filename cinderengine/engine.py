# SPDX-License-Identifier: GPL-2.0-or-later
"""The parts of an engine that do its work, put together: logins, volumes, hosts, jobs, flows."""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Mapping, Sequence

from cinderengine import opening
from cinderengine.access.logins import Logins
from cinderengine.access.pauses import Pauses
from cinderengine.access.sealing import Sealer
from cinderengine.access.tokens import Lifetime
from cinderengine.authorities.certificates import Unit
from cinderengine.authorities.keeper import Authorities
from cinderengine.config import Access, Config
from cinderengine.flows import disks, domains, keys
from cinderengine.flows.centers import Clusters, DataCenters
from cinderengine.flows.disks import Disks
from cinderengine.flows.domain_watch import DomainWatch
from cinderengine.flows.domains import Domains
from cinderengine.flows.hosts import Hosts, Joining
from cinderengine.flows.keys import Keys
from cinderengine.flows.providers import Providers
from cinderengine.flows.services import Services
from cinderengine.hosts import keeper
from cinderengine.hosts.joining import Trust
from cinderengine.hosts.keys import HostKey
from cinderengine.jobs.runner import Runner
from cinderengine.model.hosts import HostStatus
from cinderengine.store import entities
from cinderengine.store import keys as wanted_keys
from cinderengine.store.database import Store
from cinderengine.volumes.opening import open as open_volumes
from vdsmcinder.tasks import Tasks

MINUTE_MS, HOUR_MS = 60_000, 3_600_000


class Engine:
    """Each part by what it is about; flows are what the API and the portal call."""

    def __init__(
        self, config: Config, store: Store, sealer: Sealer, authorities: Authorities
    ) -> None:
        self.config = config
        self.store = store
        self.sealer = sealer
        self.authorities = authorities
        # Now, because a name may have to be asked for.
        self._url, self._names = opening.url(config), opening.names(config)
        self.tasks = Tasks("engine")
        self.logins = _logins(store, config.access)
        self.services = Services(store, sealer, open_volumes)
        self.keeper = keeper.Hosts(
            self.tasks,
            context=authorities.to_hosts,
            wanted=self._keys_of,
            on_change=self._on_change,
        )
        self.jobs = self._runner()
        self.data_centers = DataCenters(store)
        self.clusters = Clusters(store)
        self.providers = Providers(store, sealer, self.services)
        self.keys = Keys(store, sealer, self.jobs)
        self.domains = Domains(store, self.services, self.jobs)
        self.disks = Disks(store, self.services, self.jobs)
        self.hosts = Hosts(store, self.keeper, self._joining)

    async def start(self) -> None:
        """Go on with what an earlier process left, and keep all hosts."""
        await self.jobs.start()
        self.keeper.begin(await self.store.read(entities.hosts.all))
        watch = DomainWatch(self.store, self.services, float(self.config.storage.look_s))
        self.tasks.spawn(watch.run(), "storage domains")

    async def close(self) -> None:
        """Stop where everything stands; the next process goes on there."""
        await self.jobs.close()
        await self.keeper.close()
        await self.tasks.close()
        await self.services.close()

    def _runner(self) -> Runner:
        actions = [
            domains.Check(self.services),
            keys.Deliver(self.store, self.keeper),
            *(action(self.services) for action in disks.ACTIONS),
        ]
        flows = [
            domains.Activating(),
            domains.Deactivating(),
            keys.KeysChanged(),
            *(flow() for flow in disks.FLOWS),
        ]
        alone = self.store.url.get_backend_name() == "sqlite"
        return Runner(self.store, flows, actions, owner=_own_name(), alone=alone)

    async def _keys_of(self, host_id: str) -> Sequence[HostKey]:
        """The keys that a host must have, opened."""
        return [
            HostKey(key.uuid, self.sealer.open(key.sealed_value), key.usage_type, key.revision)
            for key in await self.store.read(wanted_keys.of_host, host_id)
        ]

    async def _on_change(self, host_id: str, status: HostStatus, reason: str) -> None:
        await self.hosts.on_change(host_id, status, reason)

    def _joining(self) -> Joining:
        """What hosts that join are given."""
        authorities = self.authorities
        trust = Trust(authorities.engine_subject, authorities.clients_pem, authorities.hosts_pem)
        return Joining(
            url=self._url,
            fingerprint=authorities.fingerprint,
            trust=trust,
            sign=self._sign,
            reserved=self._names,
        )

    def _sign(self, names: Sequence[str], requests: Mapping[str, bytes]) -> Mapping[str, str]:
        units = {Unit(unit): pem for unit, pem in requests.items()}
        signed = self.authorities.sign_host(names, units)
        return {str(unit): one.certificate_pem for unit, one in signed.items()}


def _logins(store: Store, options: Access) -> Logins:
    lifetime = Lifetime(options.idle_minutes * MINUTE_MS, options.longest_hours * HOUR_MS)
    return Logins(store, lifetime, Pauses(options.free_failures, options.longest_pause_s))


def _own_name() -> str:
    """That of this process, never used before."""
    return f"{socket.gethostname()} {os.getpid()} {uuid.uuid4()}"
