# SPDX-License-Identifier: GPL-2.0-or-later
"""The nightly run goes on after what fails, and says so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import nightly

REPOSITORY = Path(__file__).resolve().parents[2]


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


def test_what_is_left_out_of_every_run_is_run_at_night() -> None:
    makefile = (REPOSITORY / "Makefile").read_text()
    (parts,) = re.findall(r"^NIGHTLY := (.+)$", makefile, re.M)
    recipes = [re.findall(rf"^{part}:.*\n((?:\t.*\n)+)", makefile, re.M) for part in parts.split()]
    lines = [line for found in recipes for recipe in found for line in recipe.splitlines()]
    # The words of the pytest runs that leave nothing out.
    whole = {
        word
        for line in lines
        if " -m " not in line.partition("/pytest ")[2]
        for word in line.split()
    }
    tests = [
        path
        for room in ("functional", "faults", "engine/functional")
        for path in REPOSITORY.glob(f"tests/{room}/*")
    ]
    marked = {
        str(path.relative_to(REPOSITORY))
        for path in tests
        if path.suffix == ".py" and re.search(r"\bmark\.(alike|nightly)\b", path.read_text())
    }
    assert marked
    assert {path for path in marked if not {path, str(Path(path).parent)} & whole} == set()


def test_all_well(make: str) -> None:
    assert nightly.main(make, ["fine"]) == 0
