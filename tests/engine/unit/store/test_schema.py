# SPDX-License-Identifier: GPL-2.0-or-later
"""The schema: migrations lead to the tables as they are, and columns to the entities' fields."""

from __future__ import annotations

import dataclasses

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext

from cinderengine.model.centers import Cluster, DataCenter
from cinderengine.model.disks import Disk, DiskStatus
from cinderengine.model.domains import StorageDomain
from cinderengine.model.events import Event, Severity
from cinderengine.model.hosts import Host
from cinderengine.model.jobs import Job, Step
from cinderengine.model.providers import AuthenticationKey, Provider
from cinderengine.model.users import Token, User
from cinderengine.store import entities, schema, tables
from cinderengine.store.rows import Rows

ROWS = [rows for rows in vars(entities).values() if isinstance(rows, Rows)]
# One of each, in an order in which they can be added.
EXAMPLES = {
    "data_centers": DataCenter("d", "Default"),
    "clusters": Cluster("c", "Default", "d"),
    "hosts": Host("h", "host1", "10.0.0.1", "c"),
    "providers": Provider("p", "ceph", "rbd://mon/volumes", data_center_id="d"),
    "authentication_keys": AuthenticationKey("k", "p", "u", "sealed"),
    "storage_domains": StorageDomain("s", "ceph", "p"),
    "disks": Disk("v", "disk", "s", 1 << 40, "v"),
    "users": User("a", "admin"),
    "tokens": Token("t", "a", "ovirt-app-api", 1, 2, 3),
    "jobs": Job("j", "disks.add", "Adding disk", {"size": 1, "names": ["ä"]}),
    "steps": Step("j.0", "j", 0, "create", "Creating the volume"),
    "events": Event(1, Severity.NORMAL, "told", 1, id=7),
}


def test_migrations_lead_to_the_tables_as_they_are(store):
    with store.engine.connect() as conn:
        context = MigrationContext.configure(conn, opts={"compare_type": True})
        assert compare_metadata(context, tables.metadata) == []
        assert schema.version(conn) == schema.newest()


def test_every_table_has_its_entity():
    assert {rows.table.name for rows in ROWS} == set(tables.metadata.tables) == set(EXAMPLES)


@pytest.mark.parametrize("rows", ROWS, ids=lambda rows: rows.table.name)
def test_columns_are_the_fields(rows):
    fields = {field.name for field in dataclasses.fields(rows.kind)}
    assert {column.name for column in rows.table.columns} == fields


async def test_what_goes_in_comes_out(store):
    by_name = {rows.table.name: rows for rows in ROWS}
    for name, example in EXAMPLES.items():
        assert await store.write(by_name[name].insert, example) == example
        assert await store.read(by_name[name].all) == [example]


async def test_changes_and_counts(store):
    for name in ("data_centers", "providers", "storage_domains", "disks"):
        rows = getattr(entities, name)
        await store.write(rows.insert, EXAMPLES[name])

    def change(conn):
        assert entities.disks.update(conn, "v", status=DiskStatus.OK)
        assert entities.disks.update(conn, "v")
        assert not entities.disks.update(conn, "x")
        assert entities.disks.update_where(conn, {"domain_id": "s"}) == 1
        assert not entities.disks.update(conn, "x", status=DiskStatus.OK)
        assert entities.disks.count(conn, status=DiskStatus.OK) == 1
        assert entities.disks.find(conn, alias="disk").status is DiskStatus.OK
        assert entities.disks.update_where(conn, {"domain_id": "s"}, alias="other") == 1
        assert entities.disks.delete(conn, "v")
        assert not entities.disks.delete(conn, "v")

    await store.write(change)


async def test_events_count_up_and_no_number_comes_twice(store):
    event = Event(1, Severity.NORMAL, "told", 1)
    first = await store.write(entities.events.insert, event)
    await store.write(entities.events.delete, first.id)
    second = await store.write(entities.events.insert, event)
    assert (first.id, second.id) == (1, 2)
