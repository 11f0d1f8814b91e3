# SPDX-License-Identifier: GPL-2.0-or-later
"""Jobs: killed at every moment of every step, failing at every step, taken over; all end."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import update

from cinderengine.errors import Conflict, EngineError, OutsideError, Unavailable
from cinderengine.jobs import book
from cinderengine.jobs import runner as running
from cinderengine.jobs.actions import Action, AfterFailure, Flow, Planned
from cinderengine.jobs.runner import Moment, Runner
from cinderengine.model.centers import DataCenter
from cinderengine.model.ids import now_ms
from cinderengine.model.jobs import JobStatus, StepStatus
from cinderengine.store import tables
from cinderengine.store.entities import data_centers, jobs
from tests.engine.unit.jobs.killed import Killed, over, runner

STEPS = 3
FORWARD = (Moment.INTENDED, Moment.DID, Moment.MARKED)
BACKWARD = (Moment.BACK, Moment.UNDID, Moment.UNDONE)


class Put(Action):
    """Puts a thing of its key into the world, and a data center of that name into the database."""

    name = "put"

    def __init__(self, world: dict[str, int], failing: int | None = None) -> None:
        self.world = world
        self.failing = failing

    async def do(self, work):
        self.world.setdefault(work.key, 0)
        if work.step.number == self.failing:
            raise OutsideError("the world is full; empty it")
        return {"thing": work.key}

    def done(self, conn, work, result):
        data_centers.insert(conn, DataCenter(work.key, result["thing"]))

    async def undo(self, work):
        self.world.pop(work.key, None)

    def undone(self, conn, work):
        data_centers.delete(conn, work.key)


class Keeping(Put):
    after_failure = AfterFailure.KEEP


class GoingOn(Put):
    after_failure = AfterFailure.GO_ON


class Putting(Flow):
    name = "putting"

    def __init__(self) -> None:
        self.told = []

    def finished(self, conn, job, results):
        self.told.append("finished")

    def failed(self, conn, job, reason, results):
        self.told.append(reason)


def begin(conn, owner):
    job = book.new_job("putting", "Putting things", owner=owner)
    return book.begin(conn, job, [Planned("put", f"thing {n}") for n in range(STEPS)])


async def reckon(store, world):
    """The things of the world, which are those of the database."""
    known = {center.id for center in await store.read(data_centers.all)}
    assert known == set(world)
    return len(known)


async def killed_at(store, flow, action, moment, number):
    first = runner(store, [flow], [action], moment, number)
    job = await first.begin(begin, first.owner)
    with pytest.raises(Killed):
        await first._tasks[job.id]
    return job


async def test_steps_are_done_one_after_the_other(store):
    flow, action = Putting(), Put({})
    jobs_ = runner(store, [flow], [action])
    job = await jobs_.begin(begin, jobs_.owner)
    await jobs_.reached(job.id, 0)
    ended = await jobs_.ended(job.id)
    assert (ended.status, ended.reason, flow.told) == (JobStatus.FINISHED, "", ["finished"])
    assert await reckon(store, action.world) == STEPS
    _, steps = await store.read(book.read, job.id)
    assert {(step.status, step.attempts) for step in steps} == {(StepStatus.DONE, 1)}
    assert all(s.started_ms <= s.ended_ms for s in steps)
    # Who asks later is told the same.
    assert await jobs_.ended(job.id) == ended
    await jobs_.reached(job.id, STEPS - 1)


@pytest.mark.parametrize("number", range(STEPS))
@pytest.mark.parametrize("moment", FORWARD)
async def test_what_a_kill_left_is_finished(store, moment, number):
    flow, action = Putting(), Put({})
    await killed_at(store, flow, action, moment, number)
    job = await over(store, [flow], [action])
    assert (job.status, flow.told) == (JobStatus.FINISHED, ["finished"])
    assert await reckon(store, action.world) == STEPS


@pytest.mark.parametrize("failing", range(STEPS))
async def test_what_fails_is_undone_whole(store, failing):
    flow, action = Putting(), Put({}, failing)
    jobs_ = runner(store, [flow], [action])
    job = await jobs_.begin(begin, jobs_.owner)
    with pytest.raises(OutsideError, match="the world is full; empty it"):
        await jobs_.reached(job.id, failing)
    ended = await jobs_.ended(job.id)
    assert (ended.status, flow.told) == (JobStatus.FAILED, ["the world is full; empty it"])
    assert await reckon(store, action.world) == 0
    with pytest.raises(EngineError, match="the world is full; empty it"):
        await jobs_.reached(job.id, failing)


@pytest.mark.parametrize("number", range(STEPS))
@pytest.mark.parametrize("moment", BACKWARD)
async def test_what_a_kill_left_half_undone_is_undone(store, moment, number):
    flow, action = Putting(), Put({}, STEPS - 1)
    await killed_at(store, flow, action, moment, number)
    job = await over(store, [flow], [action])
    assert (job.status, flow.told) == (JobStatus.FAILED, ["the world is full; empty it"])
    assert await reckon(store, action.world) == 0


@pytest.mark.parametrize(("kind", "stays"), [(Keeping, 1), (GoingOn, STEPS - 1)])
async def test_what_need_not_be_undone_stays(store, kind, stays):
    flow, action = Putting(), kind({}, 1)
    jobs_ = runner(store, [flow], [action])
    job = await jobs_.begin(begin, jobs_.owner)
    ended = await jobs_.ended(job.id)
    failed = kind is Keeping
    assert (ended.status is JobStatus.FAILED) is failed
    assert flow.told == (["the world is full; empty it"] if failed else ["finished"])
    known = await store.read(data_centers.all)
    assert len(known) == stays
    _, steps = await store.read(book.read, job.id)
    assert steps[1].status is StepStatus.LEFT


async def test_a_kill_after_what_need_not_be_undone_changes_nothing(store):
    """The failure is known, its end is not yet."""
    flow, action = Putting(), Keeping({}, 1)
    jobs_ = runner(store, [flow], [action])
    job = await jobs_.begin(begin, jobs_.owner)
    await jobs_.ended(job.id)

    def as_before(conn):
        jobs.update(conn, job.id, status=JobStatus.STARTED)

    await store.write(as_before)
    ended = await over(store, [flow], [action])
    assert (ended.status, len(flow.told)) == (JobStatus.FAILED, 2)
    assert len(await store.read(data_centers.all)) == 1


async def test_what_is_away_is_waited_for(store, monkeypatch):
    monkeypatch.setattr(running, "FIRST_PAUSE_S", 0.01)
    away = ["once", "twice"]

    class Waiting(Put):
        async def do(self, work):
            if away:
                raise Unavailable(f"the world is away ({away.pop()}); wait")
            return await super().do(work)

    flow, action = Putting(), Waiting({})
    jobs_ = runner(store, [flow], [action])
    job = await jobs_.begin(begin, jobs_.owner)
    assert (await jobs_.ended(job.id)).status is JobStatus.FINISHED
    assert away == []


async def test_what_is_away_for_too_long_fails(store, monkeypatch):
    monkeypatch.setattr(running, "FIRST_PAUSE_S", 0.01)

    class Impatient(Put):
        patience_s = 0.05

        async def do(self, work):
            raise Unavailable("the world is away; wait")

    flow, action = Putting(), Impatient({})
    jobs_ = runner(store, [flow], [action])
    job = await jobs_.begin(begin, jobs_.owner)
    assert (await jobs_.ended(job.id)).reason == "the world is away; wait"


async def test_undoing_waits_as_long_as_it_takes(store, monkeypatch):
    monkeypatch.setattr(running, "FIRST_PAUSE_S", 0.01)
    away = ["once", "twice"]

    class Back(Put):
        patience_s = 0.0

        async def undo(self, work):
            if away:
                raise Unavailable(away.pop())
            await super().undo(work)

    action = Back({}, 1)
    jobs_ = runner(store, [Putting()], [action])
    job = await jobs_.begin(begin, jobs_.owner)
    assert (await jobs_.ended(job.id)).status is JobStatus.FAILED
    assert away == []
    assert await reckon(store, action.world) == 0


async def test_what_cannot_be_undone_is_told_and_the_rest_is(store):
    class Stuck(Put):
        async def undo(self, work):
            if work.step.number == 1:
                raise Conflict("the thing is held; let it go")
            await super().undo(work)

    action = Stuck({}, STEPS - 1)
    jobs_ = runner(store, [Putting()], [action])
    job = await jobs_.begin(begin, jobs_.owner)
    await jobs_.ended(job.id)
    _, steps = await store.read(book.read, job.id)
    assert [s.status for s in steps] == [StepStatus.UNDONE, StepStatus.LEFT, StepStatus.UNDONE]
    assert steps[1].reason == "the thing is held; let it go"
    assert await reckon(store, action.world) == 1


async def test_a_fault_of_ours_fails_the_job_and_not_the_engine(store, caplog):
    class Broken(Put):
        async def do(self, work):
            raise ZeroDivisionError

    jobs_ = runner(store, [Putting()], [Broken({})])
    job = await jobs_.begin(begin, jobs_.owner)
    reason = (await jobs_.ended(job.id)).reason
    assert reason.startswith("thing 0 failed inside the engine (ZeroDivisionError); the engine's")
    assert "Traceback" in caplog.text


async def test_a_stop_leaves_the_job_where_it_stands(store):
    class Endless(Put):
        async def do(self, work):
            await asyncio.Event().wait()

    jobs_ = runner(store, [Putting()], [Endless({})])
    job = await jobs_.begin(begin, jobs_.owner)
    waiting = asyncio.ensure_future(jobs_.reached(job.id, 0))
    await asyncio.sleep(0)
    await jobs_.close()
    with pytest.raises(Unavailable, match="the engine is being stopped"):
        await waiting
    flow = Putting()
    ended = await over(store, [flow], [Put({})])
    assert (ended.status, flow.told) == (JobStatus.FINISHED, ["finished"])


async def test_of_two_engines_the_one_that_stood_still_changes_nothing(store):
    """Its lease runs out while it stands; when it goes on, the other one has done all."""
    stands, gate, world, flow = asyncio.Event(), asyncio.Event(), {}, Putting()

    class Standing(Put):
        async def do(self, work):
            stands.set()
            await gate.wait()
            return await super().do(work)

    first = Runner(store, [flow], [Standing(world)], owner="first", alone=False)
    job = await first.begin(begin, "first")
    await stands.wait()
    second = Runner(store, [flow], [Put(world)], owner="second", alone=False)
    await second._take_up()
    assert second.under_way == 0

    def run_out(conn):
        conn.execute(update(tables.jobs).values(lease_until_ms=now_ms() - 1))

    await store.write(run_out)
    await second._take_up()
    assert (await second.ended(job.id)).status is JobStatus.FINISHED
    gate.set()
    with pytest.raises(Unavailable, match=f"another engine process goes on with job {job.id}"):
        await first.ended(job.id)
    assert flow.told == ["finished"]
    assert await reckon(store, world) == STEPS


async def test_jobs_are_forgotten_after_a_while(store):
    jobs_ = runner(store, [Putting()], [Put({})])
    job = await jobs_.begin(begin, jobs_.owner)
    await jobs_.ended(job.id)
    await store.write(book.forget)
    assert len(await store.read(jobs.all)) == 1
    await store.write(jobs.update, job.id, ended_ms=now_ms() - book.FINISHED_MS - 1)
    await store.write(book.forget)
    assert await store.read(jobs.all) == []
