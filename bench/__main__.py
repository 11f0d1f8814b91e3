# SPDX-License-Identifier: GPL-2.0-or-later
"""The command `python -m bench`: runs benchmarks inside the lab's network and prints their table.

`make bench` runs it on a lab of its own; bench/README.md says what is measured and how.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import Callable

from bench import (
    disks,
    fanout,
    flood,
    footprint,
    getxml,
    many_vms,
    migrate,
    ping,
    ping_http,
    preflight,
    report,
    vms,
)
from bench.report import Row
from lab.base import LabError
from lab.running import Lab
from lab.steps import Step, Steps

BENCHMARKS: Mapping[str, Callable[[Lab, Step], list[Row]]] = {
    "getxml": getxml.run,
    "vms": vms.run,
    "ping": ping.run,
    "ping_http": ping_http.run,
    "flood": flood.run,
    "fanout": fanout.run,
    "many_vms": many_vms.run,
    "footprint": footprint.run,
    "disks": disks.run,
    "preflight": preflight.run,
    "migrate": migrate.run,
}


def main() -> int:
    """Run the benchmarks that are named, or all; 0 also where a goal is missed."""
    arguments = _parse()
    # The table alone goes to stdout, so that it can be kept.
    steps = Steps(sys.stderr)
    rows: list[Row] = []
    machine = report.Machine.here()
    try:
        lab = Lab.attach()
        for name in arguments.names or BENCHMARKS:
            with steps.step(name) as step:
                rows += BENCHMARKS[name](lab, step)
    except LabError as e:
        print(f"bench: {e}.", file=sys.stderr)
        return 1
    print((report.to_json if arguments.json else report.table)(rows, machine))
    return 0


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench", description="Benchmarks, each against a rival in the same run."
    )
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"one or more of: {', '.join(BENCHMARKS)}"
    )
    parser.add_argument("--json", action="store_true", help="print all measurements as JSON")
    arguments = parser.parse_args()
    unknown = [name for name in arguments.names if name not in BENCHMARKS]
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]}: they are {', '.join(BENCHMARKS)}")
    return arguments


if __name__ == "__main__":
    sys.exit(main())
