# SPDX-License-Identifier: GPL-2.0-or-later
"""What many VMs cost: Host.getAllVmStats while they are sampled, and the processor per sample.

The daemons run on libvirt's test driver, whose domains cost nothing. That driver's statistics hold
a domain's state alone, so fields as QEMU's driver gives them for a VM with two disks and a NIC are
added to each as it comes out of libvirt.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

from bench import wire
from bench.report import Row, Sample, at_most
from lab.host.local import HOST, LocalDaemon
from lab.running import Lab
from lab.steps import Step
from vdsmcinder import daemon
from vdsmcinder.virt.domain import stats

COUNTS = (10, 100, 1000)
# Far more often than by default, so that the calls that are measured meet samples.
SAMPLE_INTERVAL_S = 0.5
DEFAULT_INTERVAL_S = 5.0
CALLS = wire.request("Host.getAllVmStats")
MEASURE_S = 3.0
ROUNDS = 5
MOST_MS = 50.0
MOST_CORE = 5.0
_WHOLE = Sample((100.0,) * ROUNDS, "%")
DOMAIN = """\
<domain type='test'>
  <name>vm{number}</name>
  <uuid>{uuid}</uuid>
  <metadata>
    <ovirt-vm:vm xmlns:ovirt-vm='http://ovirt.org/vm/1.0'>
      <ovirt-vm:vdsmCinder version='1'/>
      <ovirt-vm:minGuaranteedMemoryMb type='int'>512</ovirt-vm:minGuaranteedMemoryMb>
    </ovirt-vm:vm>
  </metadata>
  <memory unit='MiB'>1024</memory>
  <vcpu>2</vcpu>
  <os><type arch='x86_64'>hvm</type></os>
  <features><acpi/></features>
  <devices>
{disks}    <interface type='network'>
      <mac address='52:54:00:00:{high:02x}:{low:02x}'/>
      <source network='default'/>
      <target dev='testnet{number}'/>
      <model type='virtio'/>
    </interface>
    <graphics type='vnc' port='5900'/>
  </devices>
</domain>
"""
DISK = """\
    <disk type='network' device='disk'>
      <driver name='qemu' type='raw' cache='none' error_policy='stop' io='threads'/>
      <auth username='cinder'>
        <secret type='ceph' uuid='5b7c1c1e-0e0b-4c0a-9a4e-3f1d2a6b8c9d'/>
      </auth>
      <source protocol='rbd' name='volumes/volume-{uuid}'>
        <host name='10.0.0.1' port='6789'/>
        <host name='10.0.0.2' port='6789'/>
        <host name='10.0.0.3' port='6789'/>
      </source>
      <target dev='{target}' bus='virtio'/>
      <serial>{uuid}</serial>
      <alias name='ua-{uuid}'/>
    </disk>
