# SPDX-License-Identifier: GPL-2.0-or-later
"""The owner of tasks: what it starts is named, logged when it fails, and gone when it is closed."""

from __future__ import annotations

import ast
import asyncio
import logging

import pytest

from tests.pages import REPOSITORY
from tests.unit.whole import running
from vdsmcinder.tasks import Tasks, ends_within, within

# What makes a task that somebody has to own, and what loses a cancellation.
CREATE = {"create_task", "ensure_future", "run_coroutine_threadsafe", "wait_for"}


def test_nobody_else_creates_tasks() -> None:
    package = REPOSITORY / "vdsmcinder"
    creating = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute) and node.attr in CREATE and _of_asyncio(node)
    }
    assert creating == {"tasks.py"}


def _of_asyncio(node: ast.Attribute) -> bool:
    """Also of its loop; not a method of that name of something else's."""
    return node.attr != "wait_for" or ast.unparse(node.value) == "asyncio"


async def test_a_daemon_that_is_closed_leaves_nothing_running(tmp_path) -> None:
    known = asyncio.all_tasks()
    async with running(tmp_path) as whole:
        session = await whole.client()
        await session.subscribe_events()
        await session.call("Host.getCapabilities")
        await whole.health()
        await whole.metrics()
        began = {task.get_name().partition(":")[0] for task in asyncio.all_tasks() - known}
        # Each part's tasks are named for it.
        assert {"libvirt", "clusters", "VM statistics", "supervision", "certificates"} <= began
    await session.close()
    assert asyncio.all_tasks() == known


async def _for_ever(ended: asyncio.Event | None = None) -> None:
    try:
        await asyncio.Event().wait()
    finally:
        if ended is not None:
            ended.set()


async def _fail() -> None:
    raise ValueError("no good")


async def test_closing_ends_what_runs_in_it_and_in_its_groups() -> None:
    known = asyncio.all_tasks()
    tasks = Tasks("daemon")
    inner = tasks.group("VMs").group("one VM")
    for owner in (tasks, inner):
        owner.spawn(_for_ever(), "waits")
    assert (tasks.count, inner.count) == (2, 1)
    await tasks.close()
    assert asyncio.all_tasks() == known
    assert tasks.count == 0


async def test_closing_waits_for_those_who_take_their_time_to_end() -> None:
    done = asyncio.Event()

    async def tidy_up() -> None:
        try:
            await _for_ever()
        finally:
            await asyncio.sleep(0.01)
            done.set()

    async with Tasks("daemon") as tasks:
        tasks.spawn(tidy_up(), "tidies up")
        await asyncio.sleep(0)
    assert done.is_set()


async def test_nothing_begins_once_it_has_ended() -> None:
    tasks = Tasks("daemon")
    tasks.end()
    began = []

    async def begin() -> None:
        began.append(True)

    late = tasks.spawn(begin(), "late"), tasks.group("late, too").spawn(begin(), "late")
    await asyncio.wait(late)
    assert began == [] and all(task.cancelled() for task in late)


async def test_a_task_may_close_its_own_owner() -> None:
    tasks, ended = Tasks("daemon"), asyncio.Event()
    tasks.spawn(_for_ever(ended), "waits")

    async def close() -> str:
        await tasks.close()
        return "goes on"

    assert await tasks.begin(close(), "closes") == "goes on"
    assert ended.is_set()


async def test_a_group_that_is_over_is_forgotten() -> None:
    tasks = Tasks("daemon")
    for _ in range(3):
        group = tasks.group("one VM")
        group.spawn(_for_ever(), "waits")
        group.end()
        await group.close()
    assert tasks._groups == set()
    await tasks.close()


async def test_a_failure_that_nobody_waits_for_is_logged_with_its_task(caplog) -> None:
    tasks = Tasks("statistics")
    await asyncio.wait({tasks.spawn(_fail(), "VM 7")})
    (record,) = caplog.records
    assert (record.levelno, record.getMessage()) == (
        logging.ERROR,
        "statistics: VM 7: it ended unexpectedly",
    )
    assert record.exc_info[1].args == ("no good",)


async def test_a_failure_that_is_waited_for_is_not_logged(caplog) -> None:
    tasks = Tasks("statistics")
    with pytest.raises(ValueError, match="no good"):
        await tasks.begin(_fail(), "VM 7")
    assert caplog.records == []


async def test_what_is_under_way_may_finish_and_what_follows_it(caplog) -> None:
    tasks, finished = Tasks("requests"), []

    async def work(more: int) -> None:
        if more:
            tasks.spawn(work(more - 1), "next")
        await asyncio.sleep(0.01)
        finished.append(more)

    tasks.spawn(work(2), "first")
    await tasks.finish(10)
    assert finished == [2, 1, 0]
    tasks = Tasks("requests")
    tasks.spawn(_for_ever(), "waits")
    await tasks.finish(0.01)
    assert [record.getMessage() for record in caplog.records] == [
        "1 requests were still under way after 0 s; they are cancelled"
    ]


async def test_what_does_not_end_in_time_is_left() -> None:
    async def heedless() -> None:
        with pytest.raises(asyncio.CancelledError):
            await asyncio.Event().wait()
        await gate.wait()

    gate = asyncio.Event()
    known = asyncio.all_tasks()
    assert not await ends_within(heedless(), 0.01)
    (left,) = asyncio.all_tasks() - known
    left.cancel()
    gate.set()
    await left
    assert await ends_within(asyncio.sleep(0), 10)
    with pytest.raises(ValueError, match="no good"):
        await ends_within(_fail(), 10)


async def test_a_cancellation_in_the_moment_in_which_it_is_done_is_not_lost() -> None:
    """asyncio.wait_for before Python 3.12 loses it, and what is in a loop never ends."""
    done, undone = asyncio.get_running_loop().create_future(), []
    async with Tasks("test") as tasks:
        waiting = tasks.begin(within(done, 60, undone.append))
        await asyncio.sleep(0)
        done.set_result("a connection")
        # It has been told and has not gone on yet.
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait({waiting})
    assert waiting.cancelled()
    assert undone == ["a connection"]


async def test_what_is_waited_for_ends_with_whoever_waits() -> None:
    ended, undone = asyncio.Event(), []
    async with Tasks("test") as tasks:
        waiting = tasks.begin(within(_for_ever(ended), None, undone.append))
        await asyncio.sleep(0.01)
        waiting.cancel()
        await asyncio.wait({waiting})
    assert waiting.cancelled() and ended.is_set() and undone == []


async def test_what_takes_too_long_ends_before_that_is_told() -> None:
    ended = asyncio.Event()
    with pytest.raises(asyncio.TimeoutError):
        await within(_for_ever(ended), 0.01)
    assert ended.is_set()


async def test_what_is_done_in_time_is_what_it_came_to() -> None:
    assert await within(asyncio.sleep(0, "done"), 60) == "done"
    assert await within(asyncio.sleep(0, "done"), None) == "done"

    async def fail() -> None:
        raise ValueError("no good")

    with pytest.raises(ValueError, match="no good"):
        await within(fail(), 60)
