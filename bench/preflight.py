# SPDX-License-Identifier: GPL-2.0-or-later
"""What the checks of Ceph disks before a VM starts cost, for one disk and for sixteen.

Against `rbd status`, which tells of an image's watchers alone, a process for each image and all of
them at once. Ours asks through a worker that runs already, as it does on a host with VMs.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Iterable, Sequence
from typing import Any

from bench.report import Row, Sample, at_most
from lab.engine import disk_params, new_id
from lab.running import Lab
from lab.steps import Step
from vdsmcinder.ceph.workers import Workers
from vdsmcinder.config import Ceph as Options
from vdsmcinder.errors import CreateFailed
from vdsmcinder.tasks import Tasks
from vdsmcinder.virt.disk import ceph_images
from vdsmcinder.virt.disk.drive import Drive
from vdsmcinder.virt.secrets.secret import Secret, SecretName
from vdsmcinder.virt.storage.preflight import Preflight

COUNTS = (1, 16)
ROUNDS = 15
LIMIT_MS = 3000
RIVAL = "rbd status, all at once"


class OneSecret:
    """The daemon's secrets, of which there is the lab's key alone; libvirt is asked for nothing."""

    def __init__(self, key: str) -> None:
        self._secret = Secret(base64.b64decode(key))

    async def missing(self, _names: Iterable[SecretName]) -> list[SecretName]:
        """None."""
        return []

    def value(self, _name: SecretName) -> Secret:
        """The key."""
        return self._secret


def run(lab: Lab, step: Step) -> list[Row]:
    """Check disks on images of their own."""
    images = [f"bench-{new_id()}" for _ in range(max(COUNTS))]
    for image in images:
        lab.ceph.create_image(image, 8)
    try:
        return asyncio.run(_run(lab, images, step))
    finally:
        for image in images:
            lab.ceph.remove_image(image)


async def _run(lab: Lab, images: Sequence[str], step: Step) -> list[Row]:
    options, tasks = Options(), Tasks("benchmark")
    workers = Workers(options.timeout_s, options.worker_idle_s, tasks.group("Ceph"))
    secrets: Any = OneSecret(lab.ceph.key)
    preflight = Preflight(workers, secrets, options, tasks, lambda _key, _what: None)
    uuid = new_id()
    drives = [
        Drive.from_params(disk_params(lab.ceph, image, uuid, index=str(n)), ())
        for n, image in enumerate(images)
    ]
    rows = []
    try:
        for count in COUNTS:
            ours, theirs = [], []
            await _checked(preflight, drives[:count])
            for n in range(ROUNDS):
                step.progress(f"{count} disks, round {n + 1} of {ROUNDS}")
                ours.append(await _checked(preflight, drives[:count]))
                theirs.append(await _status(lab, images[:count]))
            rows += _rows(count, ours, theirs)
    finally:
        await workers.close()
    return rows


async def _checked(preflight: Preflight, drives: Sequence[Drive]) -> float:
    """How long the checks take, in ms, with giving the images free again."""
    began = time.perf_counter()
    disks = ceph_images.of_disks(*(drive.getXML() for drive in drives))
    claims = await preflight.check(disks, new_id(), CreateFailed)
    await claims.release()
    return (time.perf_counter() - began) * 1000


async def _status(lab: Lab, images: Sequence[str]) -> float:
    began = time.perf_counter()
    await asyncio.gather(
        *(asyncio.to_thread(lab.ceph.rbd, "status", image) for image in images),
    )
    return (time.perf_counter() - began) * 1000


def _rows(count: int, ours: Sequence[float], theirs: Sequence[float]) -> list[Row]:
    what = f"checks of {count} disk{'s' * (count > 1)}"
    took = Sample(tuple(ours), "ms")
    whole = Row(what, took, RIVAL, Sample(tuple(theirs), "ms"))
    whole = whole.with_goal(at_most(LIMIT_MS, took.median, f"{LIMIT_MS:,} ms"))
    if count == 1:
        return [whole]
    each = [Sample(tuple(ms / count for ms in all_ms), "ms") for all_ms in (ours, theirs)]
    return [whole, Row("… for each of them", each[0], RIVAL, each[1])]
