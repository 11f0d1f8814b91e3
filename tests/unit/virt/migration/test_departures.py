# SPDX-License-Identifier: GPL-2.0-or-later
"""What a host answers that has a copy of a VM: whether that stays where it was."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from vdsmcinder.errors import NoSuchVM
from vdsmcinder.virt.domain.metadata import Debt, MigrationMark, VmMetadata
from vdsmcinder.virt.migration.departures import Departures
from vdsmcinder.virt.migration.incoming.shell import Incoming
from vdsmcinder.virt.migration.migrations import Migrations
from vdsmcinder.virt.migration.outgoing.shell import Outgoing
from vdsmcinder.virt.vm import lifecycle

THIS, OTHER = "0f0e0d0c-0b0a-4908-8706-050403020100", "1f0e0d0c-0b0a-4908-8706-050403020100"
AWAY = lifecycle.migrated_to("host2").exit


class Leaves(Outgoing):
    def __init__(self, migration_id: str) -> None:
        self.id = migration_id


class Comes(Incoming):
    def __init__(self, migration_id: str) -> None:
        self.id = migration_id


@pytest.mark.parametrize(
    ("migration", "ended", "kept"),
    [
        (None, None, True),
        (None, lifecycle.DESTROYED.exit, True),
        (None, lifecycle.DID_NOT_ARRIVE.exit, True),
        (None, AWAY, False),
        (Leaves(THIS), None, False),
        (Leaves(OTHER), None, True),
        # It comes back, so that it may be anywhere.
        (Comes(OTHER), None, False),
    ],
)
def test_whether_a_vm_stays(migration: Any, ended: Any, kept: bool) -> None:
    vm = SimpleNamespace(migration=migration, exit=ended)
    registry: Any = SimpleNamespace(get=lambda vm_id: vm)
    unused: Any = None
    assert Departures(registry, unused, unused).keeps("web", THIS) is kept


async def test_what_was_decided_before_a_restart_is_not_decided_anew() -> None:
    """What is owed is said; that the copy may run must not be."""
    mark = MigrationMark(THIS, "this host", "host2:54321", "confirmed")
    debt = Debt(THIS, "host2:54321", "drop")
    unused: Any = None
    migrations = Migrations.__new__(Migrations)
    migrations.departures = Departures(unused, unused, unused)
    migrations.departures._host_uuid = "this host"
    taken_up: list[str] = []
    migrations.departures.found = lambda vm, mark: taken_up.append(mark.id)  # type: ignore[method-assign]
    for debts, is_taken_up in (((), True), ((debt,), False), ((replace(debt, id=OTHER),), True)):
        told = SimpleNamespace(metadata=VmMetadata(migration=mark, debts=debts))
        vm: Any = SimpleNamespace(domain=told, found=lambda document, change: None)
        assert await migrations.take_up(vm, unused) is is_taken_up
    assert taken_up == [THIS, THIS]


def test_one_that_is_not_here_any_more() -> None:
    def get(_: str) -> Any:
        raise NoSuchVM("there is none")

    registry: Any = SimpleNamespace(get=get)
    unused: Any = None
    with pytest.raises(NoSuchVM):
        Departures(registry, unused, unused).keeps("web", THIS)
