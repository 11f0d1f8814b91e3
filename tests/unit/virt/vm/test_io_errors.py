# SPDX-License-Identifier: GPL-2.0-or-later
"""How long a VM whose storage failed stays paused between two tries to continue it."""

from __future__ import annotations

import pytest

from vdsmcinder.virt.vm.parts.io_errors import IoTrouble
from vdsmcinder.virt.vm.status import PauseCode


def test_each_try_in_vain_makes_the_next_one_later() -> None:
    trouble = IoTrouble(held=False)
    now_s, pauses = 1000.0, []
    for _ in range(7):
        pauses.append(trouble.first_pause_s(now_s))
        now_s += pauses[-1]
        trouble.tried(now_s)
        now_s += 2  # until its OSDs have not answered
    assert pauses == [1, 2, 4, 8, 16, 30, 30]


@pytest.mark.parametrize("ran_s", [61.0, 3600.0])
def test_a_vm_that_ran_meanwhile_is_tried_soon(ran_s: float) -> None:
    trouble = IoTrouble(held=False)
    for now_s in (0.0, 5.0, 10.0):
        trouble.first_pause_s(now_s)
        trouble.tried(now_s)
    assert trouble.first_pause_s(10.0 + ran_s) == 1


def test_that_room_is_lacking_counts_until_it_runs() -> None:
    trouble = IoTrouble(held=False)
    trouble.met("vda", PauseCode.EIO)
    trouble.lacks_room()
    assert (trouble.code, trouble.disks, trouble.count) == (PauseCode.ENOSPC, {"vda"}, 1)
    trouble.over()
    assert trouble.code is None
