# SPDX-License-Identifier: GPL-2.0-or-later
"""Marks on images of VMs that go on without a copy: which are asked, and what is said of faults."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from vdsmcinder.ceph.fault_kinds import CephFault, Kind
from vdsmcinder.errors import MigrationFailed, ResourceUnavailable
from vdsmcinder.virt.disk.ceph_images import CephImage, CephImages
from vdsmcinder.virt.secrets.secret import Secret, SecretName
from vdsmcinder.virt.storage.kept_marks import KeptMarks

KEY, UNKNOWN = SecretName("12345678-1234-1234-1234-123456789abc"), SecretName("other")
IMAGES = CephImages(
    (
        CephImage("vda", "p/own", user="cinder", secret=KEY),
        CephImage("vdb", "p/shared", user="cinder", secret=KEY, shared=True),
        CephImage("sda", "p/cd", user="cinder", secret=KEY, readonly=True),
        CephImage("vdc", "p/open"),
        CephImage("vdd", "p/without-key", user="cinder", secret=UNKNOWN),
    )
)


class World:
    """Ceph, as workers tell of it, and the keys. marks: by image. fault: what it answers with."""

    def __init__(self) -> None:
        self.marks: dict[str, dict[str, str]] = {}
        self.fault: CephFault | None = None

    async def ask(
        self, _account: object, _key: object, op: str, *, path: str, name: str, text: str = ""
    ) -> str | None:
        if self.fault is not None:
            raise self.fault
        of_image = self.marks.setdefault(path, {})
        if op == "mark":
            of_image[name] = text
        elif op == "unmark":
            of_image.pop(name, None)
        else:
            assert op == "marked"
            return of_image.get(name)
        return None

    def value(self, name: SecretName) -> Secret | None:
        return Secret(b"key") if name == KEY else None


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def marks(world: World) -> KeptMarks:
    ceph: Any = world
    keys: Any = SimpleNamespace(value=world.value)
    return KeptMarks(ceph, keys)


async def test_those_are_marked_that_the_vm_alone_writes_to(world: World, marks: KeptMarks) -> None:
    assert await marks.leave(IMAGES, "1", "it stayed on host1")
    assert set(world.marks) == {"p/own", "p/open"}
    assert await marks.found(IMAGES, "1", MigrationFailed) == "it stayed on host1"
    assert await marks.found(IMAGES, "2", MigrationFailed) is None
    await marks.remove(IMAGES, "1")
    assert await marks.found(IMAGES, "1", MigrationFailed) is None
    assert not any(world.marks.values())


async def test_without_any_of_them_nothing_is_marked(marks: KeptMarks) -> None:
    assert not await marks.leave(CephImages(IMAGES.images[1:3]), "1", "it stayed on host1")
    assert not await marks.leave(CephImages(IMAGES.images[4:]), "1", "it stayed on host1")


async def test_a_ceph_that_does_not_answer(world: World, marks: KeptMarks) -> None:
    world.fault = CephFault(Kind.SILENT)
    assert not await marks.leave(IMAGES, "1", "it stayed on host1")
    await marks.remove(IMAGES, "1")
    with pytest.raises(ResourceUnavailable, match="disk vda"):
        await marks.found(IMAGES, "1", MigrationFailed)
