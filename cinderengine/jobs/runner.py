# SPDX-License-Identifier: GPL-2.0-or-later
"""Runs jobs, each in a task of its own, from wherever they stand.

How to read a job's course: forward, the first step that is not done is intended, done outside, and
marked together with its change of the database. When one fails, the job turns: from there back
each step that may have taken effect is undone. What is outside and Unavailable is waited for.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from enum import Enum
from typing import Concatenate, ParamSpec

from sqlalchemy import Connection

from cinderengine.errors import EngineError, Unavailable
from cinderengine.jobs import book
from cinderengine.jobs.actions import Action, AfterFailure, Flow, Result, Work
from cinderengine.jobs.book import Taken
from cinderengine.model.ids import now_ms
from cinderengine.model.jobs import Job, JobStatus, Step, StepStatus
from cinderengine.store.database import Store

P = ParamSpec("P")

log = logging.getLogger(__name__)

LOOK_S = book.LEASE_MS / 1000 / 3
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 30.0
# How long whoever waits for a step that failed is kept waiting for the job's end.
END_WITHIN_S = 5.0
_OPEN = (StepStatus.WAITING, StepStatus.INTENDED)
_WERE_DONE = (StepStatus.DONE, StepStatus.BACK, StepStatus.UNDONE)
_TO_UNDO = (StepStatus.DONE, StepStatus.INTENDED, StepStatus.BACK)


class Moment(Enum):
    """Where a process may be killed."""

    INTENDED = "the step is intended, nothing is done"
    DID = "it is done outside, and not marked"
    MARKED = "it is marked"
    BACK = "it is to be undone, nothing is"
    UNDID = "it is undone outside, and not marked"
    UNDONE = "it is marked as undone"


class _Course:
    """How far a job is that goes on here, for those who wait for it."""

    def __init__(self) -> None:
        self.ended: asyncio.Future[Job] = asyncio.get_running_loop().create_future()
        self._reached: dict[int, asyncio.Future[None]] = {}
        self._failure: BaseException | None = None

    def at(self, number: int) -> asyncio.Future[None]:
        """Done when that step is, or will not be."""
        if number not in self._reached:
            self._reached[number] = asyncio.get_running_loop().create_future()
            if self._failure is not None:
                self._reached[number].set_exception(self._failure)
        return self._reached[number]

    def reach(self, number: int) -> None:
        self.at(number).set_result(None)

    def fail(self, error: BaseException) -> None:
        """No further step will be done, because of that; the first reason stands."""
        self._failure = self._failure or error
        for future in self._reached.values():
            if not future.done():
                future.set_exception(self._failure)

    def end(self, error: BaseException | None = None, job: Job | None = None) -> None:
        if error is not None:
            self.fail(error)
            self.ended.set_exception(error)
            # Nobody need have waited for it.
            self.ended.exception()
        elif job is not None:
            self.ended.set_result(job)


class Runner:
    """Of one engine process. owner: its name, never used before. alone: there is no other one.

    at: called at each Moment of a step; for tests.
    """

    def __init__(
        self,
        store: Store,
        flows: Iterable[Flow],
        actions: Iterable[Action],
        *,
        owner: str,
        alone: bool = True,
        at: Callable[[Moment, Step], None] = lambda moment, step: None,
    ) -> None:
        self.owner = owner
        self._store = store
        self._flows = {flow.name: flow for flow in flows}
        self._actions = {action.name: action for action in actions}
        self._alone = alone
        self._at = at
        self._courses: dict[str, _Course] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take up what an earlier process left, and go on taking up what others leave."""
        await self._take_up()
        self._keeper = asyncio.create_task(self._keep(), name="jobs")

    async def close(self) -> None:
        """Stop where each job stands; the next process goes on there."""
        tasks = [*self._tasks.values(), *([self._keeper] if self._keeper else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def begin(
        self, change: Callable[Concatenate[Connection, P], Job], *args: P.args, **named: P.kwargs
    ) -> Job:
        """Commit a change that ends with book.begin(), and do that job in the background."""
        job = await self._store.write(change, *args, **named)
        self._go_on(job.id)
        return job

    async def reached(self, job_id: str, number: int) -> None:
        """Wait until a step of a job is done. Raises what it failed of, EngineError.

        Then the job is over as well, unless what it undoes takes long.
        """
        course = self._courses.get(job_id)
        if course is None:
            job, steps = await self._store.read(book.read, job_id)
            if job.reason and steps[number].status is not StepStatus.DONE:
                raise EngineError(job.reason)
            return
        try:
            await asyncio.shield(course.at(number))
        except EngineError:
            with contextlib.suppress(TimeoutError, EngineError):
                async with asyncio.timeout(END_WITHIN_S):
                    await asyncio.shield(course.ended)
            raise

    async def ended(self, job_id: str) -> Job:
        """Wait until a job is over; the job as it is then."""
        course = self._courses.get(job_id)
        if course is not None:
            return await asyncio.shield(course.ended)
        job, _ = await self._store.read(book.read, job_id)
        return job

    @property
    def under_way(self) -> int:
        """How many jobs go on here."""
        return len(self._tasks)

    def _go_on(self, job_id: str) -> None:
        if job_id not in self._tasks:
            self._courses[job_id] = _Course()
            self._tasks[job_id] = asyncio.create_task(self._run(job_id), name=f"job {job_id}")
            self._tasks[job_id].add_done_callback(lambda _: self._drop(job_id))

    def _drop(self, job_id: str) -> None:
        del self._tasks[job_id]
        del self._courses[job_id]

    async def _keep(self) -> None:
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                await self._take_up()
                await self._store.write(book.forget)
            except EngineError as e:
                log.warning("jobs are not looked after: %s", e)
            except Exception:
                log.exception("jobs are not looked after")

    async def _take_up(self) -> None:
        """Go on with what is ours: also with what the database was away for."""
        ours = await self._store.write(book.renew, self.owner)
        others = await self._store.write(book.claim, self.owner, alone=self._alone)
        for job_id in others:
            log.info("job %s is taken up where it stood", job_id)
        for job_id in (*ours, *others):
            self._go_on(job_id)

    async def _run(self, job_id: str) -> None:
        course = self._courses[job_id]
        try:
            job, steps = await self._store.read(book.read, job_id)
            if job.status is JobStatus.STARTED:
                job = await self._through(job, steps, course)
            course.end(job=job)
        except Taken:
            log.warning("job %s goes on in another process", job_id)
            course.end(
                Unavailable(f"another engine process goes on with job {job_id}; look at the job")
            )
        except asyncio.CancelledError:
            course.end(Unavailable("the engine is being stopped; ask again when it is back"))
            raise
        except Unavailable as e:
            # The database; the job is taken up again.
            log.error("job %s waits: %s", job_id, e)
            course.end(e)
        except Exception as e:
            log.exception("job %s cannot go on", job_id)
            course.end(e)

    async def _through(self, job: Job, steps: Sequence[Step], course: _Course) -> Job:
        """The job, once it is over."""
        results = {step.action: step.result for step in steps if step.status in _WERE_DONE}
        if not job.reason:
            for step in steps:
                if step.status in _OPEN:
                    failure = await self._forward(job, step, results)
                    if failure is not None:
                        course.fail(failure)
                        break
                course.reach(step.number)
            job, steps = await self._store.read(book.read, job.id)
        if job.reason:
            course.fail(EngineError(job.reason))
        if job.undoing:
            for step in reversed(steps):
                if step.status in _TO_UNDO:
                    await self._back(job, step, results)
        return await self._store.write(self._end, job, results)

    async def _forward(
        self, job: Job, step: Step, results: dict[str, Result]
    ) -> EngineError | None:
        """Do a step. None if it is done, or the job goes on without it; else why it is not."""
        action, work = self._actions[step.action], Work(job, step, dict(results))
        began_ms = step.started_ms or now_ms()
        await self._store.write(
            book.mark,
            job,
            step,
            StepStatus.INTENDED,
            attempts=step.attempts + 1,
            started_ms=began_ms,
        )
        self._at(Moment.INTENDED, step)
        try:
            result = await self._tried(action, work, began_ms)
        except EngineError as e:
            log.warning("job %s: %s failed: %s", job.id, step.description, e)
            await self._store.write(self._failed, work, action.after_failure, str(e))
            return None if action.after_failure is AfterFailure.GO_ON else e
        self._at(Moment.DID, step)
        await self._store.write(self._mark_done, work, result)
        self._at(Moment.MARKED, step)
        results[step.action] = result
        return None

    async def _tried(self, action: Action, work: Work, began_ms: int) -> Result:
        """What the action tells, once what it needs is there. Raises EngineError."""
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return await action.do(work)
            except Unavailable as e:
                if now_ms() - began_ms > action.patience_s * 1000:
                    raise
                await self._store.write(
                    book.mark, work.job, work.step, StepStatus.INTENDED, reason=str(e)
                )
            except EngineError:
                raise
            except Exception as e:
                log.exception("job %s: %s", work.job.id, work.step.description)
                raise EngineError(
                    f"{work.step.description} failed inside the engine ({type(e).__name__}); "
                    f"the engine's log has why, at job {work.job.id}"
                ) from e
            pause_s = await _pause(pause_s)

    async def _back(self, job: Job, step: Step, results: Mapping[str, Result]) -> None:
        """Undo a step, or leave it if that cannot be."""
        action, pause_s = self._actions[step.action], FIRST_PAUSE_S
        work = Work(job, step, {**results, step.action: step.result})
        await self._store.write(book.mark, job, step, StepStatus.BACK)
        self._at(Moment.BACK, step)
        while True:
            try:
                await action.undo(work)
            except Unavailable as e:
                # Whatever it takes: what was made must not be forgotten.
                await self._store.write(book.mark, job, step, StepStatus.BACK, reason=str(e))
                pause_s = await _pause(pause_s)
                continue
            except EngineError as e:
                log.error("job %s: %s was not undone: %s", job.id, step.description, e)
                await self._store.write(book.mark, job, step, StepStatus.LEFT, reason=str(e))
                return
            break
        self._at(Moment.UNDID, step)
        await self._store.write(self._mark_undone, work)
        self._at(Moment.UNDONE, step)

    def _mark_done(self, conn: Connection, work: Work, result: Result) -> None:
        book.mark(conn, work.job, work.step, StepStatus.DONE, result=dict(result), reason="")
        self._actions[work.step.action].done(conn, work, result)

    def _mark_undone(self, conn: Connection, work: Work) -> None:
        book.mark(conn, work.job, work.step, StepStatus.UNDONE, reason="")
        self._actions[work.step.action].undone(conn, work)

    @staticmethod
    def _failed(conn: Connection, work: Work, then: AfterFailure, reason: str) -> None:
        # What is to be undone may have taken effect in part: it stands first among the rest.
        status = StepStatus.INTENDED if then is AfterFailure.UNDO else StepStatus.LEFT
        book.mark(conn, work.job, work.step, status, reason=reason)
        if then is not AfterFailure.GO_ON:
            book.fail(conn, work.job, reason, undo=then is AfterFailure.UNDO)

    def _end(self, conn: Connection, job: Job, results: Mapping[str, Result]) -> Job:
        flow = self._flows[job.flow]
        if job.reason:
            book.end(conn, job, JobStatus.FAILED, job.reason)
            flow.failed(conn, job, job.reason, results)
        else:
            book.end(conn, job, JobStatus.FINISHED)
            flow.finished(conn, job, results)
        return book.read(conn, job.id)[0]


async def _pause(pause_s: float) -> float:
    """Wait; how long to wait the next time."""
    await asyncio.sleep(pause_s * random.uniform(0.8, 1.2))
    return min(2 * pause_s, LONGEST_PAUSE_S)
