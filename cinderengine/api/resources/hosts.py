# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts, with what they tell of themselves."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from cinderengine.api.parts import Capabilities, Statistics
from cinderengine.api.resources.empty import PERMISSIONS, TAGS, empty
from cinderengine.api.resources.sent import NAMED, given, reference, referred, text
from cinderengine.api.resources.table import Call, Collection
from cinderengine.api.types import entity as made
from cinderengine.api.types.entity import Entity, entity, filled
from cinderengine.errors import Invalid
from cinderengine.flows.hosts import NewHost
from cinderengine.model.hosts import Host
from cinderengine.store.entities import clusters, data_centers, hosts

_MORE = {
    "address": "address",
    "port": "port",
    "description": "description",
    "comment": "comment",
}


@dataclass(frozen=True)
class HostRow:
    """A host, and the names of its cluster and its data center."""

    host: Host
    cluster: str = ""
    center: str = ""


def _all(conn: Connection) -> Sequence[HostRow]:
    of = {cluster.id: cluster for cluster in clusters.all(conn)}
    names = {center.id: center.name for center in data_centers.all(conn)}
    return [
        HostRow(host, of[host.cluster_id].name, names[of[host.cluster_id].data_center_id])
        for host in hosts.all(conn)
    ]


async def _rows(call: Call) -> Sequence[HostRow]:
    return await call.parts.store.read(_all)


async def _row(call: Call) -> HostRow | None:
    found = await call.parts.store.read(hosts.get, call.id("hosts"))
    return HostRow(found) if found else None


def _show(call: Call, row: HostRow) -> Entity:
    host = row.host
    facts = call.parts.facts(host.id)
    is_, busy = facts.capabilities, facts.statistics
    return entity(
        "host",
        id=host.id,
        href=made.below("/hosts", host.id),
        name=host.name,
        description=host.description,
        comment=host.comment,
        address=host.address,
        port=host.port,
        status=host.status.value,
        status_detail=host.reason or None,
        external_status="ok",
        type="rhel",
        cluster=made.reference("cluster", host.cluster_id, "/clusters"),
        cpu=_processor(is_),
        memory=is_.memory_bytes,
        max_scheduling_memory=busy.memory_free_bytes,
        summary=_summary(busy),
        os=_system(is_),
        hardware_information=_hardware(is_),
        update_available=False,
        spm=entity("spm", priority=0, status="none"),
    )


def _processor(is_: Capabilities) -> Entity | None:
    if not is_.cpu_model:
        return None
    topology = entity(
        "cpu_topology",
        sockets=is_.sockets,
        cores=_each(is_.cores, is_.sockets),
        threads=_each(is_.threads, is_.cores),
    )
    return entity("cpu", name=is_.cpu_model, speed=is_.cpu_speed_mhz, topology=topology)


def _each(parts: int | None, wholes: int | None) -> int | None:
    """How many parts each whole has."""
    return parts // wholes if parts and wholes else None


def _summary(busy: Statistics) -> Entity | None:
    if busy.vms is None:
        return None
    return entity(
        "vm_summary", total=busy.vms, active=busy.active_vms, migrating=busy.migrating_vms
    )


def _system(is_: Capabilities) -> Entity | None:
    if not is_.os_name:
        return None
    return entity("operating_system", type=is_.os_name, version=_version(is_.os_version))


def _hardware(is_: Capabilities) -> Entity | None:
    return entity("hardware_information", uuid=is_.hardware_id) if is_.hardware_id else None


def _version(text: str) -> Entity | None:
    """A version by its numbers, as far as it has any."""
    if not text:
        return None
    numbers = [int(part) for part in text.split(".") if re.fullmatch("[0-9]{1,9}", part)]
    names = ("major", "minor", "build", "revision")
    return filled("version", {"full_version": text, **dict(zip(names, numbers, strict=False))})


async def _add(call: Call, sent: Entity) -> HostRow:
    ssh = sent.one("ssh")
    if sent.text("root_password") or (ssh is not None and ssh.values):
        raise Invalid(
            "hosts are not installed over ssh; leave out root_password and ssh, and run on the "
            "host the line that the answer has as its comment"
        )
    wanted = reference(sent, "cluster", "the id or the name of one")
    new = NewHost(
        name=text(sent, "name", "one that no other has"),
        cluster_id=(await call.parts.store.read(referred, clusters, wanted)).id,
        **given(sent, _MORE),
    )
    added = await call.parts.hosts.add(new, call.caller)
    # Told once, to who adds it: it has the token.
    return HostRow(dataclasses.replace(added.host, comment=added.line))


