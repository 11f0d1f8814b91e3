# SPDX-License-Identifier: GPL-2.0-or-later
"""Which functional tests one worker runs together, and in which order they begin."""

from __future__ import annotations

from pathlib import Path

from tests import spread

REPOSITORY = Path(__file__).resolve().parents[2]
VMS = "tests/functional/test_vms.py"
SYSTEMD = "tests/functional/test_systemd.py"


def test_a_module_stays_together() -> None:
    assert spread.together(f"{VMS}::TestCreate::test_one[a-b]") == VMS
    assert spread.together(f"{VMS}::test_two") == VMS


def test_what_is_installed_in_another_way_has_a_host_of_its_own() -> None:
    assert spread.together(f"{SYSTEMD}::test_reload[rpm]") == f"{SYSTEMD} rpm"
    assert spread.together(f"{SYSTEMD}::test_keys[make-restart_daemon]") == f"{SYSTEMD} make"


def test_the_faults_come_first_and_then_what_takes_long() -> None:
    tests = [f"{VMS}::test_a", f"{SYSTEMD}::test_b[rpm]", "tests/faults/test_short.py::test_c"]
    assert sorted(tests, key=spread.order) == tests[::-1]


def test_what_is_said_to_take_long_is_there() -> None:
    for name in spread.LONG_S:
        assert (REPOSITORY / name.split()[0]).exists(), name
