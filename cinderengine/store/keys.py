# SPDX-License-Identifier: GPL-2.0-or-later
"""Which keys which hosts have to have."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import Connection, select

from cinderengine.model.domains import DomainStatus
from cinderengine.model.hosts import Host, HostStatus
from cinderengine.model.providers import AuthenticationKey
from cinderengine.store.entities import authentication_keys, hosts
from cinderengine.store.tables import authentication_keys as keys_table
from cinderengine.store.tables import clusters as clusters_table
from cinderengine.store.tables import hosts as hosts_table
from cinderengine.store.tables import storage_domains as domains_table

# While a domain is one of these, hosts of its data center have the keys of its provider.
NEEDING = (DomainStatus.ACTIVE, DomainStatus.INACTIVE, DomainStatus.LOCKED)


def of_host(conn: Connection, host_id: str) -> Sequence[AuthenticationKey]:
    """The keys that a host must have, and no other ones of ours; by id."""
    query = (
        select(keys_table)
        .join(domains_table, domains_table.c.provider_id == keys_table.c.provider_id)
        .join(clusters_table, clusters_table.c.data_center_id == domains_table.c.data_center_id)
        .join(hosts_table, hosts_table.c.cluster_id == clusters_table.c.id)
        .where(hosts_table.c.id == host_id, domains_table.c.status.in_(NEEDING))
        .order_by(keys_table.c.id)
    )
    return [authentication_keys.of(row) for row in conn.execute(query)]


def hosts_up(conn: Connection, data_center_id: str | None) -> Sequence[Host]:
    """The hosts of a data center that are up, by name."""
    query = (
        select(hosts_table)
        .join(clusters_table, clusters_table.c.id == hosts_table.c.cluster_id)
        .where(
            clusters_table.c.data_center_id == data_center_id,
            hosts_table.c.status == HostStatus.UP,
        )
        .order_by(hosts_table.c.name)
    )
    return [hosts.of(row) for row in conn.execute(query)]
