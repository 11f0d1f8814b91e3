# SPDX-License-Identifier: GPL-2.0-or-later
"""A process' end as the kernel tells it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import threading
from collections.abc import Iterator

import pytest

from vdsmcinder.hypervisor import process

THREADS = """
import threading, time
for _ in range(3):
    threading.Thread(target=time.sleep, args=(60,), daemon=True).start()
print("ready", flush=True)
time.sleep(60)
"""


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    """A process of several threads."""
    command = ["/usr/bin/python3", "-c", THREADS]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        child.stdout.readline()
        yield child
        child.kill()


def test_a_process_that_waits_can_run(child: subprocess.Popen[str]) -> None:
    assert process.can_run(child.pid)


def test_one_that_nobody_has_reaped_cannot(child: subprocess.Popen[str]) -> None:
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert not process.can_run(child.pid)


def test_of_one_that_cannot_be_seen_nothing_is_claimed(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.wait()
    assert process.can_run(child.pid)


@pytest.mark.asyncio
async def test_its_end_is_told(child: subprocess.Popen[str]) -> None:
    ended = process.ended(child.pid)
    assert not ended.done()
    child.kill()
    await asyncio.wait_for(ended, 10)


@pytest.mark.asyncio
async def test_a_process_that_is_not_there_has_ended(child: subprocess.Popen[str]) -> None:
    child.kill()
    child.wait()
    assert process.ended(child.pid).done()
    with pytest.raises(ValueError, match="process 0"):
        process.ended(0)


@pytest.mark.asyncio
async def test_a_process_is_watched_closely_without_the_loop(
    child: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long it takes to look at it."""
    loop_thread, looked_in, looked = threading.get_ident(), [], asyncio.Event()
    loop = asyncio.get_running_loop()

    def can_run(_pid: int) -> bool:
        looked_in.append(threading.get_ident())
        loop.call_soon_threadsafe(looked.set)
        return True

    monkeypatch.setattr(process, "can_run", can_run)
    watching = asyncio.create_task(process.cannot_run(child.pid))
    await asyncio.wait_for(looked.wait(), 10)
    assert loop_thread not in looked_in
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


@pytest.mark.asyncio
async def test_that_it_has_ended_is_seen(child: subprocess.Popen[str]) -> None:
    watching = asyncio.create_task(process.cannot_run(child.pid))
    child.kill()
    await asyncio.wait_for(watching, 10)
