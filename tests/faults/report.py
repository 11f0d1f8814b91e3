# SPDX-License-Identifier: GPL-2.0-or-later
"""The outcomes as a table for a terminal, and as the page docs/faults.md.

The page has a section for each of the commands that write it; each replaces its own alone.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from bench.report import Machine
from lab.base import REPOSITORY
from tests.faults.run import Outcome

PAGE = REPOSITORY / "docs" / "faults.md"
HEAD = (
    "fault",
    "held",
    "records written",
    "lost",
    "VMs lost",
    "told after",
    "API silent",
    "status true after",
    "what the engine was told",
)
# What the engine was told is for the page; a terminal has no room for it.
TERMINAL_COLUMNS = len(HEAD) - 1


def terminal(outcomes: Sequence[Outcome]) -> str:
    """The table in columns, and below it what did not hold."""
    rows = [_cells(outcome)[:TERMINAL_COLUMNS] for outcome in outcomes]
    return "\n".join([columns(HEAD[:TERMINAL_COLUMNS], rows), "", *_verdict(outcomes)])


def markdown(outcomes: Sequence[Outcome], machine: Machine, patience: float) -> str:
    """The same with all columns, for the page. patience: as run_row() has it."""
    lines = [table(HEAD, [_cells(outcome) for outcome in outcomes]), "", *_verdict(outcomes, "- ")]
    if patience > 1:
        lines += ["", f"Rows were given {patience:g} times as long as the table does."]
    # What failed may name the clone that it was run in, which is nobody else's.
    return "\n".join([*lines, "", measured_on(machine)]).replace(str(REPOSITORY), ".")


def columns(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for a terminal."""
    lines = [head, *rows]
    widths = [max(len(line[n]) for line in lines) for n in range(len(head))]
    printed = ["  ".join(c.ljust(w) for c, w in zip(line, widths)).rstrip() for line in lines]
    printed.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join(printed)


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table for the page."""
    return "\n".join([_row(head), _row(["---"] * len(head)), *map(_row, rows)])


def measured_on(machine: Machine) -> str:
    """What the figures above it were measured on, for the page."""
    told = [f"Measured on: {line}" for line in machine.told()[:1]] + machine.told()[1:]
    return "\n".join(map(_wrapped, told))


def write_section(name: str, content: str, page: Path = PAGE) -> None:
    """Replace what stands between the page's markers of that name."""
    before, begin, rest = page.read_text().partition(_marker(name, "begin"))
    _, end, after = rest.partition(_marker(name, "end"))
    assert begin and end, f"{page} has no section {name}"
    page.write_text(f"{before}{begin}\n{content}\n{end}{after}")


def _marker(name: str, side: str) -> str:
    return f"<!-- {side} {name} -->"


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', '&#124;') for cell in cells)} |"


def _cells(outcome: Outcome) -> tuple[str, ...]:
    records = outcome.records
    return (
        outcome.row.title,
        "yes" if outcome.held else "NO",
        str(records.acknowledged),
        str(len(records.lost)),
        str(len(outcome.lost_vms)),
        "" if outcome.told_s is None else f"{outcome.told_s:.1f} s",
        f"{outcome.silent_s:.1f} s",
        f"{outcome.true_s:.1f} s",
        outcome.said,
    )


def _verdict(outcomes: Sequence[Outcome], mark: str = "") -> list[str]:
    held = sum(outcome.held for outcome in outcomes)
    broken = [f"{mark}{o.row.title}: {why}" for o in outcomes for why in o.broken]
    return [f"{held} of {len(outcomes)} rows held.", *([""] if broken and mark else []), *broken]


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 100)
