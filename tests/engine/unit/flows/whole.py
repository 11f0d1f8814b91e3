# SPDX-License-Identifier: GPL-2.0-or-later
"""The flows of one engine process, on a provider in memory and hosts that take what they get."""

from __future__ import annotations

import asyncio
import base64
import itertools
from dataclasses import dataclass, field

from cinderengine.access.sealing import Sealer
from cinderengine.flows import disks as disk_flows
from cinderengine.flows.caller import Caller
from cinderengine.flows.centers import Clusters, DataCenters, add_defaults
from cinderengine.flows.disks import Disks
from cinderengine.flows.domains import Activating, Check, Deactivating, Domains
from cinderengine.flows.keys import Deliver, Keys, KeysChanged
from cinderengine.flows.providers import NewProvider, Providers
from cinderengine.flows.services import Services
from cinderengine.jobs.runner import Moment, Runner
from cinderengine.model.disks import DiskStatus
from cinderengine.model.jobs import JobStatus, Step
from cinderengine.model.secret import Secret
from cinderengine.model.users import User
from cinderengine.store import keys as wanted_keys
from cinderengine.store.database import Store
from cinderengine.store.entities import data_centers, disks, jobs, storage_domains
from tests.engine.unit.flows.memory import MemoryVolumes, World
from tests.engine.unit.jobs.killed import Killed

ADMIN = Caller(User("u", "admin", administrator=True), "flow-1", "10.0.0.9")
_NAMES = itertools.count()


@dataclass
class Hosts:
    """Those that take keys. has: the sealed values, by host; refusing: what a host says."""

    store: Store
    has: dict[str, list[str]] = field(default_factory=dict)
    refusing: dict[str, Exception] = field(default_factory=dict)

    async def deliver(self, host_id: str, flow_id: str = "") -> bool:
        if host_id in self.refusing:
            raise self.refusing[host_id]
        keys = await self.store.read(wanted_keys.of_host, host_id)
        self.has[host_id] = [key.uuid for key in keys]
        return True


class Whole:
    """All flows. moment, number: where it is killed."""

    def __init__(
        self,
        store: Store,
        world: World,
        moment: Moment | None = None,
        number: int | None = None,
    ) -> None:
        def at(now: Moment, step: Step) -> None:
            if (now, step.number) == (moment, number):
                self.killed.set()
                raise Killed

        self.store = store
        self.world = world
        self.hosts = Hosts(store)
        self.killed = asyncio.Event()
        self.domain_id = ""  # of the storage domain, once somebody has settled in
        sealer = Sealer(Secret(base64.urlsafe_b64encode(bytes(32)).decode()), "the test's key")
        self.services = services = Services(
            store, sealer, lambda provider, password: MemoryVolumes(world)
        )
        actions = [
            Check(services),
            Deliver(store, self.hosts),
            *(action(services) for action in disk_flows.ACTIONS),
        ]
        flows = [Activating(), Deactivating(), KeysChanged(), *(f() for f in disk_flows.FLOWS)]
        self.jobs = Runner(store, flows, actions, owner=f"engine {next(_NAMES)}", at=at)
        self.centers = DataCenters(store)
        self.clusters = Clusters(store)
        self.providers = Providers(store, sealer, services)
        self.keys = Keys(store, sealer, self.jobs)
        self.domains = Domains(store, services, self.jobs)
        self.disks = Disks(store, services, self.jobs)

    async def done(self) -> None:
        """Wait until no job goes on."""
        for job in await self.store.read(jobs.all, status=JobStatus.STARTED):
            await self.jobs.ended(job.id)

    async def reckon(self) -> None:
        """Each volume is a disk's and each disk has its volume; nothing is locked any more."""
        known = await self.store.read(disks.all)
        assert {disk.id for disk in known} == set(self.world.volumes)
        assert DiskStatus.LOCKED not in {disk.status for disk in known}
        for disk in known:
            if disk.status is DiskStatus.OK:
                volume = self.world.volumes[disk.id]
                assert (disk.size_bytes, disk.alias) == (volume.size_bytes, volume.name)
        assert await self.store.read(jobs.all, status=JobStatus.STARTED) == []


async def settle_in(whole: Whole) -> None:
    """The default data center, and a provider in it."""
    await whole.store.write(add_defaults)
    (center,) = await whole.store.read(data_centers.all)
    new = NewProvider("ceph", "rbd://mon/volumes", data_center_id=center.id)
    provider = await whole.providers.add(new, ADMIN)
    (domain,) = await whole.store.read(storage_domains.all, provider_id=provider.id)
    whole.domain_id = domain.id
