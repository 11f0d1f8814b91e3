# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may say what becomes of a VM that comes, or has come: its source, of that migration alone."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from vdsmcinder.config import Migration as MigrationOptions
from vdsmcinder.errors import MigrationFailed, NoSuchVM
from vdsmcinder.tasks import Tasks
from vdsmcinder.virt.disk.ceph_images import NO_IMAGES
from vdsmcinder.virt.domain.metadata import MigrationMark, VmMetadata
from vdsmcinder.virt.migration.arrivals import Arrivals
from vdsmcinder.virt.migration.common.context import Counts, Travel
from vdsmcinder.virt.migration.incoming.shell import Incoming
from vdsmcinder.virt.vm.migration import Source, Verdict

VM = "5b7c1c1e-0e0b-4c0a-9a4e-3f1d2a6b8c9d"
THIS, OTHER = "0f0e0d0c-0b0a-4908-8706-050403020100", "1f0e0d0c-0b0a-4908-8706-050403020100"
MARK = MigrationMark(THIS, "a host", "192.0.2.7:54321", "confirmed")


def web(metadata: VmMetadata, migration: object = None) -> Any:
    domain = SimpleNamespace(metadata=metadata)
    status = SimpleNamespace(value="Up")
    return SimpleNamespace(
        id=VM, running=True, began_here_s=None, domain=domain, migration=migration, status=status
    )


def arrivals(*vms: Any) -> Arrivals:
    by_id = {vm.id: vm for vm in vms}
    unused: Any = None
    connection: Any = SimpleNamespace()
    tasks = Tasks("migrations")
    travel = Travel(
        connection,
        unused,
        MigrationOptions(),
        unused,
        Source("host2"),
        unused,
        tasks,
        Counts(),
        unused,
    )
    registry: Any = SimpleNamespace(find=by_id.get, vms=lambda: list(vms))
    return Arrivals(registry, travel, unused, unused, available_mib=lambda: 0, on_arrival=unused)


@pytest.mark.parametrize(
    "vm, ids",
    [
        (web(VmMetadata(arrived_by=THIS)), [THIS]),
        (web(VmMetadata(migration=MARK)), [THIS]),
        (web(VmMetadata(migration=MARK, arrived_by=OTHER)), [THIS, OTHER]),
        (web(VmMetadata()), []),
    ],
)
async def test_a_vm_that_runs_here_is_told_of_by_its_own_migration_alone(vm, ids):
    for migration_id in (THIS, OTHER):
        if migration_id in ids:
            assert await arrivals(vm).conclude(VM, migration_id, Verdict.RUN) is None
        else:
            with pytest.raises(MigrationFailed, match=f"not by migration {migration_id}"):
                await arrivals(vm).conclude(VM, migration_id, Verdict.RUN)


async def test_a_copy_that_waits_is_let_run_by_its_own_migration_alone():
    let_run: list[str] = []

    class Coming(Incoming):
        def __init__(self) -> None:
            self.id = THIS

        async def let_run(self) -> None:
            let_run.append(self.id)

    vm = web(VmMetadata(migration=MARK), Coming())
    with pytest.raises(MigrationFailed, match=f"not by migration {OTHER}"):
        await arrivals(vm).conclude(VM, OTHER, Verdict.RUN)
    assert let_run == []
    await arrivals(vm).conclude(VM, THIS, Verdict.RUN)
    assert let_run == [THIS]


async def test_a_vm_that_is_not_here():
    with pytest.raises(NoSuchVM):
        await arrivals().conclude(VM, THIS, Verdict.RUN)


@pytest.mark.parametrize("kept", ["VM web stayed on host1", None])
async def test_an_outdated_copy_is_not_let_run_whoever_vouches_for_it(kept: str | None) -> None:
    let_run: list[str] = []

    class Coming(Incoming):
        def __init__(self) -> None:
            self.id, self.source = THIS, "host1"
            vm = web(VmMetadata(migration=MARK), self)
            vm.name, vm.domain.ceph = "web", NO_IMAGES
            self.vm = vm

        async def require_whole(self) -> None:
            """It is."""

        async def who_keeps(self) -> str | None:
            return kept

        async def let_run(self) -> None:
            let_run.append(self.id)

    class Sees:
        async def check(self, *_: Any) -> None:
            """Nobody has its images open."""

    coming = Coming()
    of_all = arrivals(coming.vm)
    of_all._preflight = Sees()  # type: ignore[assignment]
    if kept is None:
        await of_all.conclude(VM, None, Verdict.FENCED)
        assert let_run == [THIS]
    else:
        with pytest.raises(MigrationFailed, match=r"written since it was copied \(VM web stayed"):
            await of_all.conclude(VM, None, Verdict.FENCED)
        assert let_run == []
