# SPDX-License-Identifier: GPL-2.0-or-later
"""How workers are asked, waited for, ended and replaced, with another program in their place.

The functional tests ask the real one about a real cluster.
"""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from vdsmcinder.ceph import workers as module
from vdsmcinder.ceph.fault_kinds import CephFault, Kind
from vdsmcinder.ceph.monitor_address import MonitorHost
from vdsmcinder.ceph.workers import Account, Workers
from vdsmcinder.tasks import Tasks
from vdsmcinder.virt.secrets.secret import Secret

ACCOUNT = Account((MonitorHost("10.0.0.1", 6789), MonitorHost("fd00::1", 3300)), user="cinder")
OTHER = Account((MonitorHost("10.0.0.2"),), user="cinder")
KEY = Secret(b"\0key")
# Answers with its process id, what it read first and the arguments.
STAND_IN = """
import json, os, sys
access = json.loads(sys.stdin.readline())
print("ready", flush=True)
for line in sys.stdin:
    request = json.loads(line)
    if request["op"] == "hang" or os.path.exists(__file__ + ".down"):
        continue
    if request["op"] == "die":
        os._exit(1)
    if request["op"] == "slow":
        told = {"result": [{"result": 1}, {"error": {"kind": "slow", "text": "ETIMEDOUT"}}]}
    elif request["op"] == "fail":
        told = {"error": {"kind": "no_pool", "text": "ENOENT"}}
    else:
        told = {"result": {"pid": os.getpid(), "access": access, "args": request["args"]}}
    print(json.dumps({"id": request["id"], **told}), flush=True)
"""


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "stand_in.py"
    path.write_text(STAND_IN)
    return path


@asynccontextmanager
async def asking(program, idle_s=60.0, timeout_s=20.0):
    workers = Workers(timeout_s, idle_s, Tasks("Ceph"), program)
    try:
        yield workers
    finally:
        await workers.close()


@asynccontextmanager
async def refused(kind):
    with pytest.raises(CephFault) as caught:
        yield
    assert caught.value.kind is kind


async def until(look):
    deadline = time.monotonic() + 30
    while not look():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def lives(pid):
    return Path(f"/proc/{pid}").exists()


def seen_by_others(pid):
    return b"".join(Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "environ"))


async def test_what_a_worker_is_told(program):
    async with asking(program) as workers:
        answer = await workers.ask(ACCOUNT, KEY, "look", images=["a"])
        assert answer["args"] == {"images": ["a"]}
        assert answer["access"] == {
            "mon_host": "10.0.0.1:6789,[fd00::1]:3300",
            "conf_file": None,
            "user": "cinder",
            "key": "AGtleQ==",
            "timeout_s": 14.0,
        }
        assert b"AGtleQ" not in seen_by_others(answer["pid"])
    assert not lives(answer["pid"])


async def test_one_process_for_each_cluster_and_user(program):
    async with asking(program) as workers:
        answers = await asyncio.gather(
            *(workers.ask(account, KEY, "look") for account in (ACCOUNT, ACCOUNT, OTHER))
        )
        pids = [answer["pid"] for answer in answers]
        assert pids[0] == pids[1] != pids[2]
        assert os.getpid() not in pids


async def test_a_new_key_takes_a_new_process(program):
    async with asking(program) as workers:
        old = await workers.ask(ACCOUNT, KEY, "look")
        same = await workers.ask(ACCOUNT, Secret(b"\0key"), "look")
        new = await workers.ask(ACCOUNT, Secret(b"new"), "look")
        assert old["pid"] == same["pid"] != new["pid"]
        await until(lambda: not lives(old["pid"]))


async def test_who_asks_with_another_key_cuts_nobody_short(program):
    async with asking(program) as workers:
        keys = [KEY, Secret(b"new")] * 3
        answers = await asyncio.gather(*(workers.ask(ACCOUNT, key, "look") for key in keys))
        pids = {answer["pid"] for answer in answers}
        assert len(pids) == len(keys)
        await until(lambda: sum(map(lives, pids)) == 1)
        waiting = asyncio.create_task(workers.ask(ACCOUNT, KEY, "hang"))
        await asyncio.sleep(0)
        await workers.ask(ACCOUNT, Secret(b"newer"), "look")
    # Closing ends those that still work, too.
    async with refused(Kind.ENDED):
        await waiting


