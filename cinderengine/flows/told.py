# SPDX-License-Identifier: GPL-2.0-or-later
"""What flows tell: events, with the codes that oVirt's audit log has for them."""

from __future__ import annotations

from dataclasses import replace
from enum import IntEnum

from sqlalchemy import Connection

from cinderengine.flows.caller import Caller
from cinderengine.model.events import Event, Severity
from cinderengine.model.ids import now_ms
from cinderengine.model.jobs import Job
from cinderengine.store.entities import events


class Code(IntEnum):
    """The numbers that clients look for (AuditLogType)."""

    HOST_ADDED = 42
    HOST_EDITED = 43
    HOST_REMOVED = 44
    HOST_ACTIVATED = 16
    HOST_JOINED = 504
    HOST_TO_MAINTENANCE = 600
    HOST_NOT_UP = 12
    HOST_UP = 13
    PROVIDER_ADDED = 205
    PROVIDER_EDITED = 207
    PROVIDER_REMOVED = 209
    KEY_ADDED = 10754
    KEY_EDITED = 10756
    KEY_REMOVED = 10758
    KEYS_NOT_ON_HOST = 10762
    CLUSTER_ADDED = 809
    CLUSTER_EDITED = 811
    CLUSTER_REMOVED = 813
    DATA_CENTER_ADDED = 950
    DATA_CENTER_EDITED = 952
    DATA_CENTER_REMOVED = 954
    DOMAIN_ADDED = 956
    DOMAIN_REMOVED = 960
    DOMAIN_ATTACHED = 962
    DOMAIN_NOT_ATTACHED = 963
    DOMAIN_DETACHED = 964
    DOMAIN_ACTIVATED = 966
    DOMAIN_NOT_ACTIVATED = 967
    DOMAIN_DEACTIVATED = 968
    DOMAIN_WENT_AWAY = 970
    DOMAIN_CAME_BACK = 1
    DISK_BEING_ADDED = 2020
    DISK_ADDED = 2021
    DISK_NOT_ADDED = 2022
    DISK_EDITED = 86
    DISK_EXTENDED = 371
    DISK_NOT_EXTENDED = 370
    DISK_BEING_REMOVED = 2038
    DISK_REMOVED = 2014
    DISK_NOT_REMOVED = 10753
    DISK_REGISTERED = 378


def tell(
    conn: Connection,
    code: Code,
    text: str,
    by: Caller | Job | None = None,
    *,
    severity: Severity = Severity.NORMAL,
    **about: str | None,
) -> None:
    """Write down an event. about: ids of what it tells of, such as disk_id."""
    correlation_id, user_id, job_id = "", None, None
    if isinstance(by, Caller):
        correlation_id, user_id = by.correlation_id, by.user.id
    elif by is not None:
        correlation_id, user_id, job_id = by.correlation_id, by.user_id, by.id
    event = Event(
        int(code),
        severity,
        text,
        now_ms(),
        correlation_id=correlation_id,
        user_id=user_id,
        job_id=job_id,
    )
    events.insert(conn, replace(event, **about))  # type: ignore[arg-type]
