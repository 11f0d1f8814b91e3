# SPDX-License-Identifier: GPL-2.0-or-later
"""Data centers and clusters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from cinderengine.api.resources.attached import ATTACHED_DOMAINS
from cinderengine.api.resources.empty import PERMISSIONS, empty
from cinderengine.api.resources.sent import NAMED, given, reference, referred, text
from cinderengine.api.resources.table import Call, Collection
from cinderengine.api.types import entity as made
from cinderengine.api.types.entity import Entity, entity
from cinderengine.model.centers import Cluster, DataCenter, DataCenterStatus
from cinderengine.model.domains import DomainStatus, StorageDomain
from cinderengine.store.entities import clusters, data_centers, storage_domains

# oVirt's compatibility level that clients are told; they look whether it is new enough.
LEVEL = entity("version", major=4, minor=7)


@dataclass(frozen=True)
class CenterRow:
    """A data center with what its storage domains make it, and their names."""

    center: DataCenter
    status: DataCenterStatus
    storages: tuple[str, ...] = ()


def status_of(domains: Sequence[StorageDomain]) -> DataCenterStatus:
    """A data center's, by its storage domains."""
    statuses = {domain.status for domain in domains}
    if not statuses:
        return DataCenterStatus.UNINITIALIZED
    if DomainStatus.ACTIVE in statuses:
        return DataCenterStatus.UP
    if DomainStatus.INACTIVE in statuses:
        return DataCenterStatus.NOT_OPERATIONAL
    return DataCenterStatus.MAINTENANCE


def _center_rows(conn: Connection) -> Sequence[CenterRow]:
    domains = storage_domains.all(conn)
    return [
        _row(center, [d for d in domains if d.data_center_id == center.id])
        for center in data_centers.all(conn)
    ]


def _center_row(conn: Connection, center_id: str) -> CenterRow | None:
    center = data_centers.get(conn, center_id)
    if center is None:
        return None
    return _row(center, storage_domains.all(conn, data_center_id=center_id))


def _row(center: DataCenter, domains: Sequence[StorageDomain]) -> CenterRow:
    return CenterRow(center, status_of(domains), tuple(domain.name for domain in domains))


async def _centers(call: Call) -> Sequence[CenterRow]:
    return await call.parts.store.read(_center_rows)


async def _center(call: Call) -> CenterRow | None:
    return await call.parts.store.read(_center_row, call.id("datacenters"))


def _show_center(call: Call, row: CenterRow) -> Entity:
    center = row.center
    return entity(
        "data_center",
        id=center.id,
        href=made.below("/datacenters", center.id),
        name=center.name,
        description=center.description,
        comment=center.comment,
        local=False,
        status=row.status.value,
        quota_mode="disabled",
        storage_format="v5",
        version=LEVEL,
        supported_versions=(LEVEL,),
    )


async def _add_center(call: Call, sent: Entity) -> CenterRow:
    new = DataCenter("", text(sent, "name", "one that no other has"), **_rest(sent))
    center = await call.parts.data_centers.add(new, call.caller)
    return CenterRow(center, DataCenterStatus.UNINITIALIZED)


async def _edit_center(call: Call, sent: Entity) -> CenterRow:
    center_id = call.id("datacenters")
    await call.parts.data_centers.edit(center_id, call.caller, **given(sent, NAMED))
    row = await call.parts.store.read(_center_row, center_id)
    assert row is not None
    return row


async def _remove_center(call: Call) -> None:
    await call.parts.data_centers.remove(call.id("datacenters"), call.caller)


def _rest(sent: Entity) -> dict[str, str]:
    return given(sent, {"description": "description", "comment": "comment"})


@dataclass(frozen=True)
class ClusterRow:
    """A cluster, and the name of its data center."""

    cluster: Cluster
    center: str = ""


def _clusters_in(conn: Connection, center_id: str | None) -> Sequence[ClusterRow]:
    names = {center.id: center.name for center in data_centers.all(conn)}
    found = clusters.all(conn, **({"data_center_id": center_id} if center_id else {}))
    return [ClusterRow(cluster, names.get(cluster.data_center_id, "")) for cluster in found]


