# SPDX-License-Identifier: GPL-2.0-or-later
"""The soak: VMs and disks come and go thousands of times, and nothing of them may be left.

`make soak` runs it: over libvirt's test driver in full, and in the lab, with real VMs and disks,
for as long as it is given. What is looked at: the daemon's resident memory, threads and file
descriptors, and the libvirt objects that it holds on to.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import libvirt

from bench.report import Machine
from lab.base import REPOSITORY, LabError
from lab.engine import Engine, forget_events, new_id
from lab.guest.domains import console_of, disk_xml
from lab.host.daemon import HostDaemon
from lab.host.local import HOST, LocalDaemon
from lab.running import Lab
from lab.steps import Step, Steps
from tests.faults import pluggable, report
from vdsmcinder import daemon
from vdsmcinder.stomp import client

PLUGS, CREATES, FIRST = 10_000, 1_000, 100
UP_TIMEOUT_S = 30.0
# What a process may have grown by and be the same: the allocator rounds, and caches fill.
SPARE_MB = 3.0
SPARE_THREADS, SPARE_FILES, SPARE_OBJECTS = 2, 2, 2
COUNT_TIMEOUT_S = 10.0
MB = 1_000_000
PYTHON = REPOSITORY / ".venv/bin/python"
PROGRAM = ("tests.faults.soak", "--serve")

Pair = Callable[[], Awaitable[None]]


@dataclass(frozen=True)
class Counts:
    """What a daemon holds. objects: libvirt's that Python refers to (connections, domains, ...)."""

    resident_mb: float
    threads: int
    files: int
    objects: int

    @classmethod
    def of(cls, pid: int, counts: Path) -> Counts:
        """Of a daemon of this module's, by its process and the file that it writes on SIGUSR1."""
        counts.unlink(missing_ok=True)
        os.kill(pid, signal.SIGUSR1)
        deadline = time.monotonic() + COUNT_TIMEOUT_S
        while not counts.exists():
            if time.monotonic() > deadline:
                raise LabError(f"the daemon did not count what it holds, see {counts.parent}")
            time.sleep(0.02)
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        fields = dict(line.split(":", 1) for line in status)
        return cls(
            int(fields["VmRSS"].split()[0]) * 1024 / MB,
            int(fields["Threads"]),
            len(list(Path(f"/proc/{pid}/fd").iterdir())),
            sum(json.loads(counts.read_text()).values()),
        )


@dataclass(frozen=True)
class Course:
    """What came of one kind of pair on one kind of host; it was counted first after `warm`."""

    what: str
    where: str
    warm: int
    pairs: int
    took_s: float
    first: Counts
    last: Counts

    @property
    def grown(self) -> list[str]:
        """What there is more of at the end; none if it is flat."""
        limits = {
            "resident_mb": SPARE_MB,
            "threads": SPARE_THREADS,
            "files": SPARE_FILES,
            "objects": SPARE_OBJECTS,
        }
        first, last = asdict(self.first), asdict(self.last)
        return [
            f"{name} from {first[name]:g} to {last[name]:g}"
            for name, spare in limits.items()
            if last[name] - first[name] > spare
        ]


@dataclass(frozen=True)
class Length:
    """How much is done. first: after so many pairs it is counted for the first time.

    most_s: when it ends although there are pairs left.
    """

    plugs: int
    creates: int
    first: int
    most_s: float = 1e9


# The daemon's side


def serve(config: str) -> int:
    """Be a daemon that counts, on SIGUSR1, the libvirt objects that it holds."""
    if "test://" in Path(config).read_text():
        pluggable.Plugs().install()
    signal.signal(signal.SIGUSR1, lambda *_: _count(Path(config).with_suffix(".counts")))
    return daemon.main(["--config", config])


def _count(file: Path) -> None:
    gc.collect()
    kinds = (libvirt.virConnect, libvirt.virDomain, libvirt.virSecret, libvirt.virStream)
    found = Counter(type(o).__name__ for o in gc.get_objects() if isinstance(o, kinds))
    part = file.with_suffix(".part")
    part.write_text(json.dumps(found))
    part.rename(file)


