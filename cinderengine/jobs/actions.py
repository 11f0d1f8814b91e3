# SPDX-License-Identifier: GPL-2.0-or-later
"""What jobs are made of: actions, which a flow puts one after the other.

As in sagas: what an action does outside, and its undoing, may each be done again after a crash and
must then find that it is done. What it changes in the database is committed together with the
step's mark.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, ClassVar

from sqlalchemy import Connection

from cinderengine.model.jobs import Job, Step

Result = Mapping[str, Any]


class AfterFailure(Enum):
    """What becomes of the job when an action has failed."""

    UNDO = "it and all before it is undone, the job fails"
    KEEP = "what was done before it stays, the job fails"
    GO_ON = "the next step is done, the failure is told of"


@dataclass(frozen=True)
class Work:
    """What an action is about. results: of the steps before it, by the action's name."""

    job: Job
    step: Step
    results: Mapping[str, Result] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The same each time that the step is done: goes with the call, so that it is found."""
        return self.step.id

    @property
    def params(self) -> Mapping[str, Any]:
        """The job's parameters, and the step's own."""
        return {**self.job.params, **self.step.params}


class Action:
    """One action: made once, with what it needs, and used by every job that has a step of it.

    name: unique. patience_s: how long it is tried again while what it needs is Unavailable.
    """

    name: ClassVar[str]
    after_failure: ClassVar[AfterFailure] = AfterFailure.UNDO
    patience_s: ClassVar[float] = 300.0

    async def do(self, work: Work) -> Result:
        """Do it outside, unless it is done; what later steps want to know of it, JSON.

        Raises EngineError.
        """
        return {}

    def done(self, conn: Connection, work: Work, result: Result) -> None:
        """Change the database as it is now; in the transaction that marks the step."""

    async def undo(self, work: Work) -> None:
        """Make it not done, whether it took effect or not. Raises EngineError."""

    def undone(self, conn: Connection, work: Work) -> None:
        """Change the database back; in the transaction that marks the step."""


class Flow:
    """A kind of job. name: unique, such as 'disks.add'."""

    name: ClassVar[str]

    def finished(self, conn: Connection, job: Job, results: Mapping[str, Result]) -> None:
        """All was done; in the transaction that ends the job."""

    def failed(
        self, conn: Connection, job: Job, reason: str, results: Mapping[str, Result]
    ) -> None:
        """It failed, and what had to be undone is; in the transaction that ends the job.

        results: of what was done at first, whether it was undone or stays.
        """


@dataclass(frozen=True)
class Planned:
    """A step of a job that is to begin."""

    action: str
    description: str
    params: Mapping[str, Any] = field(default_factory=dict)
