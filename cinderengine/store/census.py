# SPDX-License-Identifier: GPL-2.0-or-later
"""How many there are of each kind and status."""

from __future__ import annotations

from collections.abc import Mapping

from sqlalchemy import Connection, func, select

from cinderengine.store import tables

KINDS = {
    "host": tables.hosts,
    "storage_domain": tables.storage_domains,
    "disk": tables.disks,
    "job": tables.jobs,
}


def counts(conn: Connection) -> Mapping[tuple[str, str], int]:
    """By kind and status; a status that none has is left out."""
    return {
        (kind, str(row[0])): row[1]
        for kind, table in KINDS.items()
        for row in conn.execute(select(table.c.status, func.count()).group_by(table.c.status))
    }
