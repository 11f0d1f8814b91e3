# SPDX-License-Identifier: GPL-2.0-or-later
"""The nightly run goes on after what fails, and says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import nightly


@pytest.fixture
def make(tmp_path: Path) -> str:
    """A make whose target `broken` fails."""
    program = tmp_path / "make"
    program.write_text("#!/bin/sh\n[ $1 != broken ]\n")
    program.chmod(0o755)
    return str(program)


def test_all_parts_are_run_and_told_of(make: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert nightly.main(make, ["fine", "broken", "other"]) == 1
    said = capfd.readouterr().out.splitlines()[-3:]
    assert [line.split(" after ")[0].split() for line in said] == [
        ["make", "fine", "went", "well"],
        ["make", "broken", "failed", "with", "exit", "code", "1"],
        ["make", "other", "went", "well"],
    ]


def test_all_well(make: str) -> None:
    assert nightly.main(make, ["fine"]) == 0
