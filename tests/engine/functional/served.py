# SPDX-License-Identifier: GPL-2.0-or-later
"""An engine that is served, its storage, and what clients wait for, in the words of the tests."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import ovirtsdk4 as sdk
import pytest
from ovirtsdk4 import types

from lab.base import wait_until
from lab.cinder.server import PROJECT
from lab.engine_service import ADMIN, EngineService, pool_url
from lab.running import Lab
from lab.steps import Step

GIB = 1 << 30
MIB = 1 << 20
WITHIN_S = 60.0


@contextlib.contextmanager
def connected(engine: EngineService, **named: Any) -> Iterator[sdk.Connection]:
    """oVirt's own client, logged in as the administrator."""
    options = {
        "url": engine.url,
        "username": ADMIN,
        "password": engine.password,
        "ca_file": str(engine.ca),
        **named,
    }
    connection = sdk.Connection(**options)
    try:
        yield connection
    finally:
        connection.close(logout=False)


@contextlib.contextmanager
def fault(code: int, *words: str) -> Iterator[None]:
    """What is refused in the block: with that status, a reason, and a detail with these words."""
    with pytest.raises(sdk.Error) as raised:
        yield
    assert raised.value.code == code, raised.value
    told = raised.value.fault
    assert told is not None and told.reason, raised.value
    missing = [word for word in words if word not in told.detail]
    assert not missing, told.detail


@dataclass
class Storage:
    """A provider's pool, and what is in it but for what others have there.

    fields: of the provider, as the client takes them.
    """

    lab: Lab
    kind: str
    fields: dict[str, Any]
    foreign: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        self.foreign = frozenset(self.lab.ceph.images())

    def provider(self, **changes: Any) -> types.OpenStackVolumeProvider:
        """As it is added."""
        return types.OpenStackVolumeProvider(**{"name": self.kind, **self.fields, **changes})

    def images(self) -> dict[str, int]:
        """The ids of the volumes whose images there are, with their sizes, by rbd itself."""
        names = set(self.lab.ceph.images()) - self.foreign
        return {name.removeprefix("volume-"): self.lab.ceph.image_size(name) for name in names}


def storage_of(lab: Lab, kind: str) -> Storage:
    """kind: pool, or cinder, which is started unless it runs."""
    if kind == "pool":
        return Storage(lab, kind, pool_fields(lab))
    lab.cinder.start(Step("Cinder", io.StringIO()))
    url = lab.cinder.url.removesuffix(f"/v3/{PROJECT}")
    fields = {"url": url, "requires_authentication": False, "tenant_name": PROJECT}
    return Storage(lab, kind, fields)


def pool_fields(lab: Lab) -> dict[str, Any]:
    """The lab's pool, as a provider's fields."""
    return {
        "url": pool_url(lab.ceph),
        "requires_authentication": True,
        "username": lab.ceph.user,
        "password": lab.ceph.key,
    }


def default(system: Any) -> Any:
    """The data center that there is from the beginning."""
    (center,) = system.data_centers_service().list(search="name=Default")
    return center


def domain_of(system: Any, name: str) -> Any:
    """A storage domain by its name."""
    (domain,) = system.storage_domains_service().list(search=f"name={name}")
    return domain


def new_disk(
    alias: str | None, domain: Any, size_bytes: int | None = GIB, **fields: Any
) -> types.Disk:
    """A disk as it is added."""
    given = {"storage_domains": [types.StorageDomain(id=domain.id)], **fields}
    return types.Disk(
        alias=alias, provisioned_size=size_bytes, format=types.DiskFormat.RAW, **given
    )


def until(condition: Callable[[], Any], what: str) -> Any:
    """What a condition returns once it is true."""
    return wait_until(condition, what, WITHIN_S)


def is_ok(disks: Any, disk_id: str) -> Any:
    """A disk, once it is ok; fails at once if it becomes illegal."""

    def look() -> Any:
        disk = disks.disk_service(disk_id).get()
        assert disk.status is not types.DiskStatus.ILLEGAL, disk.alias
        return disk if disk.status is types.DiskStatus.OK else None

    return until(look, f"disk {disk_id} to be ok")


def add_disk(system: Any, alias: str, domain: Any, size_bytes: int = GIB, **fields: Any) -> Any:
    """A disk that is ok."""
    disks = system.disks_service()
    return is_ok(disks, disks.add(new_disk(alias, domain, size_bytes, **fields)).id)


def reckon(system: Any, storage: Storage) -> None:
    """No job goes on, no disk is locked; images and disks are the same, also in size."""

    def over() -> bool:
        jobs = system.jobs_service().list()
        return all(job.status is not types.JobStatus.STARTED for job in jobs)

    until(over, "all jobs to end")
    disks = system.disks_service().list()
    assert {disk.status for disk in disks} <= {types.DiskStatus.OK}
    assert {disk.id: disk.provisioned_size for disk in disks} == storage.images()