# The engine's side


class Soak:
    """Pairs on one host, one after the other, and what its daemon holds meanwhile."""

    def __init__(self, where: str, count: Callable[[], Counts], length: Length) -> None:
        self._where = where
        self._count = count
        self._length = length

    async def plugs(self, pair: Pair, step: Step) -> Course:
        """Disks that are plugged and unplugged."""
        return await self._repeat("hot-plug and unplug", pair, self._length.plugs, step)

    async def creates(self, pair: Pair, step: Step) -> Course:
        """VMs that are created and destroyed."""
        return await self._repeat("create and destroy", pair, self._length.creates, step)

    async def _repeat(self, what: str, pair: Pair, pairs: int, step: Step) -> Course:
        began, done, first = time.monotonic(), 0, None
        while done < pairs and time.monotonic() - began < self._length.most_s:
            await pair()
            done += 1
            if done == self._length.first:
                first = await asyncio.to_thread(self._count)
            if done % 10 == 0:
                step.progress(f"{done:,} of {pairs:,}")
        took_s = time.monotonic() - began
        if first is None:
            raise LabError(f"{done} pairs in {took_s:.0f} s are too few: give it more time")
        last = await asyncio.to_thread(self._count)
        return Course(what, self._where, self._length.first, done, took_s, first, last)


async def on_test_driver(length: Length, steps: Steps) -> list[Course]:
    """Domains of libvirt's test driver, into which pluggable.py plugs disks."""
    courses = []
    with tempfile.TemporaryDirectory() as path:
        directory = Path(path)
        with LocalDaemon(directory, pluggable.host(directory), program=PROGRAM) as local:
            counts = directory / "vdsm-cinder.counts"
            soak = Soak("test driver", lambda: Counts.of(local.pid, counts), length)
            session = await client.connect(HOST, local.port, heartbeat_ms=0)
            await session.subscribe_events()
            vm_id = new_id()

            async def create(vm_id: str) -> None:
                params = {"vmID": vm_id, "vmParams": pluggable.domain(vm_id)}
                await session.call("VM.create", params)
                await session.wait_for_event(lambda event: _is_up(event, vm_id), UP_TIMEOUT_S)

            async def pair() -> None:
                vm_id = new_id()
                await create(vm_id)
                await session.call("VM.destroy", {"vmID": vm_id})
                # Or this side's memory would fill with what nobody waits for.
                await forget_events(session)

            async def plug() -> None:
                params = {"vmID": vm_id, "params": pluggable.disk(vm_id, "volume-1")}
                await session.call("VM.hotplugDisk", params)
                await session.call("VM.hotunplugDisk", params)

            with steps.step("libvirt's test driver: create and destroy") as step:
                courses.append(await soak.creates(pair, step))
            await create(vm_id)
            with steps.step("libvirt's test driver: hot-plug and unplug") as step:
                courses.append(await soak.plugs(plug, step))
            await session.close()
    return courses


async def in_lab(length: Length, steps: Steps) -> list[Course]:
    """Real VMs on host1 of the lab that runs, and real disks, which a guest sees come and go."""
    lab, courses = Lab.attach(), []
    options = {"log": {"level": "INFO"}}
    host = lab.hosts["host1"]
    async with AsyncExitStack() as stack:
        made = HostDaemon(host, lab.pki, options, "soak", program=(PYTHON, "-m", *PROGRAM))
        running = stack.enter_context(made)
        engine = await stack.enter_async_context(Engine(lab, running))
        await engine.register_key()
        counts = running.config.with_suffix(".counts")
        pid = running.process.pid_outside
        soak = Soak("lab", lambda: Counts.of(pid, counts), length)
        image, spare = (f"volume-{new_id()}" for _ in range(2))
        for name in (image, spare):
            await asyncio.to_thread(lab.ceph.create_image, name, 8)

        async def pair() -> None:
            vm_id = await engine.run(engine.flat(new_id(), engine.disk(spare), memSize=64))
            await engine.destroy(vm_id)
            # As above.
            await forget_events(engine.session)

        with steps.step("the lab: create and destroy") as step:
            courses.append(await soak.creates(pair, step))
        async with _guest(engine, image) as vm_id:
            disk = {"vmId": vm_id, "drive": engine.disk(spare)}

            async def plug() -> None:
                await engine.call("VM.hotplugDisk", vmID=vm_id, params=disk)
                await engine.call("VM.hotunplugDisk", vmID=vm_id, params=disk)

            with steps.step("the lab: hot-plug and unplug") as step:
                courses.append(await soak.plugs(plug, step))
    return courses


