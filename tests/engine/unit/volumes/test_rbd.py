# SPDX-License-Identifier: GPL-2.0-or-later
"""What needs no Ceph: names, words, and the process that works on a pool, whatever it does."""

from __future__ import annotations

import asyncio
import base64
import struct
import uuid

import pytest

from cinderengine.errors import EngineError, Incomplete, Unavailable
from cinderengine.model.secret import Secret
from cinderengine.volumes import rbd_faults, rbd_process, rbd_worker
from cinderengine.volumes.addresses import PoolAddress
from cinderengine.volumes.rbd import PoolVolumes, id_of
from cinderengine.volumes.rbd_faults import PoolFault, of_pool

KEY = "AQDuPz9lAAAAABAA7Vg0bQ1r5oY1+0m6p2b1Gg=="
ADDRESS = PoolAddress.of("rbd://mon1/pool")
READY = "import sys, time, json; first = sys.stdin.readline(); print('ready', flush=True)\n"


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Has the worker be another program."""

    def write(source):
        path = tmp_path / "worker.py"
        path.write_text(source)
        monkeypatch.setattr(rbd_process, "PROGRAM", path)

    return write


async def asked(timeout_s=20.0):
    """What a pool comes to that is asked about its room."""
    service = PoolVolumes(ADDRESS, "cinder", Secret(KEY))
    try:
        return await service._ask("room", "reading", timeout_s)
    finally:
        await service.close()


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("raise SystemExit('no librbd')", "python3-rbd"),
        ("print('ready to do nothing')", "did not say that it is ready"),
        (READY, "killed or it crashed"),
        (f"{READY}sys.stdin.readline()\nsys.exit(1)", "killed or it crashed"),
    ],
)
async def test_a_worker_that_ends(program, words, source):
    program(source)
    with pytest.raises(Unavailable, match=words):
        await asked()


async def test_a_worker_that_does_not_begin(program, monkeypatch):
    program("import time; time.sleep(3600)")
    monkeypatch.setattr(rbd_process, "START_TIMEOUT_S", 0.2)
    with pytest.raises(Unavailable, match="did not start"):
        await asked()


async def test_a_worker_that_hangs_is_killed(program):
    program(f"{READY}time.sleep(3600)")
    with pytest.raises(Unavailable, match=r"within 0\.2 s"):
        await asked(0.2)


async def test_those_who_wait_for_a_worker_that_is_killed(program):
    """They are told so at once, and the next one has another."""
    program(
        f"{READY}for line in sys.stdin:\n"
        " r = json.loads(line)\n"
        " if r['op'] == 'check': print(json.dumps({'id': r['id'], 'result': None}), flush=True)\n"
    )
    service = PoolVolumes(ADDRESS, "cinder", Secret(KEY))
    await service.check()
    waiting = asyncio.gather(
        service._ask("room", "reading", 60),
        service._ask("names", "listing", 0.2),
        return_exceptions=True,
    )
    outcomes = await waiting
    assert [type(outcome) for outcome in outcomes] == [Unavailable, Unavailable]
    await service.check()
    await service.close()


async def test_the_key_goes_by_the_pipe_alone(program):
    program(
        f"{READY}line = json.loads(sys.stdin.readline())\n"
        "import os\n"
        "seen = str(sys.argv) + str(os.environ) + open('/proc/self/cmdline').read()\n"
        "key = json.loads(first)['key']\n"
        "print(json.dumps({'id': line['id'], 'result': {\n"
        "  'used': len(key), 'available': int(key in seen)}}), flush=True)\n"
        "sys.stdin.read()"
    )
    assert await asked() == {"used": len(KEY), "available": 0}


@pytest.mark.parametrize(("user", "key"), [("", KEY), ("cinder", "")])
def test_a_pool_needs_a_user_and_a_key(user, key):
    with pytest.raises(Incomplete, match="CEPHX key"):
        PoolVolumes(ADDRESS, user, Secret(key))


def test_the_same_key_has_the_same_id():
    assert id_of("a") == id_of("a") != id_of("b")
    assert str(uuid.UUID(id_of("a"))) == id_of("a")


@pytest.mark.parametrize("kind", [*rbd_faults._KINDS, "something new"])
def test_each_fault_is_a_sentence(kind):
    fault = of_pool(PoolFault(kind, "what\nCeph {says}"), ADDRESS, "cinder", "image volume-1")
    assert isinstance(fault, EngineError)
    assert fault.detail.endswith(".") and "\n" not in fault.detail
    assert "{" not in fault.detail.replace("{says}", "")


def test_each_kind_that_the_worker_tells_has_words():
    told = {*rbd_worker._CONNECTING.values(), *rbd_worker._KINDS.values()}
    told |= {"no_key", "no_pool", "silent", "full", "busy", "snapshots"}
    assert told - {"other"} <= set(rbd_faults._KINDS)


@pytest.mark.parametrize(
    ("text", "good"),
    [
        (KEY, True),
        ("", False),
        ("AQ==", False),
        ("no base64!", False),
        ("ö", False),
        (base64.b64encode(struct.pack("<HIIH", 1, 0, 0, 16) + bytes(15)).decode(), False),
        (base64.b64encode(struct.pack("<HIIH", 1, 0, 0, 16) + bytes(16)).decode(), True),
    ],
)
def test_what_a_key_is(text, good):
    assert rbd_worker.is_key(text) is good


def test_metadata_as_ceph_encodes_them():
    told = struct.pack("<I", 2)
    for text in ("cinder-engine.name", "", "b", "ö"):
        told += rbd_worker._packed(text)
    assert dict(rbd_worker._unpacked(told)) == {"cinder-engine.name": "", "b": "ö"}


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("10.0.0.1:0/123", "10.0.0.1"),
        ("v1:[fd00::1]:0/123", "fd00::1"),
        ("any:10.0.0.1:0/1", "10.0.0.1"),
    ],
)
def test_where_a_watcher_is(text, host):
    assert rbd_worker._host(text) == host
