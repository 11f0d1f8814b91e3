# SPDX-License-Identifier: GPL-2.0-or-later
"""The command `python -m tests.faults.migrations`: faults while a VM migrates, and many migrations.

Run in the lab, with two hosts; `make migrations` has a lab of its own for it. The rows are those of
migration.py.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
import time
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from bench.report import Machine
from lab.base import LabError
from lab.guest.records import Comparison
from lab.running import Lab
from lab.steps import Steps
from tests.faults import arguments as arguments_of
from tests.faults import report
from tests.faults.migration import ROWS, Row
from tests.faults.scene import Late, until
from tests.faults.two_hosts import ABSENT, Road, road
from vdsmcinder.errors import RemoteError

RECORDS = 5
# How long both hosts may take to agree; libvirt itself waits 30 s for a host that is silent.
AGREE_S = 60.0
TRIPS = 20
NOTHING = Comparison(0, (), ())
HEAD = ("fault", "held", "VM.migrate", "the VM", "records written", "lost", "agreed after")


@dataclass
class Outcome:
    """What came of a row. agreed_s: from the end of the fault until both hosts say the same.

    ended: what became of the VM. broken: what did not hold, one sentence each.
    """

    row: Row
    records: Comparison = NOTHING
    agreed_s: float = 0.0
    ended: str = ""
    answer: str = ""
    broken: list[str] = field(default_factory=list)


class Tour:
    """One row after the other on the same road, as long as its VM lives and the options fit."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._stack = AsyncExitStack()
        self._road: Road | None = None
        self._options: object = None

    async def __aenter__(self) -> Tour:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def road_for(self, row: Row) -> Road:
        """A road with a VM that obeys."""
        if self._road is None or row.options != self._options:
            await self._stack.aclose()
            self._road = await self._stack.enter_async_context(road(self._lab, row.options))
            self._options = row.options
        if not self._road.has_vm:
            await self._road.new_vm()
        return self._road


async def run_row(way: Road, row: Row, patience: float = 1.0) -> Outcome:
    """Run one row; what does not hold is in the outcome, not raised.

    patience: by what the time that both hosts have to agree is multiplied.
    """
    outcome = Outcome(row)
    way.seen.clear()
    await way.register_keys()
    await way.vm.begin()
    await way.vm.writes_on(RECORDS)
    watching = asyncio.create_task(way.watch())
    try:
        await row.act(way)
        outcome.answer = await way.answered()
        if outcome.answer not in row.answers:
            outcome.broken.append(f"VM.migrate answered {outcome.answer}")
        await _agree(way, outcome, patience)
    except (Late, LabError, RemoteError, OSError) as e:
        outcome.broken.append(str(e))
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
    if ("Up", "Up") in way.seen:
        outcome.broken.append("both hosts said that the VM is Up")
    if outcome.broken:
        await way.drop_vm()
    return outcome


async def _agree(way: Road, outcome: Outcome, patience: float) -> None:
    """Wait until both hosts say the same, and what they say is true; then see what is on disk."""
    vm, source = way.vm, way.engines.index(way.vm.here)
    began_s = time.monotonic()

    async def agreed() -> bool:
        said = await way.statuses()
        settled = all(status in ("Up", "Down", ABSENT) for status in said)
        return settled and [n for n, s in enumerate(said) if s == "Up"] == await way.running()

    await until(agreed, f"both hosts to agree ({way.seen[-1:]})", AGREE_S * patience)
    outcome.agreed_s = time.monotonic() - began_s
    running = await way.running()
    if len(running) > 1:
        raise Late("the VM runs on both hosts")
    outcome.ended = "ends" if not running else "stays" if running == [source] else "arrives"
    if outcome.ended not in outcome.row.ends.value:
        outcome.broken.append(f"the VM {outcome.ended}, but {outcome.row.ends.value} was expected")
    if not running:
        acknowledged = vm.acknowledged()
        outcome.records = await asyncio.to_thread(vm.judge, acknowledged)
        await way.drop_vm()
    else:
        vm.look_at(way.engines[running[0]])
        await vm.writes_on(RECORDS, 90)
        outcome.records = await vm.stop()
        await _forget(way, 1 - running[0])
    if outcome.records.lost:
        outcome.broken.append(f"{len(outcome.records.lost)} records are lost")


