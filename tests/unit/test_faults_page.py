# SPDX-License-Identifier: GPL-2.0-or-later
"""docs/faults.md tells of every fault that there is in tests/faults, and of no other."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.faults import migration, report
from tests.faults.table import ROWS

TITLES = {
    **{
        section: [row.title for row in ROWS if row.section == section]
        for section in ("faults", "verbs")
    },
    "migration": [row.title for row in migration.ROWS],
}


def test_each_row_is_of_a_section_of_the_page() -> None:
    assert {row.section for row in ROWS} == {"faults", "verbs"}


@pytest.mark.parametrize(("section", "titles"), TITLES.items(), ids=TITLES)
def test_the_page_has_the_faults_that_there_are(section: str, titles: Sequence[str]) -> None:
    """Run, or said not to be: `make faults` and `make migrations` write it."""
    content = report._section(section)
    lines = [line[2:].partition(" | ")[0] for line in content.splitlines() if line[:2] == "| "]
    _head, _rule, *told = lines
    left_out = content.partition("\nNot run: ")[2].partition(".\n")[0].split("; ")
    assert sorted(told + [title for title in left_out if title]) == sorted(titles)
