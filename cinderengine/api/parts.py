# SPDX-License-Identifier: GPL-2.0-or-later
"""What the API needs of the rest of the engine: the store to read, flows to change things."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from cinderengine.flows.caller import Caller
from cinderengine.flows.centers import Clusters, DataCenters
from cinderengine.flows.disks import Disks
from cinderengine.flows.domains import Domains
from cinderengine.flows.hosts import Added, NewHost
from cinderengine.flows.keys import Keys
from cinderengine.flows.providers import Providers
from cinderengine.model.hosts import Host
from cinderengine.model.secret import Secret
from cinderengine.model.users import Token, User
from cinderengine.store.database import Store


class Issued(Protocol):
    """A token that was made. text: what its owner shows from now on."""

    @property
    def text(self) -> Secret: ...
    @property
    def token(self) -> Token: ...


class Access(Protocol):
    """Logs users in and out. Each method raises Unauthenticated."""

    async def by_password(self, principal: str, password: Secret, address: str) -> User:
        """The user of that name (NAME or NAME@PROFILE) and password, who asks from an address."""

    async def open(self, user: User, scope: str) -> Issued:
        """A token for a user who has logged in. scope: words that clients ask for and get back."""

    async def by_token(self, text: Secret) -> tuple[Token, User]:
        """A token and whose it is."""

    async def close(self, text: Secret) -> None:
        """End a token; nothing happens where there is none."""


class Hosts(Protocol):
    """Each method raises EngineError, and then nothing is changed."""

    async def add(self, new: NewHost, caller: Caller) -> Added:
        """Add one, which is up once it has joined."""

    async def edit(self, host_id: str, caller: Caller, **changes: Any) -> Host:
        """Give some of its fields other values."""

    async def activate(self, host_id: str, caller: Caller) -> Host:
        """It is to be up."""

    async def deactivate(self, host_id: str, caller: Caller) -> Host:
        """It is to be in maintenance."""

    async def remove(self, host_id: str, caller: Caller) -> None:
        """Remove one that is in maintenance, or that has never joined."""


class Capabilities(Protocol):
    """What a host is, as it tells; empty or None where it has not. Counts are of the whole host."""

    @property
    def cpu_model(self) -> str: ...
    @property
    def cpu_speed_mhz(self) -> float | None: ...
    @property
    def sockets(self) -> int | None: ...
    @property
    def cores(self) -> int | None: ...
    @property
    def threads(self) -> int | None: ...
    @property
    def memory_bytes(self) -> int | None: ...
    @property
    def os_name(self) -> str: ...
    @property
    def os_version(self) -> str: ...
    @property
    def hardware_id(self) -> str: ...


class Statistics(Protocol):
    """How busy a host is, as it tells. Of processors: percent. booted_s: since the epoch."""

    @property
    def cpu_user(self) -> float | None: ...
    @property
    def cpu_system(self) -> float | None: ...
    @property
    def cpu_idle(self) -> float | None: ...
    @property
    def cpu_load(self) -> float | None: ...
    @property
    def memory_free_bytes(self) -> int | None: ...
    @property
    def memory_shared_bytes(self) -> int | None: ...
    @property
    def swap_total_bytes(self) -> int | None: ...
    @property
    def swap_free_bytes(self) -> int | None: ...
    @property
    def ksm_cpu(self) -> float | None: ...
    @property
    def booted_s(self) -> int | None: ...
    @property
    def vms(self) -> int | None: ...
    @property
    def active_vms(self) -> int | None: ...
    @property
    def migrating_vms(self) -> int | None: ...


class Facts(Protocol):
    """All that is known of a host from itself."""

    @property
    def capabilities(self) -> Capabilities: ...
    @property
    def statistics(self) -> Statistics: ...


@dataclass(frozen=True)
class Parts:
    """Each by what it is about. facts: what a host has told of itself, by its id."""

    store: Store
    access: Access
    data_centers: DataCenters
    clusters: Clusters
    providers: Providers
    keys: Keys
    domains: Domains
    disks: Disks
    hosts: Hosts
    facts: Callable[[str], Facts]
