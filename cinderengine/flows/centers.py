# SPDX-License-Identifier: GPL-2.0-or-later
"""Data centers and clusters: rows alone, nothing outside."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sqlalchemy import Connection

from cinderengine.errors import Conflict
from cinderengine.flows.caller import Caller
from cinderengine.flows.finding import named, needed, unused
from cinderengine.flows.told import Code, tell
from cinderengine.model.centers import Cluster, DataCenter
from cinderengine.model.ids import new_id
from cinderengine.store.database import Store
from cinderengine.store.entities import (
    clusters,
    data_centers,
    hosts,
    providers,
    storage_domains,
)

DEFAULT = "Default"


def add_defaults(conn: Connection) -> None:
    """The data center and the cluster that every engine begins with, unless there are any."""
    if not data_centers.count(conn):
        center = data_centers.insert(conn, DataCenter(new_id(), DEFAULT, "The default data center"))
        clusters.insert(conn, Cluster(new_id(), DEFAULT, center.id, "The default cluster"))


class DataCenters:
    """Each method raises NotFound, Incomplete, Invalid or Conflict, and then nothing is changed."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def add(self, new: DataCenter, caller: Caller) -> DataCenter:
        """Add one; its id is made here."""
        return await self._store.write(self._add, new, caller)

    async def edit(self, center_id: str, caller: Caller, **changes: Any) -> DataCenter:
        """Give some of its fields other values."""
        return await self._store.write(self._edit, center_id, caller, changes)

    async def remove(self, center_id: str, caller: Caller) -> None:
        """Remove one that nothing is in."""
        await self._store.write(self._remove, center_id, caller)

    @staticmethod
    def _add(conn: Connection, new: DataCenter, caller: Caller) -> DataCenter:
        unused(conn, data_centers, "data center", name=named(new.name, "data center"))
        center = data_centers.insert(conn, replace(new, id=new_id()))
        tell(
            conn,
            Code.DATA_CENTER_ADDED,
            f"Data center {center.name} was added by {caller.user.principal}.",
            caller,
            data_center_id=center.id,
        )
        return center

    @staticmethod
    def _edit(
        conn: Connection, center_id: str, caller: Caller, changes: dict[str, Any]
    ) -> DataCenter:
        center = replace(needed(conn, data_centers, center_id, "data center"), **changes)
        unused(conn, data_centers, "data center", center_id, name=named(center.name, "data center"))
        data_centers.update(conn, center_id, **changes)
        tell(
            conn,
            Code.DATA_CENTER_EDITED,
            f"Data center {center.name} was edited by {caller.user.principal}.",
            caller,
            data_center_id=center_id,
        )
        return center

    @staticmethod
    def _remove(conn: Connection, center_id: str, caller: Caller) -> None:
        center = needed(conn, data_centers, center_id, "data center")
        for rows, what, remedy in (
            (storage_domains, "storage domains", "detach them"),
            (clusters, "clusters", "remove them, or move them to another data center"),
            (providers, "providers", "remove them, or give them another data center"),
        ):
            if rows.count(conn, data_center_id=center_id):
                raise Conflict(f"data center {center.name} still has {what}; {remedy} first")
        data_centers.delete(conn, center_id)
        tell(
            conn,
            Code.DATA_CENTER_REMOVED,
            f"Data center {center.name} was removed by {caller.user.principal}.",
            caller,
            data_center_id=center_id,
        )


class Clusters:
    """Each method raises NotFound, Incomplete, Invalid or Conflict, and then nothing is changed."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def add(self, new: Cluster, caller: Caller) -> Cluster:
        """Add one; its id is made here."""
        return await self._store.write(self._add, new, caller)

    async def edit(self, cluster_id: str, caller: Caller, **changes: Any) -> Cluster:
        """Give some of its fields other values."""
        return await self._store.write(self._edit, cluster_id, caller, changes)

    async def remove(self, cluster_id: str, caller: Caller) -> None:
        """Remove one that has no hosts."""
        await self._store.write(self._remove, cluster_id, caller)

    @staticmethod
    def _add(conn: Connection, new: Cluster, caller: Caller) -> Cluster:
        unused(conn, clusters, "cluster", name=named(new.name, "cluster"))
        needed(conn, data_centers, new.data_center_id, "data center")
        cluster = clusters.insert(conn, replace(new, id=new_id()))
        tell(
            conn,
            Code.CLUSTER_ADDED,
            f"Cluster {cluster.name} was added by {caller.user.principal}.",
            caller,
            cluster_id=cluster.id,
            data_center_id=cluster.data_center_id,
        )
        return cluster

    @staticmethod
    def _edit(
        conn: Connection, cluster_id: str, caller: Caller, changes: dict[str, Any]
    ) -> Cluster:
        before = needed(conn, clusters, cluster_id, "cluster")
        cluster = replace(before, **changes)
        unused(conn, clusters, "cluster", cluster_id, name=named(cluster.name, "cluster"))
        needed(conn, data_centers, cluster.data_center_id, "data center")
        moves = cluster.data_center_id != before.data_center_id
        if moves and hosts.count(conn, cluster_id=cluster_id):
            raise Conflict(
                f"cluster {before.name} has hosts, which have the keys of its data center; "
                "remove them before it gets another data center"
            )
        clusters.update(conn, cluster_id, **changes)
        tell(
            conn,
            Code.CLUSTER_EDITED,
            f"Cluster {cluster.name} was edited by {caller.user.principal}.",
            caller,
            cluster_id=cluster_id,
        )
        return cluster

    @staticmethod
    def _remove(conn: Connection, cluster_id: str, caller: Caller) -> None:
        cluster = needed(conn, clusters, cluster_id, "cluster")
        if hosts.count(conn, cluster_id=cluster_id):
            raise Conflict(f"cluster {cluster.name} still has hosts; remove them first")
        clusters.delete(conn, cluster_id)
        tell(
            conn,
            Code.CLUSTER_REMOVED,
            f"Cluster {cluster.name} was removed by {caller.user.principal}.",
            caller,
            cluster_id=cluster_id,
        )
