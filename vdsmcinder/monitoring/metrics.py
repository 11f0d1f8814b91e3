# SPDX-License-Identifier: GPL-2.0-or-later
"""All metrics by name, read at scrape time from the parts of the daemon that hold the numbers.

Imported when GET /metrics is first asked for: until then nobody pays for prometheus_client. Names
follow https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Callable, NamedTuple

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector

import vdsmcinder
from vdsmcinder.ceph.cluster_monitor import ClusterMonitor, ClusterState
from vdsmcinder.host.stats import HostSampler
from vdsmcinder.hypervisor.connection import Connection
from vdsmcinder.rpc.dispatch import Dispatcher
from vdsmcinder.rpc.events import Events
from vdsmcinder.system.counters import BOUNDS_S, Tally
from vdsmcinder.transport.listener import Listener
from vdsmcinder.transport.status_pages import Page
from vdsmcinder.virt.domain.stats import DiskSample, NicSample, VmSample
from vdsmcinder.virt.migration.migrations import Migrations
from vdsmcinder.virt.secrets.secrets import Secrets
from vdsmcinder.virt.vm.registry import Registry
from vdsmcinder.virt.vm.status import Status
from vdsmcinder.virt.vm.vm import VM

PREFIX = "vdsm_cinder_"
# Values by those of their labels, which are tuples of strings.
_Values = Mapping[Any, float]
_BOUNDS = (*(str(bound) for bound in BOUNDS_S), "+Inf")

# name, help, and where the value is: counters of which there is one for each disk, NIC, protocol.
_Column = tuple[str, str, Callable[[Any], float]]
_DISK: tuple[_Column, ...] = (
    ("read_bytes", "Bytes read from the disk.", lambda d: d.read_bytes),
    ("written_bytes", "Bytes written to the disk.", lambda d: d.write_bytes),
    ("reads", "Read requests.", lambda d: d.read_ops),
    ("writes", "Write requests.", lambda d: d.write_ops),
    ("flushes", "Flush requests.", lambda d: d.flush_ops),
    ("read_seconds", "Time spent in read requests.", lambda d: d.read_time_ns / 1e9),
    ("write_seconds", "Time spent in write requests.", lambda d: d.write_time_ns / 1e9),
    ("flush_seconds", "Time spent in flush requests.", lambda d: d.flush_time_ns / 1e9),
)
_NIC: tuple[_Column, ...] = (
    ("receive_bytes", "Bytes received.", lambda n: n.rx_bytes),
    ("transmit_bytes", "Bytes sent.", lambda n: n.tx_bytes),
    ("receive_errors", "Errors while receiving.", lambda n: n.rx_errors),
    ("transmit_errors", "Errors while sending.", lambda n: n.tx_errors),
    ("receive_dropped", "Packets received and dropped.", lambda n: n.rx_dropped),
    ("transmit_dropped", "Packets to be sent and dropped.", lambda n: n.tx_dropped),
)
_DELIVERIES: tuple[_Column, ...] = (
    ("events_sent", "Events to clients, each one counted.", lambda d: d.events_sent),
    (
        "events_dropped",
        "Events that a client which was dropped had not read, as far as is known.",
        lambda d: d.events_dropped,
    ),
    (
        "clients_dropped",
        "Clients that were dropped because they did not read.",
        lambda d: d.clients_dropped,
    ),
)


@dataclass(frozen=True)
class Sources:
    """The parts of the daemon that hold the numbers."""

    health: Callable[[], Mapping[str, Any]]
    dispatcher: Dispatcher
    listener: Listener
    events: Events
    connection: Connection
    registry: Registry
    secrets: Secrets
    host: HostSampler
    ceph: ClusterMonitor
    migrations: Migrations


class Exporter:
    """Makes the page for Prometheus."""

    def __init__(self, sources: Sources) -> None:
        self._sources = sources
        self._process = ProcessCollector(registry=None)

    async def page(self) -> Page:
        """All metrics as they are now.

        What changes while the daemon works is read here, on the loop; what takes long with many
        VMs, a quarter of a second with a thousand, is done in a thread.
        """
        s = self._sources
        metrics = [
            *_daemon(s),
            *_requests(s.dispatcher, s.listener),
            *_clients(s.listener, s.events),
            *_libvirt(s.connection, s.secrets),
            *_host(s.host),
            *_ceph(s.ceph.clusters),
            *_migrations(s.migrations),
        ]
        vms = [_VmNow.of(vm) for vm in s.registry.vms()]
        return await asyncio.to_thread(self._write, metrics, vms)

    def _write(self, metrics: list[Metric], vms: list[_VmNow]) -> Page:
        registry = CollectorRegistry()
        registry.register(_Collected(itertools.chain(metrics, _vms(vms))))
        registry.register(self._process)
        return Page(CONTENT_TYPE_LATEST, generate_latest(registry))


class _Collected(Collector):
    """Metrics that are there already, as prometheus_client asks for them; once."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def describe(self) -> Iterable[Metric]:
        """Nothing: else they would be collected at registration, to learn their names."""
        return ()

    def collect(self) -> Iterable[Metric]:
        """The metrics."""
        return self._metrics


