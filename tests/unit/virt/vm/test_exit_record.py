# SPDX-License-Identifier: GPL-2.0-or-later
"""How a VM ended, as its domain's metadata keeps it; functional/test_recovery.py has it written."""

from __future__ import annotations

import pytest

from vdsmcinder.virt.domain.metadata import VmMetadata
from vdsmcinder.virt.vm import exit_record
from vdsmcinder.virt.vm.status import Cause, Exit, ExitCode, ExitReason


def test_a_record_is_read_back() -> None:
    change = exit_record.recorded(
        VmMetadata(exit_code=0, exit_reason=6, exit_message="It was asked to.")
    )
    assert change is not None
    assert change.cause is Cause.STOPPED
    assert change.exit == Exit(ExitCode.NORMAL, ExitReason.ADMIN_SHUTDOWN, "It was asked to.")


@pytest.mark.parametrize(
    "kept",
    [
        VmMetadata(),
        VmMetadata(exit_code=0),
        VmMetadata(exit_reason=6),
        VmMetadata(exit_code=7, exit_reason=6),
        VmMetadata(exit_code=0, exit_reason=99),
    ],
)
def test_what_is_no_record(kept: VmMetadata) -> None:
    assert exit_record.recorded(kept) is None
