# SPDX-License-Identifier: GPL-2.0-or-later
"""What a guest gets out of a disk on Ceph, with the default settings and with others.

One VM under emulation has a disk for each setting, all on images of their own; each round puts
every load on every disk in turn, beginning with another one each time. What the default's ratio to
a second disk of the same settings is other than 1 is noise. docs/storage.md draws the conclusions.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from bench.report import Row, Sample
from lab.engine import Engine, new_id
from lab.guest.console import GuestConsole
from lab.guest.domains import pty_console
from lab.host.daemon import HostDaemon
from lab.running import Lab
from lab.steps import Step

ROUNDS = 5
IMAGE_MIB = 64
KIB, MIB = 1024, 1024 * 1024
OPTIONS = {"log": {"level": "INFO"}}

DEFAULT = "default"
# What differs from the default, in the words of a device description.
SETTINGS: Mapping[str, Mapping[str, Any]] = {
    DEFAULT: {},
    "the same again": {},
    "cache writeback": {"cache": "writeback"},
    "cache writethrough": {"cache": "writethrough"},
    "cache directsync": {"cache": "directsync"},
    "an I/O thread": {"specParams": {"pinToIoThread": "1"}},
    "one queue": {"specParams": {"queues": "1"}},
    "discard": {"discard": "true"},
    "discard, detectZeroes": {"discard": "true", "detectZeroes": "unmap"},
}

# The guest's part. Each job has 4 MiB of the disk and of the random data to itself; the subshell's
# `wait` waits for its own jobs alone. Prints the time that all took, in hundredths of a second.
FUNCTIONS = (
    "now() { cut -d' ' -f1 /proc/uptime | tr -d .; }",
    "put() { dd if=/tmp/random of=/dev/$1 bs=$2 count=$3 seek=$(($4 * 4194304 / $2))"
    " oflag=direct conv=notrunc 2>/dev/null; }",
    "get() { dd if=/dev/$1 of=/dev/null bs=$2 count=$3 skip=$(($4 * 4194304 / $2))"
    " iflag=direct 2>/dev/null; }",
    "flushed() { n=0; while [ $n -lt $3 ]; do dd if=/tmp/random of=/dev/$1 bs=$2 count=1 seek=$n"
    " oflag=direct conv=notrunc,fsync 2>/dev/null; n=$((n + 1)); done; }",
    "load() { began=$(now); (job=0; while [ $job -lt $5 ]; do $1 $2 $3 $4 $job & job=$((job + 1));"
    " done; wait); say took $(($(now) - began)); }",
    "head -c 4194304 /dev/urandom >/tmp/random",
)


@dataclass(frozen=True)
class Load:
    """Operations of one kind. count: of each job."""

    what: str
    function: str
    size_bytes: int
    count: int
    jobs: int = 1

    def rate(self, console: GuestConsole, disk: str) -> float:
        """Operations a second."""
        words = f"{self.function} {disk} {self.size_bytes} {self.count} {self.jobs}"
        taken = console.ask(f"sh load {words}", r"^took (\d+)$", 120)[1]
        return self.count * self.jobs * 100 / max(int(taken), 1)


LOADS = (
    Load("4 KiB writes, one at a time", "put", 4 * KIB, 200),
    Load("4 KiB writes, 8 at once", "put", 4 * KIB, 100, 8),
    Load("4 KiB writes, each flushed", "flushed", 4 * KIB, 40),
    Load("4 KiB reads, 8 at once", "get", 4 * KIB, 150, 8),
    Load("1 MiB writes, 4 at once", "put", MIB, 4, 4),
)


def run(lab: Lab, step: Step) -> list[Row]:
    """Compare each setting with the default."""
    with HostDaemon(lab.hosts["host1"], lab.pki, OPTIONS, "bench") as daemon:
        return asyncio.run(_run(lab, daemon, step))


async def _run(lab: Lab, daemon: HostDaemon, step: Step) -> list[Row]:
    images = [f"bench-{new_id()}" for _ in SETTINGS]
    for image in images:
        lab.ceph.create_image(image, IMAGE_MIB)
    try:
        async with Engine(lab, daemon) as engine:
            await engine.register_key()
            disks = [
                engine.disk(image, **setting) for image, setting in zip(images, SETTINGS.values())
            ]
            vm_id = await engine.run(_params(engine, disks))
            try:
                host = daemon.host
                with pty_console(host, host.virsh("ttyconsole", vm_id)) as console:
                    return _compare(console, step)
            finally:
                await engine.destroy(vm_id)
    finally:
        for image in images:
            lab.ceph.remove_image(image)


def _params(engine: Engine, disks: list[dict[str, Any]]) -> dict[str, Any]:
    guest = engine.lab.guest
    return engine.flat(
        new_id(),
        *disks,
        smp="2",
        numOfIoThreads="1",
        kernel=str(guest.kernel),
        initrd=str(guest.initrd),
        kernelArgs=guest.kernel_args,
    )


def _compare(console: GuestConsole, step: Step) -> list[Row]:
    console.wait_ready()
    for line in FUNCTIONS:
        console.ask(f"sh {line}", "^sh 0$")
    disks = dict(zip(SETTINGS, sorted(console.disks())))
    for setting, disk in disks.items():
        step.progress(f"filling {setting}")
        # The first write of an object is slower than those that follow.
        Load("filling", "put", MIB, 4, 8).rate(console, disk)
    rates: dict[tuple[str, str], list[float]] = {}
    for n in range(ROUNDS):
        for load in LOADS:
            step.progress(f"round {n + 1} of {ROUNDS}: {load.what}")
            in_turn = [*disks.items()]
            for setting, disk in (*in_turn[n:], *in_turn[:n]):
                rates.setdefault((load.what, setting), []).append(load.rate(console, disk))
    return [
        Row(
            load.what,
            _sample(rates[load.what, DEFAULT]),
            setting,
            _sample(rates[load.what, setting]),
        )
        for load in LOADS
        for setting in SETTINGS
        if setting != DEFAULT
    ]


def _sample(rates: list[float]) -> Sample:
    return Sample(tuple(rates), "/s")
