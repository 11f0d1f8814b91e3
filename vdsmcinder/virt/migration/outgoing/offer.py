# SPDX-License-Identifier: GPL-2.0-or-later
"""Offering a VM to another host: nothing moves before that host says that it can run it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from vdsmcinder.errors import MigrationFailed, VdsmCinderError
from vdsmcinder.virt.domain.metadata import MigrationMark
from vdsmcinder.virt.migration.common import migration_job
from vdsmcinder.virt.migration.common.context import Travel
from vdsmcinder.virt.secrets.secret import SecretSpec
from vdsmcinder.virt.vm.migration import Acceptance, Handover, Offer, Peer, PeerRefused, error_of
from vdsmcinder.virt.vm.migration_request import MigrationRequest
from vdsmcinder.virt.vm.vm import VM

log = logging.getLogger(__name__)


async def offer(
    vm: VM, mark: MigrationMark, request: MigrationRequest, peer: Peer, travel: Travel
) -> bool:
    """Have the host accept the VM; returns whether its data is to be encrypted.

    Raises TooManyMigrations (82) from a host that takes in others now, PeerUnreachable (10), the
    errors with which it refuses, and MigrationFailed (12).
    """
    offered = Offer(
        vm.id,
        mark.id,
        Handover(mark.handover),
        vm.xml,
        travel.here,
        limit=request.incoming_limit,
        post_copy=request.schedule.post_copy,
    )
    try:
        accepted = await peer.offer(offered)
    except PeerRefused as e:
        missing = e.data.get("missingSecrets")
        if not missing or not travel.options.hand_over_secrets:
            raise _refused(vm, request, e) from e
        accepted = await _with_secrets(vm, request, peer, offered, _ours(vm, travel, missing))
    return _encryption(vm, request, accepted)


async def _with_secrets(
    vm: VM, request: MigrationRequest, peer: Peer, offered: Offer, specs: Sequence[SecretSpec]
) -> Acceptance:
    uuids = ", ".join(spec.uuid for spec in specs)
    log.info("%s: secrets are handed over to host %s: %s", vm.name, request.peer, uuids)
    try:
        return await peer.offer(replace(offered, secrets=specs))
    except PeerRefused as e:
        raise _refused(vm, request, e) from e


def _ours(vm: VM, travel: Travel, missing: Sequence[str]) -> list[SecretSpec]:
    """The secrets of those uuids; what the VM does not need is not given to whoever asks for it."""
    known = {spec.uuid: spec for spec in travel.secrets.specs()}
    needed = {name.uuid for name in vm.domain.ceph.secrets}
    lacking = [u for u in missing if u not in needed or u not in known]
    if lacking:
        raise MigrationFailed(
            f"VM {vm.id} stays: it needs secrets on the other host that this one cannot hand over, "
            f"for it was not given their values: {', '.join(lacking)}; register them there with "
            "Host.registerSecrets",
            missingSecrets=lacking,
        )
    return [known[uuid] for uuid in missing]


def _refused(vm: VM, request: MigrationRequest, refusal: PeerRefused) -> VdsmCinderError:
    return error_of(refusal, f"VM {vm.id} stays: host {request.peer} refuses it", MigrationFailed)


def _encryption(vm: VM, request: MigrationRequest, accepted: Acceptance) -> bool:
    here, there = migration_job.has_tls(), accepted.encryption
    if request.encrypted is None:
        return here and there
    if request.encrypted and not (here and there):
        where = "this host" if not here else f"host {request.peer}"
        raise MigrationFailed(
            f"VM {vm.id} stays: its data is to be encrypted, and libvirt on {where} has no "
            "certificates for that in /etc/pki/libvirt-migrate or /etc/pki/qemu; make them, or "
            "allow it to go in the clear"
        )
    return request.encrypted