"""
_DISK_FIELDS = ("rd.reqs", "rd.bytes", "rd.times", "wr.reqs", "wr.bytes", "wr.times")
_DISK_TOTALS = ("fl.reqs", "fl.times", "allocation", "capacity", "physical")
_NIC_FIELDS = ("bytes", "pkts", "errs", "drop")
_BALLOON_FIELDS = (
    *("current", "maximum", "swap_in", "swap_out", "major_fault", "minor_fault"),
    *("unused", "available", "rss", "usable", "last-update", "disk_caches"),
)


def run(_lab: Lab | None, step: Step) -> list[Row]:
    """Measure with each number of VMs; without any for what there is to compare with."""
    rows: list[Row] = []
    for count in COUNTS:
        step.progress(f"{count} VMs")
        with tempfile.TemporaryDirectory() as directory:
            rows += _measure(Path(directory), count)
    return rows


def _measure(directory: Path, count: int) -> list[Row]:
    domains = directory / "domains.xml"
    domains.write_text(f"<node>{''.join(map(_domain, range(count)))}</node>")
    changes = {
        "libvirt": {"uri": f"test://{domains}"},
        "vms": {"sample_interval_s": SAMPLE_INTERVAL_S},
    }
    program = ("bench.many_vms", "--serve")
    with LocalDaemon(directory, changes, program=program) as host:
        client = wire.Connection(HOST, host.port)
        _wait_for_samples(client, count)
        used = [_cpu_per_sample(host) / DEFAULT_INTERVAL_S * 100 for _ in range(ROUNDS)]
        calls = [client.latencies(MEASURE_S, CALLS) for _ in range(ROUNDS)]
        client.send(CALLS)
        statistics_of_all = json.loads(client.read_frame().partition(b"\n\n")[2])
        client.close()
    encoded = [_time_to_encode(statistics_of_all) for _ in range(ROUNDS)]
    ask = f"getAllVmStats of {count:,}"
    encode = Sample(tuple(encoded), "ms")
    p50 = Row(f"{ask}, p50", _ms(calls, 50), "its json.dumps", encode)
    p99 = Row(f"{ask}, p99", _ms(calls, 99), "its json.dumps", encode)
    core = Row(f"sampling {count:,}, of a core", Sample(tuple(used), "%"), "all of it", _WHOLE)
    if count < max(COUNTS):
        return [p50, p99, core]
    return [
        p50,
        p99.with_goal(at_most(MOST_MS, p99.ours.median, f"{MOST_MS:g} ms")),
        core.with_goal(at_most(MOST_CORE, core.ours.median, f"{MOST_CORE:g} %")),
    ]


def _time_to_encode(content: Any) -> float:
    began = time.perf_counter()
    json.dumps(content)
    return (time.perf_counter() - began) * 1e3


def _cpu_per_sample(host: LocalDaemon) -> float:
    """Processor seconds of an interval in which there is nothing to do but to sample."""
    began, used = time.monotonic(), host.cpu_s()
    time.sleep(MEASURE_S)
    return (host.cpu_s() - used) / (time.monotonic() - began) * SAMPLE_INTERVAL_S


def _wait_for_samples(client: wire.Connection, count: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        client.send(CALLS)
        if client.read_frame().count(b'"vcpuCount"') == count:
            return
        time.sleep(0.1)
    raise SystemExit(f"the daemon did not sample {count} VMs")


def _ms(calls: list[list[float]], percent: int) -> Sample:
    values = (statistics.quantiles(c, n=100)[percent - 1] * 1e3 for c in calls)
    return Sample(tuple(values), "ms")


def _domain(number: int) -> str:
    return DOMAIN.format(
        number=number,
        uuid=uuid.uuid4(),
        high=number >> 8,
        low=number & 255,
        disks="".join(DISK.format(uuid=uuid.uuid4(), target=t) for t in ("vda", "vdb")),
    )


def _fields(nic: str) -> dict[str, Any]:
    """What QEMU's driver tells of a VM; figures are in the millions, as they are in life."""
    fields: dict[str, Any] = {"cpu.time": 10**9, "cpu.user": 10**8, "cpu.system": 10**8}
    fields.update({f"balloon.{name}": 1048576 for name in _BALLOON_FIELDS})
    fields.update({"vcpu.current": 2, "vcpu.maximum": 2})
    for number in range(2):
        prefix = f"vcpu.{number}."
        fields.update({f"{prefix}{n}": 10**9 for n in ("state", "time", "wait", "delay")})
    fields.update({"net.count": 1, "net.0.name": nic})
    fields.update({f"net.0.{way}.{name}": 10**7 for way in ("rx", "tx") for name in _NIC_FIELDS})
    fields["block.count"] = 2
    for number, target in enumerate(("vda", "vdb")):
        prefix = f"block.{number}."
        fields.update({f"{prefix}name": target, f"{prefix}backingIndex": number})
        fields.update({f"{prefix}{name}": 10**9 for name in (*_DISK_FIELDS, *_DISK_TOTALS)})
    return fields


def _collect_in_full(collect: Any) -> Any:
    known: dict[str, dict[str, Any]] = {}

    def collect_in_full(*arguments: Any) -> list[tuple[str, dict[str, Any], int]]:
        passed = time.monotonic_ns()
        found = []
        for vm_id, fields, silent_ms in collect(*arguments):
            if vm_id not in known:
                known[vm_id] = _fields(f"testnet{len(known)}")
            busy = {"cpu.time": passed, "block.0.wr.bytes": passed, "block.1.rd.reqs": passed}
            found.append((vm_id, {**fields, **known[vm_id], **busy}, silent_ms))
        return found

    return collect_in_full


def main() -> None:
    """Be the daemon whose statistics are full, or run the benchmark on its own."""
    parser = argparse.ArgumentParser(prog="python -m bench.many_vms", description=__doc__)
    parser.add_argument("--serve", metavar="CONFIG", help="be a daemon whose statistics are full")
    arguments = parser.parse_args()
    if arguments.serve:
        full = _collect_in_full(stats.Collector.collect)
        stats.Collector.collect = full  # type: ignore[method-assign]
        sys.exit(daemon.main(["--config", arguments.serve]))
    wire.print_rows(run)


if __name__ == "__main__":
    main()
