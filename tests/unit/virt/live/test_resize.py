# SPDX-License-Identifier: GPL-2.0-or-later
"""What QEMU is told of a disk that has grown: never more than its image has."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.rpc.test_wire import UUID, XML
from vdsmcinder.errors import WrongDiskSize
from vdsmcinder.rpc.requests.disk import read_names
from vdsmcinder.virt.domain.domain import Domain
from vdsmcinder.virt.live import resize

MIB = 1024**2
ENCRYPTED = f"<encryption format='luks'><secret type='passphrase' uuid='{UUID}'/></encryption>"


class Vm:
    """A VM whose disk vda is on an image of some size, of which its guest knows some bytes."""

    id = "5b7c1c1e-0e0b-4c0a-9a4e-3f1d2a6b8c9d"

    def __init__(self, found: dict[str, int], known: int, encryption: str = "") -> None:
        self.lock = asyncio.Lock()
        self.domain = Domain.from_xml(XML.replace("</source>", f"{encryption}</source>", 1))
        self.services = SimpleNamespace(ceph=self, secrets=self)
        self.asked: list[dict[str, Any]] = []
        self.told: list[int] = []
        self._found = found
        self._known = known

    def require_running(self, _doing: str) -> None: ...

    def value(self, _uuid: str) -> str:
        return "key"

    async def ask(self, _account: object, _key: object, _op: str, images: Any) -> Any:
        self.asked += images
        return [{"result": self._found}]

    async def call(self, _func: object, _target: str, *size: int) -> int:
        self.told += size
        return self._known


async def extend(vm: Any, size: int) -> int:
    return await resize.extend(vm, read_names({"name": "vda"}), size)


async def test_a_guest_gets_the_size_of_the_image() -> None:
    vm = Vm({"size": 96 * MIB}, known=64 * MIB)
    assert await extend(vm, 96 * MIB) == 96 * MIB
    assert vm.told == [96 * MIB]
    assert vm.asked == [{"path": "volumes/volume-1", "luks": False}]


async def test_of_an_encrypted_disk_it_gets_what_the_header_leaves() -> None:
    vm = Vm({"size": 96 * MIB, "luks_header": 4 * MIB}, known=60 * MIB, encryption=ENCRYPTED)
    # Told again, it is still true.
    for _ in range(2):
        assert await extend(vm, 96 * MIB) == 96 * MIB
    assert vm.told == [92 * MIB] * 2
    assert vm.asked[0]["luks"]


async def test_librbd_is_told_the_size_of_the_image() -> None:
    by_librbd = ENCRYPTED.replace("format", "engine='librbd' format")
    vm = Vm({"size": 96 * MIB}, known=60 * MIB, encryption=by_librbd)
    assert await extend(vm, 96 * MIB) == 96 * MIB
    assert vm.told == [96 * MIB]
    assert not vm.asked[0]["luks"]


async def test_what_is_not_so_is_told_to_nobody() -> None:
    header = {"luks_header": 4 * MIB}
    for found, known, asked, words in (
        ({"size": 96 * MIB}, 64 * MIB, 100 * MIB, "but its image has 100663296"),
        ({"size": 96 * MIB, **header}, 60 * MIB, 92 * MIB, "but its image has 100663296"),
        ({"size": 96 * MIB}, 97 * MIB, 96 * MIB, "cannot shrink"),
        ({"size": 96 * MIB, **header}, 93 * MIB, 96 * MIB, "cannot shrink"),
    ):
        vm = Vm(found, known, ENCRYPTED if header.items() <= found.items() else "")
        with pytest.raises(WrongDiskSize, match=words):
            await extend(vm, asked)
        assert vm.told == []