class _VmNow(NamedTuple):
    """What metrics tell of a VM, at one moment."""

    id: str
    name: str
    status: Status
    responsive: bool
    sample: VmSample | None

    @classmethod
    def of(cls, vm: VM) -> _VmNow:
        """A VM that is Down has no sample: the counters of its QEMU went with it."""
        sample = vm.sample if vm.running else None
        return cls(vm.id, vm.name, vm.status, vm.monitor_responsive, sample)


def _daemon(s: Sources) -> Iterator[Metric]:
    health = s.health()
    yield _gauge("info", "The daemon's version.", {(vdsmcinder.__version__,): 1}, "version")
    yield _gauge("ready", "Whether engines can be served.", {(): health["ready"]})
    yield _gauge(
        "healthy", "Whether nothing is wrong; GET /health says what.", {(): not health["reasons"]}
    )
    certificates = s.listener.certificates
    if certificates is not None:
        yield _gauge(
            "certificate_expiry_timestamp_seconds",
            "When the certificate ceases to be valid: the host's, or a CA's, its first.",
            {(held.owner.value,): certificates.expiry(held.owner) for held in certificates.held},
            "certificate",
        )


def _requests(dispatcher: Dispatcher, listener: Listener) -> Iterator[Metric]:
    yield from _work("request", "Requests answered", "verb", dispatcher.tallies)
    # Copied, because those that the listener refuses belong there too.
    refused = Counter({(str(code),): n for code, n in dispatcher.refused.items()})
    refused["1100",] += listener.requests_refused
    yield _counter("requests_refused", "Requests that reached no verb.", refused, "outcome")
    under_way = {(): listener.requests_under_way}
    yield _gauge("requests_under_way", "Requests for verbs that take their time.", under_way)


def _clients(listener: Listener, events: Events) -> Iterator[Metric]:
    standing = {(p.value,): n for p, n in listener.connections.items()}
    yield _gauge("connections", "Connections that stand.", standing, "protocol")
    accepted = {(p.value,): listener.accepted[p] for p in listener.connections}
    yield _counter("connections_accepted", "Connections so far.", accepted, "protocol")
    yield _counter(
        "connections_refused",
        "Clients that did not get as far as a protocol: no valid certificate, or silent.",
        {(): listener.turned_away},
    )
    held = {(): listener.held_bytes}
    yield _gauge("connections_held_bytes", "What clients left unread, or unanswered.", held)
    yield _counter("events", "Events, whether anybody heard them or not.", {(): events.published})
    by_protocol = {(p.value,): sent for p, sent in listener.deliveries.items()}
    yield from _columns("", _DELIVERIES, by_protocol, "protocol")


def _libvirt(connection: Connection, secrets: Secrets) -> Iterator[Metric]:
    yield _gauge("libvirt_up", "Whether libvirt can be called.", {(): connection.ready})
    yield from _work("libvirt_call", "Calls of libvirt", "call", connection.tallies)
    stuck = {(): connection.stuck_calls}
    yield _gauge("libvirt_calls_stuck", "Calls that are overdue and not back yet.", stuck)
    waiting = {(): connection.calls_waiting}
    yield _gauge("libvirt_calls_waiting", "Calls that wait for a thread.", waiting)
    yield _gauge("libvirt_threads", "Threads for calls of libvirt.", {(): connection.threads})
    busy = {(): connection.threads_busy}
    yield _gauge("libvirt_threads_busy", "Threads that make a call now.", busy)
    if connection.ready and secrets.count is not None:
        yield _gauge("secrets", "Secrets of ours that libvirt holds.", {(): secrets.count})


