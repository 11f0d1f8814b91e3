# SPDX-License-Identifier: GPL-2.0-or-later
"""What a client that floods the daemon costs another one: latencies in quiet and flooded turns.

Daemon, flooder and the client that is measured are a process each. Quiet and flooded turns
alternate, so that both meet the same machine.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import wire
from bench.report import Row, Sample, at_most
from lab.host.local import HOST, LocalDaemon
from lab.running import Lab
from lab.steps import Step

REQUESTS = 10_000
TURN_S = 1.0
ROUNDS = 9
# What the flood may do to the 99th percentile.
MOST = 2.0
# By then the daemon has dealt with most of a flood; what is left goes with the connection.
FLOOD_S = 0.45
VERBS = {
    "10,000 ping2": wire.request("Host.ping2"),
    "10,000 getCapabilities": wire.request("Host.getCapabilities"),
    "100 batches of 100": wire.batch("Host.ping2", 100),
}


def run(_lab: Lab | None, step: Step) -> list[Row]:
    """Measure one client beside each kind of flood, and without it."""
    rows = []
    with tempfile.TemporaryDirectory() as directory, LocalDaemon(Path(directory)) as daemon:
        for verb in VERBS:
            step.progress(verb)
            rows += _rows(verb, measure(daemon.port, verb, ROUNDS))
    return rows


def _rows(verb: str, turns: list[tuple[list[float], list[float]]]) -> list[Row]:
    rows = []
    for percent in (50, 99):
        quiet, flooded = (
            Sample(tuple(_us(turn[which], percent) for turn in turns), "µs") for which in (0, 1)
        )
        rows.append(Row(f"ping2 beside {verb}, p{percent}", flooded, "without it", quiet))
    goal = at_most(MOST, rows[1].ratio, f"{MOST:g} times")
    return [rows[0], rows[1].with_goal(goal) if verb == "10,000 ping2" else rows[1]]


def measure(port: int, verb: str, rounds: int) -> list[tuple[list[float], list[float]]]:
    """Latencies, in seconds, of a client with one request in flight: in quiet, and under flood."""
    meter = wire.Connection(HOST, port)
    turns = []
    for _ in range(rounds):
        quiet = meter.latencies(TURN_S)
        flooder = subprocess.Popen(
            [sys.executable, "-m", "bench.flood", "--flooder", str(port), verb],
            stdout=subprocess.PIPE,
        )
        assert flooder.stdout is not None
        flooder.stdout.readline()
        try:
            turns.append((quiet, meter.latencies(TURN_S)))
        finally:
            flooder.kill()
            flooder.wait()
        time.sleep(0.2)
    meter.close()
    return turns


def flood(port: int, request: bytes) -> None:
    """Send floods until killed, each on a connection of its own, and read no reply."""
    count = max(REQUESTS // wire.requests_in(request), 1)
    while True:
        connection = wire.Connection(HOST, port)
        print("flooding", flush=True)
        began = time.monotonic()
        connection.send(request * count)
        time.sleep(max(FLOOD_S - (time.monotonic() - began), 0))
        connection.close()


def _us(latencies: list[float], percent: int) -> float:
    return statistics.quantiles(latencies, n=100)[percent - 1] * 1e6


def main() -> None:
    """Be the flooder, or run the benchmark on its own."""
    parser = argparse.ArgumentParser(prog="python -m bench.flood", description=__doc__)
    parser.add_argument("--flooder", nargs=2, metavar=("PORT", "VERB"), help="be the flooder")
    arguments = parser.parse_args()
    if arguments.flooder:
        port, verb = arguments.flooder
        flood(int(port), VERBS[verb])
    wire.print_rows(run)


if __name__ == "__main__":
    main()
