# SPDX-License-Identifier: GPL-2.0-or-later
"""Who has something done, and the job that it becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cinderengine.jobs import book
from cinderengine.jobs.actions import Flow
from cinderengine.jobs.runner import Runner
from cinderengine.model.jobs import Job
from cinderengine.model.users import User


@dataclass(frozen=True)
class Caller:
    """A user who has logged in, with what leads from their request to events, jobs and logs.

    client: the address that they called from.
    """

    user: User
    correlation_id: str = ""
    client: str = ""

    def job(
        self, jobs: Runner, flow: type[Flow], what: str, params: Mapping[str, Any] | None = None
    ) -> Job:
        """A job of this user's that jobs may begin. what: it does, in words for people."""
        return book.new_job(
            flow.name,
            what,
            jobs.owner,
            params=params or {},
            user_id=self.user.id,
            correlation_id=self.correlation_id,
        )
