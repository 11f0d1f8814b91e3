# SPDX-License-Identifier: GPL-2.0-or-later
"""Jobs in the database: begun, claimed, marked, ended, forgotten. Each function is a transaction's.

A job belongs to one engine process at a time. Each mark is made only while it still does, so that
a process that stood still for long changes nothing of what another one does by now.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, delete, select, update

from cinderengine.jobs.actions import Planned
from cinderengine.model.ids import new_id, now_ms
from cinderengine.model.jobs import Job, JobStatus, Step, StepStatus
from cinderengine.store import tables
from cinderengine.store.entities import jobs, steps

LEASE_MS = 10_000
# How long a job is told of that has finished, and one that has failed.
FINISHED_MS = 10 * 60_000
FAILED_MS = 60 * 60_000


class Taken(Exception):
    """Another process has the job now."""


def begin(conn: Connection, job: Job, plan: Sequence[Planned]) -> Job:
    """Write down a job and its steps, for the process that is its owner."""
    now = now_ms()
    job = jobs.insert(conn, replace(job, started_ms=now, lease_until_ms=now + LEASE_MS))
    for number, planned in enumerate(plan):
        step = Step(
            f"{job.id}.{number}",
            job.id,
            number,
            planned.action,
            planned.description,
            dict(planned.params),
        )
        steps.insert(conn, step)
    return job


def new_job(flow: str, description: str, owner: str, **more: Any) -> Job:
    """A job that begin() may be given."""
    return Job(new_id(), flow, description, owner=owner, **more)


def read(conn: Connection, job_id: str) -> tuple[Job, Sequence[Step]]:
    """A job that there is, and its steps in their order."""
    job = jobs.get(conn, job_id)
    assert job is not None
    found = conn.execute(
        select(tables.steps).where(tables.steps.c.job_id == job_id).order_by(tables.steps.c.number)
    )
    return job, [steps.of(row) for row in found]


def open_about(conn: Connection, **params: Any) -> Sequence[Job]:
    """The jobs that go on and have these parameters."""
    return [
        job
        for job in jobs.all(conn, status=JobStatus.STARTED)
        if params.items() <= dict(job.params).items()
    ]


def mark(conn: Connection, /, job: Job, step: Step, status: StepStatus, **changes: Any) -> None:
    """Give a step of our job another status. Raises Taken."""
    hold(conn, job)
    ended = {} if status in (StepStatus.INTENDED, StepStatus.BACK) else {"ended_ms": now_ms()}
    steps.update(conn, step.id, status=status, **ended, **changes)


def fail(conn: Connection, job: Job, reason: str, *, undo: bool) -> None:
    """From now on our job fails, and is undone or left as it is. Raises Taken."""
    hold(conn, job)
    jobs.update(conn, job.id, undoing=undo, reason=reason)


def end(conn: Connection, job: Job, status: JobStatus, reason: str = "") -> None:
    """Our job is over. Raises Taken."""
    hold(conn, job)
    jobs.update(conn, job.id, status=status, reason=reason, ended_ms=now_ms())


def hold(conn: Connection, job: Job) -> None:
    """Make sure that a job is ours, and goes on, until the transaction ends. Raises Taken."""
    table = tables.jobs
    ours = update(table).where(
        table.c.id == job.id,
        table.c.owner == job.owner,
        table.c.fence == job.fence,
        table.c.status == JobStatus.STARTED,
    )
    if conn.execute(ours.values(fence=job.fence)).rowcount != 1:
        raise Taken(job.id)


def renew(conn: Connection, owner: str) -> Sequence[str]:
    """Keep what is ours for another while; the ids of those jobs."""
    table = tables.jobs
    ours = (table.c.owner == owner) & (table.c.status == JobStatus.STARTED)
    conn.execute(update(table).where(ours).values(lease_until_ms=now_ms() + LEASE_MS))
    return list(conn.scalars(select(table.c.id).where(ours)))


def claim(conn: Connection, owner: str, *, alone: bool) -> Sequence[str]:
    """Take over the jobs whose owners are gone; their ids. alone: no other process can be there."""
    table, now = tables.jobs, now_ms()
    open_ = (table.c.status == JobStatus.STARTED) & (table.c.owner != owner)
    if not alone:
        open_ &= table.c.lease_until_ms < now
    found = list(conn.scalars(select(table.c.id).where(open_).with_for_update(skip_locked=True)))
    conn.execute(
        update(table)
        .where(table.c.id.in_(found))
        .values(owner=owner, fence=table.c.fence + 1, lease_until_ms=now + LEASE_MS)
    )
    return found


def forget(conn: Connection) -> None:
    """Remove the jobs that are over and have been told of long enough."""
    table, now = tables.jobs, now_ms()
    for status, kept_ms in ((JobStatus.FINISHED, FINISHED_MS), (JobStatus.FAILED, FAILED_MS)):
        over = (table.c.status == status) & (table.c.ended_ms < now - kept_ms)
        conn.execute(delete(table).where(over))
