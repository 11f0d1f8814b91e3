# SPDX-License-Identifier: GPL-2.0-or-later
"""Jobs with their steps, and events."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import Connection, select

from cinderengine.api.resources.empty import STATISTICS
from cinderengine.api.resources.table import Call, Collection
from cinderengine.api.search.selection import Selection
from cinderengine.api.types import entity as made
from cinderengine.api.types.entity import Entity, entity
from cinderengine.model.events import Event
from cinderengine.model.jobs import Job, Step, StepStatus
from cinderengine.store import tables
from cinderengine.store.entities import events, jobs, steps, users

# Of events, the newest that are looked through; of jobs as many.
MOST = 10_000
# How a step's status reads in the API.
STATUSES: Mapping[StepStatus, str] = {
    StepStatus.WAITING: "unknown",
    StepStatus.INTENDED: "started",
    StepStatus.DONE: "finished",
    StepStatus.BACK: "started",
    StepStatus.UNDONE: "aborted",
    StepStatus.LEFT: "failed",
}


# Jobs


def _newest_jobs(conn: Connection, selection: Selection) -> Sequence[Job]:
    table = tables.jobs
    query = select(table).order_by(table.c.started_ms.desc(), table.c.id)
    return [jobs.of(row) for row in conn.execute(selection.of(query))]


async def _selected_jobs(call: Call, selection: Selection) -> Sequence[Job]:
    return await call.parts.store.read(_newest_jobs, _limited(selection))


async def _jobs(call: Call) -> Sequence[Job]:
    return await _selected_jobs(call, Selection())


def _limited(selection: Selection) -> Selection:
    return selection if selection.limit is not None else replace(selection, limit=MOST)


async def _job(call: Call) -> Job | None:
    return await call.parts.store.read(jobs.get, call.id("jobs"))


def _show_job(call: Call, job: Job) -> Entity:
    reason = f": {job.reason}" if job.reason else ""
    return entity(
        "job",
        id=job.id,
        href=made.below("/jobs", job.id),
        description=f"{job.description}{reason}",
        status=job.status.value,
        owner=made.reference("user", job.user_id, "/users"),
        start_time=job.started_ms,
        end_time=job.ended_ms,
        last_updated=job.ended_ms or job.started_ms,
        external=False,
        auto_cleared=True,
    )


async def _steps(call: Call) -> Sequence[Step]:
    found = await call.parts.store.read(steps.all, job_id=call.id("jobs"))
    return sorted(found, key=lambda step: step.number)


async def _step(call: Call) -> Step | None:
    found = await call.parts.store.read(steps.get, call.id("steps"))
    return found if found and found.job_id == call.id("jobs") else None


def _show_step(call: Call, step: Step) -> Entity:
    reason = f": {step.reason}" if step.reason else ""
    return entity(
        "step",
        id=step.id,
        href=made.below(f"{made.below('/jobs', step.job_id)}/steps", step.id),
        description=f"{step.description}{reason}",
        type="executing",
        number=step.number,
        status=STATUSES[step.status],
        job=made.reference("job", step.job_id, "/jobs"),
        start_time=step.started_ms,
        end_time=step.ended_ms,
        external=False,
    )


# Events


@dataclass(frozen=True)
class EventRow:
    """An event, and the name of the user whose doing it tells of."""

    event: Event
    principal: str = ""


def _events_after(
    conn: Connection, event_id: int | None, selection: Selection
) -> Sequence[EventRow]:
    table = tables.events
    query = select(table).order_by(table.c.id.desc())
    if event_id is not None:
        query = query.where(table.c.id > event_id)
    names = {user.id: user.principal for user in users.all(conn)}
    found = [events.of(row) for row in conn.execute(selection.of(query))]
    return [EventRow(event, names.get(event.user_id or "", "")) for event in found]


async def _selected_events(call: Call, selection: Selection) -> Sequence[EventRow]:
    after = call.request.number("from")
    return await call.parts.store.read(_events_after, after, _limited(selection))


async def _events(call: Call) -> Sequence[EventRow]:
    return await _selected_events(call, Selection())


def _event_of(conn: Connection, event_id: int) -> EventRow | None:
    row = conn.execute(select(tables.events).where(tables.events.c.id == event_id)).first()
    return EventRow(events.of(row)) if row is not None else None


async def _event(call: Call) -> EventRow | None:
    event_id = call.id("events")
    if not (event_id.isascii() and event_id.isdigit() and len(event_id) < 19):
        return None
    return await call.parts.store.read(_event_of, int(event_id))


def _show_event(call: Call, row: EventRow) -> Entity:
    event = row.event
    return entity(
        "event",
        id=str(event.id),
        href=made.below("/events", str(event.id)),
        description=event.description,
        code=event.code,
        severity=event.severity.value,
        time=event.time_ms,
        correlation_id=event.correlation_id or None,
        origin="oVirt",
        index=event.id,
        custom_id=-1,
        flood_rate=0,
        user=made.reference("user", event.user_id, "/users", name=row.principal or None),
        data_center=made.reference("data_center", event.data_center_id, "/datacenters"),
        cluster=made.reference("cluster", event.cluster_id, "/clusters"),
        host=made.reference("host", event.host_id, "/hosts"),
        storage_domain=made.reference("storage_domain", event.domain_id, "/storagedomains"),
    )


JOBS = Collection(
    "jobs",
    "job",
    rows=_jobs,
    row=_job,
    show=_show_job,
    fields={
        "id": lambda job: job.id,
        "description": lambda job: job.description,
        "status": lambda job: job.status.value,
        "correlation_id": lambda job: job.correlation_id,
        "start_time": lambda job: job.started_ms,
    },
    selected=_selected_jobs,
    columns={
        "id": tables.jobs.c.id,
        "description": tables.jobs.c.description,
        "correlation_id": tables.jobs.c.correlation_id,
        "start_time": tables.jobs.c.started_ms,
    },
    under=(
        Collection("steps", "step", rows=_steps, row=_step, show=_show_step, under=(STATISTICS,)),
    ),
)

EVENTS = Collection(
    "events",
    "event",
    rows=_events,
    row=_event,
    show=_show_event,
    fields={
        "id": lambda row: row.event.id,
        "message": lambda row: row.event.description,
        "description": lambda row: row.event.description,
        "severity": lambda row: row.event.severity.value,
        "type": lambda row: row.event.code,
        "code": lambda row: row.event.code,
        "time": lambda row: row.event.time_ms,
        "correlation_id": lambda row: row.event.correlation_id,
        "usrname": lambda row: row.principal,
        "user.usrname": lambda row: row.principal,
    },
    selected=_selected_events,
    columns={
        "id": tables.events.c.id,
        "message": tables.events.c.description,
        "description": tables.events.c.description,
        "type": tables.events.c.code,
        "code": tables.events.c.code,
        "time": tables.events.c.time_ms,
        "correlation_id": tables.events.c.correlation_id,
    },
)
