# SPDX-License-Identifier: GPL-2.0-or-later
"""An engine whose API can be called: real flows and database, and volumes that are in memory."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer
from cryptography.fernet import Fernet
from sqlalchemy import Connection

from cinderengine.access.sealing import Sealer
from cinderengine.api.http.app import make_app
from cinderengine.api.parts import Parts
from cinderengine.errors import Unauthenticated
from cinderengine.flows import centers, disks, domains, keys
from cinderengine.flows.caller import Caller
from cinderengine.flows.finding import needed
from cinderengine.flows.hosts import Added, NewHost
from cinderengine.flows.providers import Providers
from cinderengine.flows.services import Services
from cinderengine.hosts.facts import Capabilities, HostFacts, Statistics
from cinderengine.jobs.runner import Runner
from cinderengine.model.hosts import Host, HostStatus
from cinderengine.model.ids import new_id
from cinderengine.model.providers import Provider
from cinderengine.model.secret import Secret
from cinderengine.model.users import Token, User
from cinderengine.store.database import Store
from cinderengine.store.entities import hosts, jobs, users
from cinderengine.volumes.service import Limits, Room, Volume, VolumeStatus, VolumeType

ADMIN = User("a0000000-0000-0000-0000-000000000001", "admin", administrator=True)
GUEST = User("a0000000-0000-0000-0000-000000000002", "guest")
PASSWORDS = {"admin@internal": "pw", "guest@internal": "guest"}
WAIT_S = 10


@dataclass(frozen=True)
class Issued:
    text: Secret
    token: Token


class FakeAccess:
    """Users with passwords that cost nothing to check."""

    def __init__(self) -> None:
        self.open_tokens: dict[str, tuple[Token, User]] = {}
        self.logins = 0

    async def by_password(self, principal: str, password: Secret, address: str) -> User:
        self.logins += 1
        if PASSWORDS.get(principal) != password.reveal():
            raise Unauthenticated("the user name or the password is not right")
        return ADMIN if principal.startswith("admin") else GUEST

    async def open(self, user: User, scope: str) -> Issued:
        text = f"token-{len(self.open_tokens)}"
        token = Token(new_id(), user.id, scope, 0, 0, 2_000_000_000_000)
        self.open_tokens[text] = token, user
        return Issued(Secret(text), token)

    async def by_token(self, text: Secret) -> tuple[Token, User]:
        try:
            return self.open_tokens[text.reveal()]
        except KeyError:
            raise Unauthenticated("the token is not valid any more; log in again") from None

    async def close(self, text: Secret) -> None:
        self.open_tokens.pop(text.reveal(), None)


class FakeVolumes:
    """A Cinder in memory, whose volumes are ready at once unless they are held."""

    def __init__(self) -> None:
        self.kept: dict[str, Volume] = {}
        self.held = asyncio.Event()
        self.held.set()
        self.fault: Exception | None = None

    async def check(self) -> None:
        if self.fault is not None:
            raise self.fault

    async def types(self) -> Sequence[VolumeType]:
        return [VolumeType("t1", "my_ceph", "fast", {"volume_backend_name": "ceph"})]

    async def limits(self) -> Limits:
        return Limits()

    async def room(self) -> Room:
        return Room(10 << 30, 90 << 30)

    async def create(
        self, key: str, name: str, size_bytes: int, type_name: str = "", description: str = ""
    ) -> Volume:
        found = await self.find(key)
        if found is not None:
            return found
        return self.put(name, size_bytes, type_name, description, key)

    def put(
        self,
        name: str,
        size_bytes: int = 1 << 30,
        type_name: str = "my_ceph",
        description: str = "",
        key: str | None = None,
    ) -> Volume:
        volume = Volume(
            new_id(),
            name,
            size_bytes,
            VolumeStatus.READY,
            "available",
            type_name,
            description,
            key,
        )
        self.kept[volume.id] = volume
        return volume

    async def find(self, key: str) -> Volume | None:
        return next((volume for volume in self.kept.values() if volume.key == key), None)

    async def volumes(self) -> Sequence[Volume]:
        return list(self.kept.values())

    async def get(self, volume_id: str) -> Volume | None:
        return self.kept.get(volume_id)

    async def settled(self, volume_id: str) -> Volume | None:
        await self.held.wait()
        return self.kept.get(volume_id)

    async def rename(self, volume_id: str, name: str, description: str) -> None:
        volume = self.kept[volume_id]
        self.kept[volume_id] = dataclasses.replace(volume, name=name, description=description)

    async def extend(self, volume_id: str, size_bytes: int) -> None:
        volume = self.kept[volume_id]
        self.kept[volume_id] = dataclasses.replace(volume, size_bytes=size_bytes)

    async def delete(self, volume_id: str) -> None:
        self.kept.pop(volume_id, None)

    async def close(self) -> None:
        pass


class FakeHosts:
    """Hosts that do what they are told at once."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def add(self, new: NewHost, caller: Caller) -> Added:
        host = Host(id=new_id(), **vars(new))
        await self._store.write(hosts.insert, host)
        return Added(host, "vdsm-cinder join https://engine TOKEN")

    async def edit(self, host_id: str, caller: Caller, **changes: Any) -> Host:
        await self._store.write(hosts.update, host_id, **changes)
        return await self._store.read(needed, hosts, host_id, "host")

    async def remove(self, host_id: str, caller: Caller) -> None:
        await self._store.write(hosts.delete, host_id)

    async def activate(self, host_id: str, caller: Caller) -> Host:
        return await self.edit(host_id, caller, status=HostStatus.UP)

    async def deactivate(self, host_id: str, caller: Caller) -> Host:
        return await self.edit(host_id, caller, status=HostStatus.MAINTENANCE)

    async def deliver(self, host_id: str, flow_id: str = "") -> bool:
        return True

    @staticmethod
    def facts(host_id: str) -> HostFacts:
        capabilities = Capabilities(
            cpu_model="Skylake",
            sockets=2,
            cores=8,
            threads=16,
            memory_bytes=64 << 30,
            os_name="Debian",
            os_version="12.5",
            hardware_id="4c4c4544",
        )
        statistics = Statistics(memory_free_bytes=1024, vms=0, cpu_user=1.5)
        return HostFacts(host_id, True, 1, capabilities, statistics)