async def test_faults_are_told_and_cost_no_process(program):
    async with asking(program) as workers:
        before = await workers.ask(ACCOUNT, KEY, "look")
        async with refused(Kind.NO_POOL):
            await workers.ask(ACCOUNT, KEY, "fail")
        assert (await workers.ask(ACCOUNT, KEY, "look"))["pid"] == before["pid"]


async def test_a_client_whose_osds_did_not_answer_is_replaced(program):
    """It may look for them where they are not any more."""
    async with asking(program) as workers:
        before = await workers.ask(ACCOUNT, KEY, "look")
        assert len(await workers.ask(ACCOUNT, KEY, "slow")) == 2
        assert (await workers.ask(ACCOUNT, KEY, "look"))["pid"] != before["pid"]
        assert not lives(before["pid"])


async def test_a_process_that_died_is_replaced(program):
    async with asking(program) as workers:
        waiting = asyncio.create_task(workers.ask(ACCOUNT, KEY, "hang"))
        await asyncio.sleep(0)
        async with refused(Kind.ENDED):
            await workers.ask(ACCOUNT, KEY, "die")
        async with refused(Kind.ENDED):
            await waiting
        assert await workers.ask(ACCOUNT, KEY, "look")


async def test_a_program_that_does_not_work(tmp_path):
    async with asking(tmp_path / "missing.py") as workers:
        with pytest.raises(CephFault, match="are python3-rados and python3-rbd installed"):
            await workers.ask(ACCOUNT, KEY, "look")


async def test_an_overrun_costs_the_process_and_the_deadline_once(program, monkeypatch):
    """Then callers are refused at once, until a probe succeeds."""
    monkeypatch.setattr(module, "PROBE_FIRST_S", 0.05)
    down = program.with_name(f"{program.name}.down")
    async with asking(program, timeout_s=0.3) as workers:
        before = await workers.ask(ACCOUNT, KEY, "look", 20)
        down.touch()
        async with refused(Kind.OVERRUN):
            await workers.ask(ACCOUNT, KEY, "look")
        assert not lives(before["pid"])
        began = time.monotonic()
        for _ in range(50):
            async with refused(Kind.OVERRUN):
                await workers.ask(ACCOUNT, KEY, "look", 20)
        assert time.monotonic() - began < 20
        # Of another cluster's callers none is refused.
        down.unlink()
        assert await workers.ask(OTHER, KEY, "look", 20)

        async def answers():
            try:
                return await workers.ask(ACCOUNT, KEY, "look", 20)
            except CephFault:
                return None

        deadline = time.monotonic() + 30
        while not (after := await answers()):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        assert after["pid"] != before["pid"]


async def test_a_worker_that_nobody_needs_is_ended(program):
    async with asking(program, idle_s=0.2) as workers:
        answer = await workers.ask(ACCOUNT, KEY, "look")
        await until(lambda: not lives(answer["pid"]))
        await until(lambda: not workers.accounts)
        assert await workers.ask(ACCOUNT, KEY, "look")


async def test_nothing_is_left_when_a_probe_is_under_way(program):
    workers = Workers(0.3, 60, Tasks("Ceph"), program)
    program.with_name(f"{program.name}.down").touch()
    async with refused(Kind.OVERRUN):
        await workers.ask(ACCOUNT, KEY, "look")
    await workers.close()
    assert [task for task in asyncio.all_tasks() if task is not asyncio.current_task()] == []


def test_an_account_in_words_shows_no_key():
    assert str(ACCOUNT) == "cinder at 10.0.0.1:6789,[fd00::1]:3300"
    assert str(Account((), "/etc/ceph/b.conf")) == "nobody at /etc/ceph/b.conf"
