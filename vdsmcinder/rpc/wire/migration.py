# SPDX-License-Identifier: GPL-2.0-or-later
"""What two daemons say to each other about a VM that migrates, and what an engine hears of it.

Both halves of it: what one writes the other reads.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from vdsmcinder.fields import BOOLEAN, TEXT, UUID, Fields, choice, number
from vdsmcinder.rpc.requests.secrets import read_secrets
from vdsmcinder.rpc.wire import common
from vdsmcinder.virt.secrets.secret import SecretSpec
from vdsmcinder.virt.vm.migration import Acceptance, Handover, Offer, Progress, Source, Verdict
from vdsmcinder.virt.vm.migration_request import ADDRESS
from vdsmcinder.virt.vm.vm import VM

_HANDOVER = choice(*(h.value for h in Handover))
_VERDICT = choice(*(v.value for v in Verdict))


def write_offer(offer: Offer) -> dict[str, Any]:
    """The parameters of VM.migrationCreate. They hold keys if the offer does."""
    params: dict[str, Any] = {
        "vmId": offer.vm_id,
        "xml": offer.xml,
        "migrationId": offer.migration_id,
        "handover": offer.handover.value,
        "source": offer.source.words,
        "postCopy": offer.post_copy,
        "secrets": [_write_secret(spec) for spec in offer.secrets],
    }
    if offer.source.address is not None:
        params["sourceAddress"] = str(offer.source.address)
    limit = {} if offer.limit is None else {"incomingLimit": offer.limit}
    return {"vmID": offer.vm_id, "params": params, **limit}


def read_offer(vm_id: str, params: Mapping[str, Any], limit: int | None) -> Offer:
    """Raises MissingParameter, InvalidParameter, SecretMalformed."""
    fields = Fields(params, f"migration of VM {vm_id}")
    return Offer(
        vm_id=vm_id.lower(),
        migration_id=fields.need("migrationId", UUID),
        handover=Handover(fields.need("handover", _HANDOVER)),
        xml=fields.need("xml", TEXT),
        source=Source(fields.need("source", TEXT), fields.get("sourceAddress", ADDRESS)),
        secrets=read_secrets(params.get("secrets") or []),
        limit=limit,
        post_copy=fields.get("postCopy", BOOLEAN) or False,
    )


def _write_secret(spec: SecretSpec) -> dict[str, str]:
    return {
        "uuid": spec.uuid,
        "usageType": spec.usage_type.wire_name,
        "usageID": spec.usage_id,
        "description": spec.description,
        "password": base64.b64encode(spec.value.reveal()).decode(),
    }


def write_acceptance(acceptance: Acceptance, vm: VM) -> dict[str, Any]:
    """The answer to it, MigrationCreateState; 0 is for a port that libvirt chooses."""
    return {
        "migrationPort": 0,
        "encryption": acceptance.encryption,
        "params": common.definition(vm),
    }


def read_acceptance(result: Mapping[str, Any]) -> Acceptance:
    """What of it the source needs to know."""
    return Acceptance(encryption=Fields(result, "the answer").get("encryption", BOOLEAN) or False)


def write_verdict(vm_id: str, migration_id: str, verdict: Verdict) -> dict[str, Any]:
    """The parameters of VM.migrationConclude."""
    return {"vmID": vm_id, "params": {"migrationId": migration_id, "verdict": verdict.value}}


def read_verdict(vm_id: str, params: Mapping[str, Any]) -> tuple[str | None, Verdict]:
    """The migration's id, if its source says it, and what becomes of the VM.

    Raises MissingParameter, InvalidParameter.
    """
    fields = Fields(params, f"migration of VM {vm_id}")
    verdict = Verdict(fields.need("verdict", _VERDICT))
    if verdict is Verdict.FENCED:
        return None, verdict
    return fields.need("migrationId", UUID), verdict


def write_conclusion(running_ms: int | None) -> dict[str, int]:
    """The answer to it, MigrationConclusion."""
    return {} if running_ms is None else {"runningMs": running_ms}


def read_conclusion(result: Any) -> int | None:
    """For how long the guest has been running on the other host, in ms, if that knows."""
    # Before daemons told that, their answer was true.
    told = result if isinstance(result, Mapping) else {}
    return Fields(told, "the answer").get("runningMs", number(0))


def write_question(vm_id: str, migration_id: str) -> dict[str, Any]:
    """The parameters of VM.migrationKept."""
    return {"vmID": vm_id, "migrationId": migration_id}


def stats(vm_id: str, progress: Progress, *, done: bool) -> dict[str, Any]:
    """MigrationStats."""
    if done:
        status = {"code": 0, "message": "Migration done"}
        return {"vmId": vm_id, "status": status, "downtime": progress.downtime_ms, "progress": 100}
    status = {"code": 0, "message": "Migration in progress"}
    return {"vmId": vm_id, "status": status, "progress": progress.percent}


def notice(vm_id: str, progress: Progress) -> tuple[str, dict[str, Any]]:
    """Name and params of the event that tells how far a migration is."""
    told: dict[str, Any] = {"progress": progress.percent, "postcopy": progress.post_copy}
    if progress.downtime_ms:
        told["downtime"] = progress.downtime_ms
    return f"|virt|VM_migration_status|{vm_id}", {vm_id: told}
