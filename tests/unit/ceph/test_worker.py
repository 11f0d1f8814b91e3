# SPDX-License-Identifier: GPL-2.0-or-later
"""What ceph/worker.py asks of a cluster, in which order and as which client, with stand-ins for
librados and librbd: what cannot be timed on a real one. The functional tests have that.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from vdsmcinder.ceph.workers import PROGRAM

CLAIM = {"cookie": "vm", "owner": "VM x on host1", "duration_s": 30}
POOLS = {"volumes": 1, "data": 2}
UNPARSABLE, DENIED = -22, -13


class Ceph:
    """A cluster: what each client did, and what becomes of it.

    flags: of pools. blocklisters, writers: from which client on those rights are had.
    """

    def __init__(self) -> None:
        self.did: list[tuple[Any, ...]] = []
        self.clients = 0
        self.flags: dict[str, str] = {}
        self.blocklisters = self.writers = 1

    def connect(self) -> Client:
        self.clients += 1
        return Client(self, self.clients)


class Client:
    """A connection, with the rights of its time."""

    def __init__(self, ceph: Ceph, number: int) -> None:
        self.ceph = ceph
        self.number = number

    def mon_command(self, command: str, _data: bytes) -> tuple[int, bytes, str]:
        asked = json.loads(command)["prefix"]
        self.ceph.did.append((self.number, asked))
        if asked == "osd blocklist":
            code = UNPARSABLE if self.number >= self.ceph.blocklisters else DENIED
            return code, b"", "unable to parse address"
        pools = [
            {"pool_name": n, "flags_names": self.ceph.flags.get(n, "hashpspool")} for n in POOLS
        ]
        return 0, json.dumps(pools).encode(), ""

    def open_ioctx(self, pool: str) -> Ioctx:
        return Ioctx(self, pool)

    def get_addrs(self) -> str:
        return "v1:10.0.0.1:0/1"

    def pool_reverse_lookup(self, pool_id: int) -> str:
        return next(name for name, number in POOLS.items() if number == pool_id)


class Ioctx:
    """A pool as a client has it."""

    def __init__(self, client: Client, pool: str) -> None:
        self._client, self._pool, self._namespace = client, pool, ""
        self._waits = True

    def __enter__(self) -> Ioctx:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def set_osdmap_full_try(self) -> None:
        self._waits = False

    def set_namespace(self, name: str) -> None:
        self._namespace = name

    def get_namespace(self) -> str:
        return self._namespace

    def get_pool_name(self) -> str:
        return self._pool

    def get_pool_id(self) -> int:
        return POOLS[self._pool]

    def lock_exclusive(self, *_: object) -> None:
        self._write("lock")

    def unlock(self, *_: object) -> None:
        self._write("unlock")

    def remove_object(self, name: str) -> None:
        self._write(f"remove {self._namespace}/{name}")
        raise sys.modules["rados"].ObjectNotFound(name)

    def _write(self, what: str) -> None:
        assert not self._waits, "this waits for room in a pool that is full"
        ceph, number = self._client.ceph, self._client.number
        ceph.did.append((number, what, self._pool))
        if number < ceph.writers:
            raise sys.modules["rados"].PermissionError("no")


class Image:
    """One whose name says what it is like: "apart" has its data in a pool of its own."""

    def __init__(self, _ioctx: Ioctx, name: str, *, read_only: bool) -> None:
        assert read_only
        self._name = name

    def __enter__(self) -> Image:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def features(self) -> int:
        return 1 if self._name == "unlocked" else 61

    def data_pool_id(self) -> int:
        return POOLS["data" if self._name == "apart" else "volumes"]

    def size(self) -> int:
        return 1

    def watchers_list(self) -> list[Any]:
        return []

    def list_lockers(self) -> list[Any]:
        return []

    def old_format(self) -> bool:
        return False

    def id(self) -> str:
        return "1f"

    def block_name_prefix(self) -> str:
        return "rbd_data.1.1f"


def stand_ins() -> dict[str, ModuleType]:
    rados, rbd = ModuleType("rados"), ModuleType("rbd")
    for module, names in (
        (rados, "Error ObjectNotFound ObjectBusy PermissionError PermissionDeniedError"),
        (rbd, "Error ImageNotFound"),
    ):
        for name in names.split():
            setattr(module, name, type(name, (Exception,), {}))
    rbd.Image = Image  # type: ignore[attr-defined]
    rbd.RBD_FEATURE_EXCLUSIVE_LOCK = 4  # type: ignore[attr-defined]
    return {"rados": rados, "rbd": rbd}


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    for name, module in stand_ins().items():
        monkeypatch.setitem(sys.modules, name, module)
    spec = importlib.util.spec_from_file_location("worker", Path(PROGRAM))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    yield module


@pytest.fixture
def ceph(worker: ModuleType, monkeypatch: pytest.MonkeyPatch) -> Ceph:
    ceph = Ceph()
    monkeypatch.setattr(worker.Cluster, "_connect", lambda _self: ceph.connect())
    return ceph


@pytest.fixture
def images(worker: ModuleType, ceph: Ceph) -> Any:
    return worker.Images(worker.Cluster({}))


def look(images: Any, *paths: str, writes: bool = True) -> list[Any]:
    """What is told of images that are to be written to, or its error's kind."""
    asked = [{"path": path, "claim": CLAIM if writes else None, "writes": writes} for path in paths]
    answers = images.inspect(images=asked)
    return [a["result"] if "result" in a else a["error"]["kind"] for a in answers]


