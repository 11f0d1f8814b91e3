# SPDX-License-Identifier: GPL-2.0-or-later
"""The command `python -m tests.faults`: runs the suite of faults on the lab and writes its page.

`make faults` runs it on a lab of its own.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Sequence

from bench.report import Machine
from lab.base import LabError
from lab.running import Lab
from lab.steps import Steps
from tests.faults import arguments as arguments_of
from tests.faults import report
from tests.faults.run import Outcome, Stage, run_row
from tests.faults.table import ROWS, Row


def main() -> int:
    """Run the rows that are named, or all; 0 if all of them held."""
    arguments = _parse()
    machine = Machine.here()
    try:
        rows = _chosen(arguments)
        outcomes = asyncio.run(_run(Lab.attach(), rows, arguments.patience))
    except LabError as e:
        print(f"faults: {e}.", file=sys.stderr)
        return 1
    print(report.terminal(outcomes))
    if arguments.write:
        _write(outcomes, machine, arguments.patience)
    return 0 if all(outcome.held for outcome in outcomes) else 1


def _write(outcomes: Sequence[Outcome], machine: Machine, patience: float) -> None:
    """Write what was run into the sections of the page; other rows stay as they were found."""
    for section in sorted({outcome.row.section for outcome in outcomes}):
        titles = [row.title for row in ROWS if row.section == section]
        found = [outcome for outcome in outcomes if outcome.row.section == section]
        report.update_section(section, titles, found, machine, patience)


async def _run(lab: Lab, rows: list[Row], patience: float) -> list[Outcome]:
    # The table alone goes to stdout, so that it can be kept.
    steps = Steps(sys.stderr)
    outcomes: list[Outcome] = []
    async with Stage(lab) as stage:
        for row in rows:
            with steps.step(row.title) as step:
                step.progress("preparing")
                try:
                    made = await stage.scene_for(row)
                    step.progress("under way")
                    outcomes.append(await run_row(made, row, patience))
                except Exception as e:
                    # What the rows before have found is not to be lost for it.
                    outcomes.append(Outcome(row, broken=[f"the suite itself failed: {e}"]))
                stage.left(outcomes[-1])
    return outcomes


def _chosen(arguments: argparse.Namespace) -> list[Row]:
    if arguments.short:
        return [row for row in ROWS if row.short]
    rows = [row for row in ROWS if arguments.section in (None, row.section)]
    return [row for row in rows if not arguments.names or row.name in arguments.names]


def _parse() -> argparse.Namespace:
    names = [row.name for row in ROWS]
    parser = arguments_of.parser(
        "python -m tests.faults",
        "Faults while a guest writes and an engine calls: what is lost, what is told.",
        names,
    )
    parser.add_argument("--short", action="store_true", help="the few that CI runs")
    sections = sorted({row.section for row in ROWS})
    parser.add_argument("--section", choices=sections, help="those of one section of the page")
    return arguments_of.parse(parser, names)


if __name__ == "__main__":
    sys.exit(main())
