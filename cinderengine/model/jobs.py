# SPDX-License-Identifier: GPL-2.0-or-later
"""Jobs, which change what is outside the database, and their steps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any


class JobStatus(StrEnum):
    """As oVirt's API has them."""

    STARTED = "started"
    FINISHED = "finished"
    FAILED = "failed"


class StepStatus(StrEnum):
    """How far a step is. How to read a job: its steps in their order, DONE up to where it stands.

    INTENDED may have taken effect outside or not. BACK is to be undone, or is being so. LEFT was
    not undone, or failed and is not to be; its reason says what stands.
    """

    WAITING = "waiting"
    INTENDED = "intended"
    DONE = "done"
    BACK = "back"
    UNDONE = "undone"
    LEFT = "left"


@dataclass(frozen=True)
class Job:
    """Something that a user had done. flow: what is being done. params: of the flow, JSON.

    reason: why it fails, one sentence; undoing: whether it is being undone since then.
    owner, fence, lease_until_ms: the engine process that works on it, counted up with every other
    one, and until when it may.
    """

    id: str
    flow: str
    description: str
    params: Mapping[str, Any] = field(default_factory=dict)
    status: JobStatus = JobStatus.STARTED
    reason: str = ""
    undoing: bool = False
    user_id: str | None = None
    correlation_id: str = ""
    owner: str = ""
    fence: int = 0
    lease_until_ms: int = 0
    started_ms: int = 0
    ended_ms: int | None = None


@dataclass(frozen=True)
class Step:
    """One action of a job. id: its key, JOB.NUMBER. params: of it alone. result: what it told."""

    id: str
    job_id: str
    number: int
    action: str
    description: str
    params: Mapping[str, Any] = field(default_factory=dict)
    status: StepStatus = StepStatus.WAITING
    attempts: int = 0
    reason: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)
    started_ms: int | None = None
    ended_ms: int | None = None