def done(ceph: Ceph) -> list[tuple[Any, ...]]:
    """What clients did since this was last asked, but looking at the pools."""
    did = [what for what in ceph.did if what[1] != "osd pool ls"]
    ceph.did.clear()
    return did


def test_a_right_is_asked_for_once_if_it_is_had(images, ceph):
    for _ in range(2):
        assert [found["may_blocklist"] for found in look(images, "volumes/a")] == [True]
    assert [what for what in done(ceph) if what[1] == "osd blocklist"] == [(1, "osd blocklist")]


def test_a_right_that_was_given_since_this_client_connected_counts(images, ceph):
    ceph.blocklisters = 3
    assert look(images, "volumes/a")[0]["may_blocklist"] is False
    assert look(images, "volumes/a")[0]["may_blocklist"] is True
    assert [what for what in done(ceph) if what[1] == "osd blocklist"] == [
        (number, "osd blocklist") for number in (1, 2, 2, 3)
    ]


def test_that_a_right_is_lacking_is_not_asked_at_each_round(images, ceph):
    ceph.blocklisters = 9
    cluster = images._cluster
    assert cluster.may_blocklist(600) is False
    asked = len(done(ceph))
    assert cluster.may_blocklist(600) is False
    assert (asked, done(ceph)) == (2, [])


def test_no_right_is_asked_for_where_none_is_needed(images, ceph):
    look(images, "volumes/a", writes=False)
    assert done(ceph) == []
    ceph.blocklisters = 9
    assert look(images, "volumes/unlocked")[0]["may_blocklist"] is True


def test_who_may_not_write_is_looked_at_as_a_new_client(images, ceph):
    """Its claim, which the new client made, is the new client's to give back."""
    look(images, "volumes/a")
    done(ceph)
    ceph.writers = 2
    assert look(images, "volumes/b")[0]["size"] == 1
    assert done(ceph) == [(1, "lock", "volumes"), (2, "lock", "volumes")]
    ceph.writers = 1
    for name, number in (("a", 1), ("b", 2)):
        images.renew(path=f"volumes/{name}", claim=CLAIM)
        images.release(path=f"volumes/{name}", claim=CLAIM)
        assert done(ceph) == [(number, "lock", "volumes"), (number, "unlock", "volumes")]
    ceph.writers = 9
    assert look(images, "volumes/b") == ["denied_write"]


def test_what_is_claimed_is_claimed_anew_by_the_client_that_has_it(images, ceph):
    """Another would find it claimed. Who may not blocklist is asked about as a new client."""
    ceph.blocklisters = 9
    for _ in range(2):
        look(images, "volumes/a")
    assert [what for what in done(ceph) if what[1] == "lock"] == [(2, "lock", "volumes")] * 2


def test_the_pool_of_the_data_has_to_be_writable(images, ceph):
    assert look(images, "volumes/ns/apart")[0]["size"] == 1
    assert done(ceph)[1:] == [
        (1, "remove ns/rbd_data.1.1f.vdsm-cinder", "data"),
        (1, "lock", "volumes"),
    ]
    ceph.writers = 9
    assert look(images, "volumes/apart") == ["denied_data"]


@pytest.mark.parametrize(
    ("flags", "room"),
    [
        ("hashpspool,full,full_quota,selfmanaged_snaps", "quota"),
        ("hashpspool,full,selfmanaged_snaps", "full"),
        ("hashpspool,backfillfull,selfmanaged_snaps", "scarce"),
        ("hashpspool,nearfull,selfmanaged_snaps", "scarce"),
        ("hashpspool,selfmanaged_snaps,nodelete", None),
    ],
)
def test_pools_that_lack_room_are_told_and_locks_wait_for_none(images, ceph, flags, room):
    for pool, name in (("volumes", "a"), ("data", "apart")):
        ceph.flags = {pool: flags}
        (found,) = look(images, f"volumes/{name}")
        assert found["room"] == ({pool: room} if room else {})
        assert done(ceph)[-1] == (1, "lock", "volumes")