def _host(host: HostSampler) -> Iterator[Metric]:
    sample = host.snapshot()
    memory = sample.memory
    kinds = {
        ("user",): sample.cpu.user_pct / 100,
        ("system",): sample.cpu.sys_pct / 100,
        ("idle",): sample.cpu.idle_pct / 100,
    }
    yield _gauge("host_cpu_ratio", "Shares of the host's processors' time.", kinds, "mode")
    sizes = {("total",): memory.total_kib * 1024, ("available",): memory.available_kib * 1024}
    yield _gauge("host_memory_bytes", "The host's memory.", sizes, "kind")
    free = {(str(n),): node.free_kib * 1024 for n, node in sample.nodes.items()}
    yield _gauge("host_numa_free_bytes", "Free memory of a NUMA node.", free, "node")
    pages = {
        (str(n), str(size_kib * 1024)): count
        for n, node in sample.nodes.items()
        for size_kib, count in node.free_huge_pages.items()
    }
    yield _gauge(
        "host_huge_pages_free", "Free huge pages of a NUMA node.", pages, "node", "page_bytes"
    )
    yield from _columns("host_network_", _NIC, {(n,): nic for n, nic in sample.nics.items()}, "nic")


_HEALTH = {"HEALTH_OK": 0, "HEALTH_WARN": 1, "HEALTH_ERR": 2}


def _ceph(clusters: Collection[ClusterState]) -> Iterator[Metric]:
    named = {(c.name, c.account.user or ""): c for c in clusters}
    labels = ("cluster", "user")
    up = {k: c.trouble is None for k, c in named.items()}
    yield _gauge("ceph_up", "Whether the cluster can be reached from here.", up, *labels)
    answered = {k: c.answered_s for k, c in named.items() if c.fsid and c.trouble is None}
    yield _gauge("ceph_answer_seconds", "How long it took to answer.", answered, *labels)
    health = {k: _HEALTH[c.health] for k, c in named.items() if c.health in _HEALTH}
    yield _gauge("ceph_health", "0 is HEALTH_OK, 1 HEALTH_WARN, 2 HEALTH_ERR.", health, *labels)
    full = {k: len(c.full_osds) for k, c in named.items() if c.health}
    yield _gauge("ceph_full_osds", "OSDs that are full or nearly so.", full, *labels)
    monitors = {(*k, m.name or m.address): m for k, c in named.items() for m in c.monitors}
    reachable = {k: m.trouble is None for k, m in monitors.items()}
    yield _gauge(
        "ceph_monitor_up", "Whether the monitor answers this host.", reachable, *labels, "monitor"
    )
    quorum = {k: m.in_quorum for k, m in monitors.items() if m.in_quorum is not None}
    yield _gauge(
        "ceph_monitor_in_quorum", "Whether the monitor is in quorum.", quorum, *labels, "monitor"
    )
    pools = {(*k, pool): room for k, c in named.items() for pool, room in c.pools.items()}
    used = {k: room.used for k, room in pools.items()}
    yield _gauge("ceph_pool_used_bytes", "What a pool's data takes.", used, *labels, "pool")
    free = {k: room.available for k, room in pools.items()}
    yield _gauge(
        "ceph_pool_available_bytes", "What can still be written to it.", free, *labels, "pool"
    )
    fulls = {(*k, pool): pool in c.full_pools for k, c in named.items() for pool in c.pools}
    yield _gauge("ceph_pool_full", "Whether nothing can be written to it.", fulls, *labels, "pool")


