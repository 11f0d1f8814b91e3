# SPDX-License-Identifier: GPL-2.0-or-later
"""A process that is killed at a moment of a step, and one that takes its place."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from cinderengine.jobs.actions import Action, Flow
from cinderengine.jobs.runner import Moment, Runner
from cinderengine.model.jobs import Job, JobStatus, Step
from cinderengine.store.database import Store
from cinderengine.store.entities import jobs

_NAMES = itertools.count()


class Killed(BaseException):
    """As SIGKILL: nothing of the process does anything from then on."""


def runner(
    store: Store,
    flows: Iterable[Flow],
    actions: Iterable[Action],
    moment: Moment | None = None,
    number: int | None = None,
) -> Runner:
    """One that is killed at that moment of the step of that number, the first time."""

    def at(now: Moment, step: Step) -> None:
        if (now, step.number) == (moment, number):
            raise Killed

    return Runner(store, flows, actions, owner=f"engine {next(_NAMES)}", at=at)


async def over(store: Store, flows: Iterable[Flow], actions: Iterable[Action]) -> Job:
    """The only job, once a process that starts now has brought it to its end."""
    after = runner(store, flows, actions)
    await after.start()
    (job,) = await store.read(jobs.all)
    if job.status is JobStatus.STARTED:
        job = await after.ended(job.id)
    await after.close()
    return job
