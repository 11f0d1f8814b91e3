# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether the daemon can do its work, and if not why, in sentences for an operator.

It is the content of GET /health.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from vdsmcinder.ceph.cluster_monitor import ClusterMonitor
from vdsmcinder.ceph.fault_kinds import CephFault, Kind
from vdsmcinder.hypervisor.connection import Connection
from vdsmcinder.monitoring.certificate_expiry import DAY_S, Expiry, sentence
from vdsmcinder.transport.certificates import Certificates, Held, Owner
from vdsmcinder.virt.fleet.domain_watch import DomainWatch
from vdsmcinder.virt.fleet.missing_secrets import MissingSecrets
from vdsmcinder.virt.migration.migrations import Migrations

# A certificate that ends sooner than this should have been renewed by now. Before, that it ends is
# a warning, for as long as option listen.expiry_warning_days says.
RENEWAL_DAYS = 7


@dataclass(frozen=True)
class Trouble:
    """Something that is wrong. serious: engines' requests cannot be served because of it."""

    reason: str
    serious: bool


def report(  # noqa: PLR0917 - one for each thing that can be wrong
    connection: Connection,
    watch: DomainWatch,
    migrations: Migrations,
    missing: MissingSecrets,
    not_kept: str,
    clusters: ClusterMonitor,
    expiry: Expiry,
    reload: str,
) -> dict[str, Any]:
    """The daemon's health: status (ready, recovering, degraded), ready, reasons and warnings.

    ready: engines can be served, well or badly; it is true of a daemon that is merely degraded.
    warnings: what will be a reason if nobody sees to it; the status does not tell of them.
    not_kept: why systemd does not keep the keys of VMs; empty if it does. reload: why the
    configuration could not be read again; empty if it could.
    """
    urgent = [held for held in expiry.ending if _days_left(held) < RENEWAL_DAYS]
    troubles = [
        *_libvirt(connection),
        *_vms(watch),
        *(Trouble(reason, serious=False) for reason in migrations.troubles()),
        *_secrets(missing, not_kept),
        *_ceph(clusters),
        *_certificates(expiry.certificates, urgent),
    ]
    if reload:
        troubles.append(Trouble(f"the configuration as it is now is not in force: {reload}", False))
    reasons = [t.reason for t in troubles]
    status = "degraded" if troubles else "ready"
    if connection.ready and not watch.recovered:
        status = "recovering"
        reasons.insert(0, "the VMs are being read from libvirt; ask again in a moment")
    return {
        "status": status,
        "ready": watch.recovered and not any(t.serious for t in troubles),
        "reasons": reasons,
        "warnings": [
            *_unseen(missing),
            *_rights(clusters),
            *(sentence(held) for held in expiry.ending if held not in urgent),
        ],
    }


def _libvirt(connection: Connection) -> Iterator[Trouble]:
    if connection.trouble:
        yield Trouble(connection.trouble, serious=True)
    stuck, threads = connection.stuck_calls, connection.threads
    if stuck:
        yield Trouble(
            f"{stuck} libvirt calls did not come back within their deadline and hold {stuck} of "
            f"{threads} threads; check whether libvirtd and the VMs' QEMU processes respond",
            serious=stuck >= threads,
        )


def _vms(watch: DomainWatch) -> Iterator[Trouble]:
    for why in watch.taken:
        yield Trouble(why, serious=False)
    for uuid, why in watch.unread.items():
        yield Trouble(
            f"libvirt's domain {uuid} is a VM of this daemon's that it cannot read, so that it is "
            f"not listed: {why}; look at it with virsh dumpxml, a newer daemon may have defined it",
            serious=False,
        )


def _secrets(missing: MissingSecrets, not_kept: str) -> Iterator[Trouble]:
    for name, names in missing.missing.items():
        yield Trouble(
            f"secret {name}, which {', '.join(names)} need, is not registered on this host any "
            "more; register it with Host.registerSecrets",
            serious=False,
        )
    if not_kept:
        yield Trouble(
            f"the registered keys will be lost when the daemon ends: {not_kept}; see the journal "
            "of systemd, and register them again after a restart",
            serious=False,
        )


def _unseen(missing: MissingSecrets) -> Iterator[str]:
    for name, names in missing.unseen.items():
        yield (
            f"the key in secret {name}, which {', '.join(names)} need, has not been given to this "
            "daemon since it started, so that it cannot see who else has their images open; "
            "register it with Host.registerSecrets"
        )


def _ceph(clusters: ClusterMonitor) -> Iterator[Trouble]:
    for cluster in clusters.clusters:
        if cluster.trouble is not None:
            yield Trouble(
                f"Ceph cluster {cluster.name}, which running VMs use, is unreachable: "
                f"{cluster.trouble}; check its monitors and the network to them",
                serious=False,
            )
        for fault in cluster.full_pools.values():
            user = cluster.account.user
            yield Trouble(
                f"what running VMs write waits for room: {fault.cause(user)}, of Ceph cluster "
                f"{cluster.name}; {fault.remedy(user)}",
                serious=False,
            )


def _rights(clusters: ClusterMonitor) -> Iterator[str]:
    for cluster in clusters.clusters:
        if not cluster.may_blocklist:
            lacking, user = CephFault(Kind.DENIED_BLOCKLIST), cluster.account.user
            yield f"{lacking.cause(user)}; {lacking.remedy(user)}"


def _certificates(certificates: Certificates | None, urgent: Iterable[Held]) -> Iterator[Trouble]:
    if certificates is None:
        return
    if certificates.trouble:
        yield Trouble(
            f"the certificate files as they are now are not in force: {certificates.trouble}",
            serious=False,
        )
    cas = [held for held in certificates.held if held.owner is Owner.CA]
    for held in urgent:
        # Clients of a CA that has not ended are served yet.
        last = held.owner is Owner.HOST or (
            held.owner is Owner.CA and all(_days_left(ca) <= 0 for ca in cas)
        )
        yield Trouble(sentence(held), serious=_days_left(held) <= 0 and last)


def _days_left(held: Held) -> float:
    return (held.expires_at - time.time()) / DAY_S
