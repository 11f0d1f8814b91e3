# SPDX-License-Identifier: GPL-2.0-or-later
"""Drive.getXML() of a Ceph disk, against lxml called with the same values by hand.

The rival is the least that anybody can do to have the same element: no object, no decisions.
"""

from __future__ import annotations

import timeit

from lxml import etree

from bench.report import Row, Sample, at_most
from lab.engine import disk_params, new_id
from lab.running import Lab
from lab.steps import Step
from vdsmcinder.virt.disk.drive import Drive

ROUNDS = 40
CALLS = 2000


def run(lab: Lab, step: Step) -> list[Row]:
    """Time both in turn."""
    secret = new_id()
    drive = Drive.from_params(disk_params(lab.ceph, "volume-0", secret, deviceId=None))
    monitors = [monitor.address for monitor in lab.ceph.monitors]

    def rival() -> etree._Element:
        disk = etree.Element("disk", {"type": "network", "device": "disk", "snapshot": "no"})
        source = etree.SubElement(disk, "source", {"protocol": "rbd", "name": "volumes/volume-0"})
        for monitor in monitors:
            etree.SubElement(source, "host", {"name": monitor, "port": "6789", "transport": "tcp"})
        auth = etree.SubElement(disk, "auth", {"username": "cinder"})
        etree.SubElement(auth, "secret", {"type": "ceph", "uuid": secret})
        etree.SubElement(disk, "target", {"dev": "vda", "bus": "virtio"})
        attributes = {"name": "qemu", "type": "raw", "cache": "none", "io": "threads"}
        etree.SubElement(disk, "driver", {**attributes, "error_policy": "stop"})
        return disk

    written, by_hand = (etree.tostring(e, method="c14n") for e in (drive.getXML(), rival()))
    assert written == by_hand, f"these should be equal: {written!r} and {by_hand!r}"

    ours, theirs = [], []
    for n in range(ROUNDS):
        step.progress(f"{n} of {ROUNDS}")
        ours.append(timeit.timeit(drive.getXML, number=CALLS) / CALLS * 1e6)
        theirs.append(timeit.timeit(rival, number=CALLS) / CALLS * 1e6)
    row = Row("getXML, 3 monitors and auth", _us(ours), "bare lxml", _us(theirs))
    return [row.with_goal(at_most(1.5, row.ratio, "1.5 times"))]


def _us(values: list[float]) -> Sample:
    return Sample(tuple(values), "µs")
