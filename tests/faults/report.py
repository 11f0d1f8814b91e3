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
HELD = "yes"
TERMINAL_COLUMNS = len(HEAD) - 1


def terminal(outcomes: Sequence[Outcome]) -> str:
    """The table in columns, and below it what did not hold."""
    rows = [_cells(outcome)[:TERMINAL_COLUMNS] for outcome in outcomes]
    return "\n".join([columns(HEAD[:TERMINAL_COLUMNS], rows), "", *_verdict(outcomes)])


def update_section(
    name: str,
    titles: Sequence[str],
    outcomes: Sequence[Outcome],
    machine: Machine,
    patience: float,
) -> None:
    """Write the outcomes into a section of the page, in place of those of the same faults.

    titles: of the section's faults, in their order; what is of none of them goes. patience: as
    run_row() has it.
    """
    rows, broken = _found_before(_section(name))
    for outcome in outcomes:
        title = outcome.row.title
        rows[title] = _row(_cells(outcome))
        broken[title] = [f"- {title}: {why}" for why in outcome.broken]
    there = [title for title in titles if title in rows]
    failures = [line for title in there for line in broken.get(title, [])]
    held = sum(rows[title].split(" | ")[1] == HELD for title in there)
    lines = [_row(HEAD), _row(["---"] * len(HEAD)), *(rows[title] for title in there)]
    lines += ["", f"{held} of {len(there)} rows held.", ""]
    if failures:
        lines += [*failures, ""]
    missing = [title for title in titles if title not in rows]
    if missing:
        lines += [f"Not run: {'; '.join(missing)}.", ""]
    if patience > 1:
        lines += [f"Rows were given {patience:g} times as long as the table does.", ""]
    content = "\n".join([*lines, measured_on(machine)])
    # What failed may name the clone that it was run in, which is nobody else's.
    write_section(name, content.replace(str(REPOSITORY), "."))


def _found_before(section: str) -> tuple[dict[str, str], dict[str, list[str]]]:
    """The rows of a section, and what did not hold in them, by the title of the fault."""
    lines = section.splitlines()
    rows = {line[2:].partition(" | ")[0]: line for line in lines if line.startswith("| ")}
    broken: dict[str, list[str]] = {}
    for line in lines:
        title = next((title for title in rows if line.startswith(f"- {title}: ")), None)
        if title is not None:
            broken.setdefault(title, []).append(line)
    return rows, broken


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


def _section(name: str, page: Path = PAGE) -> str:
    """What stands between the page's markers of that name."""
    return page.read_text().partition(_marker(name, "begin"))[2].partition(_marker(name, "end"))[0]


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
        HELD if outcome.held else "NO",
        str(records.acknowledged),
        str(len(records.lost)),
        str(len(outcome.lost_vms)),
        "" if outcome.told_s is None else f"{outcome.told_s:.1f} s",
        f"{outcome.silent_s:.1f} s",
        f"{outcome.true_s:.1f} s",
        outcome.said,
    )


def _verdict(outcomes: Sequence[Outcome]) -> list[str]:
    held = sum(outcome.held for outcome in outcomes)
    broken = [f"{o.row.title}: {why}" for o in outcomes for why in o.broken]
    return [f"{held} of {len(outcomes)} rows held.", *broken]


def _wrapped(text: str) -> str:
    return textwrap.fill(text, 100)