async def _edit(call: Call, sent: Entity) -> HostRow:
    changes = given(sent, {**NAMED, "address": "address", "port": "port"})
    wanted = sent.one("cluster")
    if wanted is not None:
        changes["cluster_id"] = (await call.parts.store.read(referred, clusters, wanted)).id
    return HostRow(await call.parts.hosts.edit(call.id("hosts"), call.caller, **changes))


async def _remove(call: Call) -> None:
    await call.parts.hosts.remove(call.id("hosts"), call.caller)


async def _activate(call: Call, sent: Entity) -> None:
    await call.parts.hosts.activate(call.id("hosts"), call.caller)


async def _deactivate(call: Call, sent: Entity) -> None:
    await call.parts.hosts.deactivate(call.id("hosts"), call.caller)


async def _install(call: Call, sent: Entity) -> None:
    raise Invalid(
        "hosts are not installed over ssh; run on the host the line that cinder-engine host add, "
        "or the answer to adding it, has told"
    )


# Statistics


@dataclass(frozen=True)
class Measured:
    """A number that a host tells of itself. unit: as oVirt's API has it."""

    name: str
    description: str
    unit: str
    value: float | None


async def _statistics(call: Call) -> Sequence[Measured]:
    facts = call.parts.facts(call.id("hosts"))
    return [one for one in _measured(facts.capabilities, facts.statistics) if one.value is not None]


def _measured(is_: Capabilities, busy: Statistics) -> Sequence[Measured]:
    """All, by the names that oVirt's API has for them."""
    used = _less(is_.memory_bytes, busy.memory_free_bytes)
    swapped = _less(busy.swap_total_bytes, busy.swap_free_bytes)
    return (
        Measured("memory.total", "Total memory", "bytes", is_.memory_bytes),
        Measured("memory.used", "Used memory", "bytes", used),
        Measured("memory.free", "Free memory", "bytes", busy.memory_free_bytes),
        Measured("memory.shared", "Shared memory", "bytes", busy.memory_shared_bytes),
        Measured("swap.total", "Total swap", "bytes", busy.swap_total_bytes),
        Measured("swap.free", "Free swap", "bytes", busy.swap_free_bytes),
        Measured("swap.used", "Used swap", "bytes", swapped),
        Measured("ksm.cpu.current", "KSM CPU usage", "percent", busy.ksm_cpu),
        Measured("cpu.current.user", "User CPU usage", "percent", busy.cpu_user),
        Measured("cpu.current.system", "System CPU usage", "percent", busy.cpu_system),
        Measured("cpu.current.idle", "Idle CPU usage", "percent", busy.cpu_idle),
        Measured("cpu.load.avg.5m", "CPU load of five minutes", "percent", busy.cpu_load),
        Measured("boot.time", "Boot time of the machine", "none", busy.booted_s),
    )


def _less(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one - other


def _show_statistic(call: Call, measured: Measured) -> Entity:
    host_id = call.id("hosts")
    # By its name, which stays the same.
    return entity(
        "statistic",
        id=measured.name,
        href=made.below(f"{made.below('/hosts', host_id)}/statistics", measured.name),
        name=measured.name,
        description=measured.description,
        kind="gauge",
        type="decimal",
        unit=measured.unit,
        values=(entity("value", datum=measured.value),),
        host=made.reference("host", host_id, "/hosts"),
    )


HOSTS = Collection(
    "hosts",
    "host",
    rows=_rows,
    row=_row,
    show=_show,
    add=_add,
    edit=_edit,
    remove=_remove,
    actions={
        "activate": _activate,
        "deactivate": _deactivate,
        "install": _install,
    },
    fields={
        "name": lambda row: row.host.name,
        "id": lambda row: row.host.id,
        "address": lambda row: row.host.address,
        "status": lambda row: row.host.status.value,
        "description": lambda row: row.host.description,
        "comment": lambda row: row.host.comment,
        "cluster": lambda row: row.cluster,
        "cluster.name": lambda row: row.cluster,
        "datacenter": lambda row: row.center,
    },
    under=(
        Collection("statistics", "statistic", rows=_statistics, show=_show_statistic),
        PERMISSIONS,
        TAGS,
        empty("nics", "host_nic"),
        empty("storage", "host_storage"),
        empty("affinitylabels", "affinity_label"),
        empty("devices", "host_device"),
        empty("hooks", "hook"),
    ),
)
