# SPDX-License-Identifier: GPL-2.0-or-later
"""The state table, and what libvirt's numbers mean for it."""

from __future__ import annotations

import libvirt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsmcinder.virt.vm import lifecycle
from vdsmcinder.virt.vm.status import (
    TRANSITIONS,
    Cause,
    ExitCode,
    ExitReason,
    PauseCode,
    Status,
    after,
)


def test_every_status_has_a_row():
    assert set(TRANSITIONS) == set(Status)


def test_every_status_but_down_can_end():
    for status in set(Status) - {Status.DOWN}:
        assert after(status, Cause.STOPPED) is Status.DOWN


@given(st.lists(st.sampled_from(Cause)))
def test_down_is_final(causes):
    status = Status.WAIT_FOR_LAUNCH
    seen = []
    for cause in causes:
        status = after(status, cause) or status
        seen.append(status)
    if Status.DOWN in seen:
        assert set(seen[seen.index(Status.DOWN) :]) == {Status.DOWN}


def test_a_life():
    status = Status.WAIT_FOR_LAUNCH
    for cause, expected in [
        (Cause.LAUNCH, Status.POWERING_UP),
        (Cause.RUNNING, Status.UP),
        (Cause.SUSPENDED, Status.PAUSED),
        (Cause.RUNNING, Status.UP),
        (Cause.REBOOT, Status.REBOOT_IN_PROGRESS),
        (Cause.RUNNING, Status.UP),
        (Cause.POWER_DOWN, Status.POWERING_DOWN),
        (Cause.STOPPED, Status.DOWN),
    ]:
        assert after(status, cause) is expected
        status = expected


@pytest.mark.parametrize(
    ("event", "detail", "reason"),
    [
        (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN, 7),
        (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_DESTROYED, 6),
        (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_FAILED, 2),
        (libvirt.VIR_DOMAIN_EVENT_STOPPED, libvirt.VIR_DOMAIN_EVENT_STOPPED_MIGRATED, 4),
        (libvirt.VIR_DOMAIN_EVENT_STOPPED, 999, 2),
    ],
)
def test_the_ends_that_libvirt_tells(event, detail, reason):
    change = lifecycle.from_event(event, detail)
    assert change.cause is Cause.STOPPED
    assert change.exit.reason == reason


@pytest.mark.parametrize(
    ("detail", "code"),
    [
        (libvirt.VIR_DOMAIN_EVENT_SUSPENDED_PAUSED, PauseCode.NOERR),
        (libvirt.VIR_DOMAIN_EVENT_SUSPENDED_IOERROR, PauseCode.EIO),
        (libvirt.VIR_DOMAIN_EVENT_SUSPENDED_WATCHDOG, PauseCode.EOTHER),
    ],
)
def test_the_pauses_that_libvirt_tells(detail, code):
    change = lifecycle.from_event(libvirt.VIR_DOMAIN_EVENT_SUSPENDED, detail)
    assert (change.cause, change.pause_code) == (Cause.SUSPENDED, code)


def test_events_that_do_not_matter():
    assert lifecycle.from_event(libvirt.VIR_DOMAIN_EVENT_DEFINED, 0) is None
    assert lifecycle.from_event(libvirt.VIR_DOMAIN_EVENT_STARTED, 0) is None


def test_states_of_domains_that_were_not_watched():
    assert lifecycle.from_state(libvirt.VIR_DOMAIN_RUNNING, 1) is lifecycle.RUNNING
    paused = lifecycle.from_state(libvirt.VIR_DOMAIN_PAUSED, libvirt.VIR_DOMAIN_PAUSED_IOERROR)
    assert paused.pause_code is PauseCode.EIO
    crashed = lifecycle.from_state(libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_CRASHED)
    assert (crashed.exit.code, crashed.exit.reason) == (ExitCode.ERROR, ExitReason(2))
    unknown = lifecycle.from_state(libvirt.VIR_DOMAIN_SHUTOFF, libvirt.VIR_DOMAIN_SHUTOFF_UNKNOWN)
    assert unknown.exit.reason is ExitReason.HOST_SHUTDOWN
