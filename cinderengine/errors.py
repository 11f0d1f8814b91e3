# SPDX-License-Identifier: GPL-2.0-or-later
"""What the engine refuses, one class for each kind of fault that its API answers with.

Each message is one sentence that names the object, the cause and the remedy; none holds a secret.
The statuses and reasons are those that oVirt's clients know.
"""

from __future__ import annotations

from typing import ClassVar


class EngineError(Exception):
    """Something that was not done, in words for a person.

    status: that of the HTTP answer. reason and detail: the fault's, which clients show.
    """

    status: ClassVar[int] = 400
    reason: ClassVar[str] = "Operation Failed"

    def __init__(self, detail: str) -> None:
        super().__init__(detail)
        self.detail = detail


class Incomplete(EngineError):
    """A request lacks a field that it must have."""

    reason = "Incomplete parameters"


class Invalid(EngineError):
    """A field of a request has a value that cannot be, or that does not go with what there is."""


class Unauthenticated(EngineError):
    """Nobody, or somebody whose password or token is not right, asked."""

    status = 401
    reason = "Unauthorized"


class Denied(EngineError):
    """The user may not do that."""

    status = 403
    reason = "Forbidden"


class NotFound(EngineError):
    """No such object is known, or none that this user may see."""

    status = 404
    reason = "Not Found"


class Conflict(EngineError):
    """The state of an object, or another one, stands against it now."""

    status = 409


class OutsideError(EngineError):
    """Cinder, Ceph or a host did not do its part; the detail has its words."""

    status = 400


class Unavailable(OutsideError):
    """Cinder, Ceph or a host cannot be reached, or answers nothing: it may be tried again later."""

    status = 503