def _migrations(migrations: Migrations) -> Iterator[Metric]:
    counts = migrations.counts
    over = {(way.value, outcome): n for (way, outcome), n in counts.over.items()}
    yield _counter(
        "migrations", "Migrations that are over, by outcome.", over, "direction", "outcome"
    )
    waiting = {(): migrations.departures.waiting}
    yield _gauge("migrations_waiting", "VMs that wait for their turn to leave.", waiting)
    for name, about, value in (
        ("bytes", "Memory sent by VMs that left.", counts.bytes_sent),
        ("seconds", "How long VMs took to leave.", counts.time_ms / 1000),
        ("downtime_seconds", "How long VMs that left stood still.", counts.downtime_ms / 1000),
    ):
        yield _counter(f"migration_{name}", about, {(): value})


def _vms(vms: Sequence[_VmNow]) -> Iterator[Metric]:
    by_status = Counter(vm.status for vm in vms)
    counts = {(status.value,): by_status[status] for status in Status}
    yield _gauge("vms", "VMs by status.", counts, "status")
    yield _gauge("vm_info", "A VM's name.", {(vm.id, vm.name): 1 for vm in vms}, "vm", "name")
    answers = {(vm.id,): vm.responsive for vm in vms if vm.status is not Status.DOWN}
    yield _gauge("vm_responsive", "Whether QEMU answered when it was last asked.", answers, "vm")
    yield from _samples({vm.id: vm.sample for vm in vms if vm.sample is not None})


def _samples(samples: Mapping[str, VmSample]) -> Iterator[Metric]:
    cpu = {(vm_id,): s.cpu_time_ns / 1e9 for vm_id, s in samples.items()}
    yield _counter("vm_cpu_seconds", "Processor time that a VM has used.", cpu, "vm")
    memory = {(vm_id,): s.balloon_current_kib * 1024 for vm_id, s in samples.items()}
    yield _gauge("vm_memory_bytes", "Memory that a VM's balloon leaves it.", memory, "vm")

    disks: dict[tuple[str, str], DiskSample] = {
        (vm_id, target): disk for vm_id, s in samples.items() for target, disk in s.disks.items()
    }
    yield from _columns("vm_disk_", _DISK, disks, "vm", "disk")
    capacity = {labels: disk.capacity for labels, disk in disks.items()}
    yield _gauge("vm_disk_capacity_bytes", "Size of the disk.", capacity, "vm", "disk")

    nics: dict[tuple[str, str], NicSample] = {
        (vm_id, name): nic for vm_id, s in samples.items() for name, nic in s.nics.items()
    }
    yield from _columns("vm_network_", _NIC, nics, "vm", "nic")


def _columns(
    prefix: str, columns: Iterable[_Column], rows: Mapping[Any, Any], *labels: str
) -> Iterator[Metric]:
    """A counter for each column of a table."""
    for name, about, value in columns:
        yield _counter(prefix + name, about, {k: value(row) for k, row in rows.items()}, *labels)


def _work(name: str, about: str, label: str, tallies: Mapping[str, Tally]) -> Iterator[Metric]:
    """A counter by outcome and a histogram, of what has been done at least once."""
    done = {what: tally for what, tally in tallies.items() if tally.outcomes}
    outcomes = {
        (what, outcome): n for what, tally in done.items() for outcome, n in tally.outcomes.items()
    }
    yield _counter(f"{name}s", f"{about}, by outcome.", outcomes, label, "outcome")
    histogram = HistogramMetricFamily(
        f"{PREFIX}{name}_duration_seconds", f"{about}: how long they took.", labels=[label]
    )
    for what, tally in done.items():
        histogram.add_metric([what], _cumulative(tally), tally.total_ns / 1e9)
    yield histogram


def _cumulative(tally: Tally) -> list[tuple[str, float]]:
    buckets, total = [], 0
    for bound, count in zip(_BOUNDS, tally.buckets):
        total += count
        buckets.append((bound, float(total)))
    return buckets


def _gauge(name: str, about: str, values: _Values, *labels: str) -> GaugeMetricFamily:
    metric = GaugeMetricFamily(PREFIX + name, about, labels=labels)
    for label_values, value in values.items():
        metric.add_metric(label_values, value)
    return metric


def _counter(name: str, about: str, values: _Values, *labels: str) -> CounterMetricFamily:
    metric = CounterMetricFamily(PREFIX + name, about, labels=labels)
    for label_values, value in values.items():
        metric.add_metric(label_values, value)
    return metric