@dataclass
class Engine:
    """url: where its API is; without the prefix."""

    url: str
    app: web.Application
    parts: Parts
    volumes: FakeVolumes
    access: FakeAccess
    runner: Runner

    async def idle(self) -> None:
        """Wait until each job that was begun is over."""
        async with asyncio.timeout(WAIT_S):
            for job in await self.parts.store.read(jobs.all):
                await self.runner.ended(job.id)


def _people(conn: Connection) -> None:
    centers.add_defaults(conn)
    for user in (ADMIN, GUEST):
        users.insert(conn, user)


@asynccontextmanager
async def running(store: Store) -> AsyncIterator[Engine]:
    """An engine on a port of loopback, over a database with the newest schema."""
    volumes, access, fake_hosts = FakeVolumes(), FakeAccess(), FakeHosts(store)

    def opened(provider: Provider, password: Secret | None) -> FakeVolumes:
        return volumes

    sealer = Sealer(Secret(Fernet.generate_key().decode()), "a test's")
    services = Services(store, sealer, opened)
    flows = [
        *(flow() for flow in disks.FLOWS),
        domains.Activating(),
        domains.Deactivating(),
        keys.KeysChanged(),
    ]
    actions = [
        *(action(services) for action in disks.ACTIONS),
        domains.Check(services),
        keys.Deliver(store, fake_hosts),
    ]
    runner = Runner(store, flows, actions, owner=new_id())
    await store.write(_people)
    parts = Parts(
        store=store,
        access=access,
        data_centers=centers.DataCenters(store),
        clusters=centers.Clusters(store),
        providers=Providers(store, sealer, services),
        keys=keys.Keys(store, sealer, runner),
        domains=domains.Domains(store, services, runner),
        disks=disks.Disks(store, services, runner),
        hosts=fake_hosts,
        facts=fake_hosts.facts,
    )
    app = make_app(parts)
    await runner.start()
    async with TestServer(app) as server:
        yield Engine(str(server.make_url("")).rstrip("/"), app, parts, volumes, access, runner)
    volumes.held.set()
    await runner.close()
    await services.close()