@asynccontextmanager
async def _guest(engine: Engine, image: str) -> AsyncIterator[str]:
    vm_id = new_id()
    disk = disk_xml(engine.lab.ceph, image, "vda", engine.secret_id)
    await engine.run(engine.document(vm_id, disk))
    try:
        with console_of(engine.daemon.host, f"vm-{vm_id}") as console:
            await asyncio.to_thread(console.wait_ready)
            yield vm_id
    finally:
        await engine.destroy(vm_id)


def _is_up(event: Mapping[str, Any], vm_id: str) -> bool:
    status = event["params"].get(vm_id, {}).get("status")
    return isinstance(status, str) and status == "Up"


# What is told


HEAD = (
    *("pairs", "on", "number", "a pair", "memory", "threads"),
    *("file descriptors", "libvirt objects", "flat"),
)


def _cells(course: Course) -> tuple[str, ...]:
    first, last = course.first, course.last
    return (
        course.what,
        course.where,
        f"{course.warm:,} → {course.pairs:,}",
        f"{course.took_s / course.pairs * 1000:.1f} ms",
        f"{first.resident_mb:.1f} → {last.resident_mb:.1f} MB",
        f"{first.threads} → {last.threads}",
        f"{first.files} → {last.files}",
        f"{first.objects} → {last.objects}",
        "NO: " + ", ".join(course.grown) if course.grown else "yes",
    )


def main() -> int:
    """Run it; 0 if nothing of what came and went is left."""
    arguments = _parse()
    if arguments.serve:
        return serve(arguments.serve)
    machine, steps = Machine.here(), Steps(sys.stderr)
    try:
        courses = asyncio.run(_run(arguments, steps))
    except LabError as e:
        print(f"soak: {e}.", file=sys.stderr)
        return 1
    rows = [_cells(course) for course in courses]
    print(report.columns(HEAD, rows))
    if arguments.write:
        content = [report.table(HEAD, rows), "", report.measured_on(machine)]
        report.write_section("soak", "\n".join(content))
    return 1 if any(course.grown for course in courses) else 0


async def _run(arguments: argparse.Namespace, steps: Steps) -> list[Course]:
    length = Length(arguments.plugs, arguments.creates, arguments.first)
    courses = await on_test_driver(length, steps)
    if arguments.lab:
        # Half of the time for each kind; the second gets what the first has left of it.
        most_s = arguments.lab / 2
        courses += await in_lab(Length(PLUGS, CREATES, arguments.first, most_s), steps)
    return courses


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak", description=__doc__)
    parser.add_argument("--plugs", type=int, default=PLUGS, metavar="N", help="pairs of hot-plugs")
    parser.add_argument("--creates", type=int, default=CREATES, metavar="N", help="and of creates")
    parser.add_argument(
        "--first", type=int, default=FIRST, metavar="N", help="count for the first time after N"
    )
    parser.add_argument(
        "--lab", type=float, metavar="SECONDS", help="go on for so long in the lab that runs"
    )
    parser.add_argument("--write", action="store_true", help="write the table to docs/faults.md")
    parser.add_argument("--serve", metavar="CONFIG", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