async def _clusters(call: Call) -> Sequence[ClusterRow]:
    return await call.parts.store.read(_clusters_in, call.ids.get("datacenters"))


async def _cluster(call: Call) -> ClusterRow | None:
    found = await call.parts.store.read(clusters.get, call.id("clusters"))
    center_id = call.ids.get("datacenters")
    return ClusterRow(found) if found and center_id in {None, found.data_center_id} else None


def _show_cluster(call: Call, row: ClusterRow) -> Entity:
    cluster = row.cluster
    return entity(
        "cluster",
        id=cluster.id,
        href=made.below("/clusters", cluster.id),
        name=cluster.name,
        description=cluster.description,
        comment=cluster.comment,
        cpu=entity("cpu", type=cluster.cpu_type or None, architecture=cluster.cpu_architecture),
        data_center=made.reference("data_center", cluster.data_center_id, "/datacenters"),
        version=LEVEL,
        virt_service=True,
        gluster_service=False,
        threads_as_cores=False,
        ballooning_enabled=False,
        trusted_service=False,
        tunnel_migration=False,
        ha_reservation=False,
        switch_type="legacy",
        firewall_type="firewalld",
    )


async def _add_cluster(call: Call, sent: Entity) -> ClusterRow:
    name = text(sent, "name", "one that no other has")
    if call.ids.get("datacenters"):
        center_id = call.id("datacenters")
    else:
        wanted = reference(sent, "data_center", "the id or the name of one")
        center_id = (await call.parts.store.read(referred, data_centers, wanted)).id
    new = Cluster("", name, center_id, **_rest(sent), **_processor(sent))
    return ClusterRow(await call.parts.clusters.add(new, call.caller))


async def _edit_cluster(call: Call, sent: Entity) -> ClusterRow:
    changes = {**given(sent, NAMED), **_processor(sent)}
    wanted = sent.one("data_center")
    if wanted is not None:
        center = await call.parts.store.read(referred, data_centers, wanted)
        changes["data_center_id"] = center.id
    return ClusterRow(await call.parts.clusters.edit(call.id("clusters"), call.caller, **changes))


async def _remove_cluster(call: Call) -> None:
    await call.parts.clusters.remove(call.id("clusters"), call.caller)


def _processor(sent: Entity) -> dict[str, str]:
    cpu = sent.one("cpu")
    names = {"type": "cpu_type", "architecture": "cpu_architecture"}
    return given(cpu, names) if cpu is not None else {}


CLUSTERS = Collection(
    "clusters",
    "cluster",
    rows=_clusters,
    row=_cluster,
    show=_show_cluster,
    add=_add_cluster,
    edit=_edit_cluster,
    remove=_remove_cluster,
    fields={
        "name": lambda row: row.cluster.name,
        "id": lambda row: row.cluster.id,
        "description": lambda row: row.cluster.description,
        "comment": lambda row: row.cluster.comment,
        "datacenter": lambda row: row.center,
        "datacenter.name": lambda row: row.center,
    },
    under=(
        empty("networks", "network"),
        PERMISSIONS,
        empty("affinitygroups", "affinity_group"),
        empty("cpuprofiles", "cpu_profile"),
    ),
)

DATA_CENTERS = Collection(
    "datacenters",
    "data_center",
    rows=_centers,
    row=_center,
    show=_show_center,
    add=_add_center,
    edit=_edit_center,
    remove=_remove_center,
    fields={
        "name": lambda row: row.center.name,
        "id": lambda row: row.center.id,
        "description": lambda row: row.center.description,
        "comment": lambda row: row.center.comment,
        "status": lambda row: row.status.value,
        "storage": lambda row: row.storages,
        "storage.name": lambda row: row.storages,
    },
    under=(
        ATTACHED_DOMAINS,
        CLUSTERS,
        empty("networks", "network"),
        PERMISSIONS,
        empty("quotas", "quota"),
        empty("qoss", "qos"),
        empty("iscsibonds", "iscsi_bond"),
    ),
)