async def _forget(way: Road, n: int) -> None:
    """What an engine does with a VM that has left, or did not arrive."""
    if await way.status(n) == "Down":
        await way.engines[n].destroy(way.vm.id)


# The command


def main() -> int:
    """Run the rows that are named, or all, or many migrations; 0 if everything held."""
    arguments = _parse()
    machine = Machine.here()
    try:
        if arguments.trips:
            return asyncio.run(_trips(Lab.attach(), arguments.trips))
        rows = [row for row in ROWS if not arguments.names or row.name in arguments.names]
        outcomes = asyncio.run(_run(Lab.attach(), rows, arguments.patience))
    except LabError as e:
        print(f"migrations: {e}.", file=sys.stderr)
        return 1
    print(report.columns(HEAD, [_cells(outcome) for outcome in outcomes]))
    print("\n".join(["", *_verdict(outcomes)]))
    if arguments.write:
        table = report.table(HEAD, [_cells(outcome) for outcome in outcomes])
        words = "\n".join([table, "", *_verdict(outcomes, "- "), "", report.measured_on(machine)])
        report.write_section("migration", words)
    return 0 if not any(outcome.broken for outcome in outcomes) else 1


async def _run(lab: Lab, rows: list[Row], patience: float) -> list[Outcome]:
    steps = Steps(sys.stderr)
    outcomes: list[Outcome] = []
    async with Tour(lab) as tour:
        for row in rows:
            with steps.step(row.title) as step:
                step.progress("preparing")
                way = await tour.road_for(row)
                step.progress("under way")
                outcomes.append(await run_row(way, row, patience))
                for sentence in outcomes[-1].broken:
                    print(f"    {sentence}", file=sys.stderr)
    return outcomes


async def _trips(lab: Lab, count: int) -> int:
    """Migrate a VM back and forth while it writes; its records are compared at the end."""
    steps = Steps(sys.stderr)
    async with road(lab, {}) as way:
        with steps.step("a VM whose guest writes"):
            await way.new_vm()
            await way.vm.begin()
        times_s, downtimes_ms = [], []
        for trip in range(count):
            with steps.step(f"migration {trip + 1} of {count}"):
                began_s = time.monotonic()
                downtimes_ms.append(await way.vm.go())
                times_s.append(time.monotonic() - began_s)
                await way.vm.writes_on(RECORDS)
        found = await way.vm.stop()
    print(f"migrations        {count}")
    print(f"records written   {found.acknowledged}")
    print(f"records lost      {len(found.lost)}")
    print(f"time              {_spread(times_s, 's', 2)}")
    print(f"downtime          {_spread(downtimes_ms, 'ms', 0)}")
    return 1 if found.lost or found.strange else 0


def _spread(values: Sequence[float], unit: str, digits: int) -> str:
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} {unit} (from {low:.{digits}f} to {high:.{digits}f})"


def _cells(outcome: Outcome) -> list[str]:
    records = outcome.records
    return [
        outcome.row.title,
        "NO" if outcome.broken else "yes",
        outcome.answer,
        outcome.ended,
        str(records.acknowledged),
        str(len(records.lost)),
        f"{outcome.agreed_s:.1f} s",
    ]


def _verdict(outcomes: list[Outcome], mark: str = "") -> list[str]:
    held = sum(not outcome.broken for outcome in outcomes)
    broken = [f"{mark}{o.row.title}: {'; '.join(o.broken)}" for o in outcomes if o.broken]
    return [f"{held} of {len(outcomes)} rows held.", *([""] if broken and mark else []), *broken]


def _parse() -> argparse.Namespace:
    names = [row.name for row in ROWS]
    parser = arguments_of.parser(
        "python -m tests.faults.migrations",
        "Faults while a VM that writes migrates: where it runs, and what is lost.",
        names,
    )
    parser.add_argument(
        "--trips",
        type=int,
        nargs="?",
        const=TRIPS,
        metavar="N",
        help=f"no faults, but N migrations back and forth (default: {TRIPS})",
    )
    return arguments_of.parse(parser, names)


if __name__ == "__main__":
    sys.exit(main())
