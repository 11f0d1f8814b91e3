# SPDX-License-Identifier: GPL-2.0-or-later
"""Our element in a domain's <metadata>: what libvirt remembers for us, and what marks a VM as ours.

VMs are found again by it after a restart. Names and namespace are the engine's (contract/wire.md,
vmParams); vdsmCinder is our own child, which tells our VMs from other daemons'.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Callable, TypeVar

import libvirt
from lxml import etree

from vdsmcinder.errors import InvalidParameter
from vdsmcinder.fields import BOOLEAN, TEXT, Fields, Kind, matching, number
from vdsmcinder.hypervisor.xmldoc import parse

NAMESPACE = "http://ovirt.org/vm/1.0"
PREFIX = "ovirt-vm"

T = TypeVar("T")

# Of the layout of the element; raise it when recovery has to tell old from new. Older daemons take
# what they know of it and leave the rest.
VERSION = 1

# Our child that holds thaw_by.
THAW_BY = "thawBy"

# The engine's children that say what memory it promised, and that a reboot is to end the VM.
GUARANTEED = "minGuaranteedMemoryMb"
DESTROY_ON_REBOOT = "destroy_on_reboot"

# Our child that says that an operator wants the VM to stay paused.
HELD = "held"

# Our child that holds running_since_s.
RUNNING_SINCE = "runningSince"

# Our child that holds taken.
TAKEN = "imageTaken"

# Our child that holds starting.
STARTING = "starting"

# Our child that holds arrived_by.
ARRIVED_BY = "arrivedBy"

# Our children that hold a MigrationMark.
_MIGRATION = ("migrationId", "migrationSource", "migrationPeer", "migrationHandover")
_DATA_HOST = "migrationDataHost"
_ENCRYPTED = "migrationEncrypted"
_SOURCE_PEER = "migrationSourcePeer"

# Our child that holds debts, and the verdicts that may be owed.
OWED = "migrationOwed"
_VERDICTS = ("run", "drop")

# What is said of one life of a VM, and of no other that is created from its document.
_PRIVATE = frozenset(
    {
        *("exitCode", "exitReason", "exitMessage", THAW_BY, HELD, RUNNING_SINCE, ARRIVED_BY, TAKEN),
        *(*_MIGRATION, _DATA_HOST, _ENCRYPTED, _SOURCE_PEER, OWED),
        STARTING,
    }
)

_MARK = "vdsmCinder"
CUSTOM_NAME = matching(r"[A-Za-z_][A-Za-z0-9_.-]*", "a name of letters, digits, '_', '-' and '.'")


@dataclass(frozen=True)
class MigrationMark:
    """What a domain says of a migration that is not over, on both hosts, for it goes along with it.

    id: of the migration. source: UUID of the host that it leaves, as libvirt knows it. peer: the
    daemon that it goes to, host:port. handover: see virt/vm/migration.py. data_host: where QEMU's
    data goes, empty for that daemon's host. encrypted: whether that is. source_peer: the daemon of
    the host that it leaves, host:port, empty if that is not known.
    """

    id: str
    source: str
    peer: str
    handover: str
    data_host: str = ""
    encrypted: bool = False
    source_peer: str = ""

    def values(self) -> dict[str, str]:
        """As set_live() and set_lasting() take it."""
        return {
            **dict(zip(_MIGRATION, (self.id, self.source, self.peer, self.handover))),
            _DATA_HOST: self.data_host,
            _ENCRYPTED: "true" if self.encrypted else "",
            _SOURCE_PEER: self.source_peer,
        }


NO_MIGRATION: Mapping[str, str] = dict.fromkeys(
    (*_MIGRATION, _DATA_HOST, _ENCRYPTED, _SOURCE_PEER), ""
)


@dataclass(frozen=True)
class Debt:
    """What another host is still to be told of a VM, after a migration that failed.

    id: of that migration. peer: the daemon that it went to, host:port. verdict: run or drop, see
    virt/vm/migration.py. may_yield: its copy may have been let run without a word from here.
    may_run: or with one, so that no mark on its images keeps it from that.
    """

    id: str
    peer: str
    verdict: str
    may_yield: bool = False
    may_run: bool = False


def write_debts(debts: Iterable[Debt]) -> str:
    """As our child OWED holds them; empty for none."""
    return ",".join(" ".join((d.id, d.peer, d.verdict, *_flags(d))) for d in debts)


def _flags(debt: Debt) -> Iterator[str]:
    if debt.may_yield:
        yield "may-yield"
    if debt.may_run:
        yield "may-run"


def _read_debts(text: str) -> tuple[Debt, ...]:
    entries = (entry.split() for entry in text.split(","))
    return tuple(
        Debt(id_, peer, verdict, may_yield="may-yield" in more, may_run="may-run" in more)
        for id_, peer, verdict, *more in (entry for entry in entries if len(entry) >= 3)
        # A newer daemon may owe more.
        if verdict in _VERDICTS
    )


@dataclass(frozen=True)
class VmMetadata:
    """What our metadata element says of a VM; all absent in a domain that has none.

    version: of the layout, None when the VM is not ours. min_guaranteed_mib: memory that the
    engine promised. custom: the engine's custom properties. exit_code, exit_reason: numbers of
    contract/errors.md, once the VM has ended. thaw_by: when a frozen guest is to be thawed, as
    virt/vm/parts/freeze_state.py writes it; None for one that is not frozen for a time.
    held: paused by an operator, after QEMU had paused it for an I/O error. running_since_s: when it
    was started, on whichever host, in seconds since 1970; only for one that has migrated.
    migration: the one that is under way. arrived_by: id of the one by which it came to this host.
    taken: that another host opened an image of it while it stood here, a sentence's end.
    debts: of those that failed; they go along with it. starting: its QEMU process is paused until
    its images have been looked at once more; see virt/vm/power.py.
    """

    version: int | None = None
    launch_paused: bool = False
    destroy_on_reboot: bool = False
    cluster_version: str | None = None
    min_guaranteed_mib: int | None = None
    custom: Mapping[str, str] = field(default_factory=dict, hash=False)
    exit_code: int | None = None
    exit_reason: int | None = None
    exit_message: str | None = None
    thaw_by: str | None = None
    held: bool = False
    running_since_s: int | None = None
    migration: MigrationMark | None = None
    arrived_by: str | None = None
    taken: str | None = None
    debts: tuple[Debt, ...] = ()
    starting: str | None = None

    @classmethod
    def of_request(cls, domain: etree._Element) -> VmMetadata:
        """Read it from an engine's <domain>. Raises InvalidParameter for values that do not fit."""
        return cls._read(domain, Fields.get)

    @classmethod
    def of_domain(cls, domain: etree._Element) -> VmMetadata:
        """Read it from libvirt's <domain>.

        Values that do not fit count as absent: a newer daemon may have written them.
        """
        return cls._read(domain, _get_known)

    @classmethod
    def _read(
        cls, domain: etree._Element, get: Callable[[Fields, str, Kind[Any]], Any]
    ) -> VmMetadata:
        vm = find(domain)
        if vm is None:
            return cls()
        mark = vm.find(_tag(_MARK))
        texts = {_local(child): child.text for child in vm if len(child) == 0}
        if mark is not None:
            texts[_MARK] = mark.get("version")
        values = Fields(texts, "metadata of the VM")
        return cls(
            version=get(values, _MARK, number(0)),
            launch_paused=get(values, "launchPaused", BOOLEAN) or False,
            destroy_on_reboot=get(values, DESTROY_ON_REBOOT, BOOLEAN) or False,
            cluster_version=get(values, "clusterVersion", TEXT),
            min_guaranteed_mib=get(values, GUARANTEED, number(0)),
            custom={_local(c): c.text or "" for c in vm.iterfind(f"{_tag('custom')}/*")},
            exit_code=get(values, "exitCode", number(0)),
            exit_reason=get(values, "exitReason", number(0)),
            exit_message=get(values, "exitMessage", TEXT),
            thaw_by=get(values, THAW_BY, TEXT),
            held=get(values, HELD, BOOLEAN) or False,
            running_since_s=get(values, RUNNING_SINCE, number(0)),
            migration=_read_migration(values),
            arrived_by=get(values, ARRIVED_BY, TEXT) or None,
            taken=get(values, TAKEN, TEXT) or None,
            debts=_read_debts(get(values, OWED, TEXT) or ""),
            starting=get(values, STARTING, TEXT) or None,
        )


def _get_known(values: Fields, name: str, kind: Kind[T]) -> T | None:
    try:
        return values.get(name, kind)
    except InvalidParameter:
        return None


def _read_migration(values: Fields) -> MigrationMark | None:
    id_, source, peer, handover = (_get_known(values, name, TEXT) or "" for name in _MIGRATION)
    if not (id_ and source and peer and handover):
        return None
    data_host = _get_known(values, _DATA_HOST, TEXT) or ""
    encrypted = _get_known(values, _ENCRYPTED, BOOLEAN) or False
    source_peer = _get_known(values, _SOURCE_PEER, TEXT) or ""
    return MigrationMark(id_, source, peer, handover, data_host, encrypted, source_peer)


def find(domain: etree._Element) -> etree._Element | None:
    """The engine's and our element in a <domain>, None where it has none."""
    # Of several <metadata> libvirt keeps the first.
    first = domain.find("metadata")
    return None if first is None else first.find(_tag("vm"))


def is_marked(domain: etree._Element) -> bool:
    """Whether a <domain> was defined by this daemon."""
    vm = find(domain)
    return vm is not None and vm.find(_tag(_MARK)) is not None


def mark(domain: etree._Element) -> etree._Element:
    """Make a <domain> a new VM of ours. Returns our element.

    What its metadata hold is kept, but for what they tell of the life of another VM, whose document
    it was.
    """
    parent = domain.find("metadata")
    if parent is None:
        parent = etree.SubElement(domain, "metadata")
    vm = find(domain)
    if vm is None:
        vm = etree.SubElement(parent, _tag("vm"), nsmap={PREFIX: NAMESPACE})
    ours = vm.find(_tag(_MARK))
    if ours is None:
        ours = etree.SubElement(vm, _tag(_MARK))
    ours.set("version", str(VERSION))
    for child in [child for child in vm if _local(child) in _PRIVATE]:
        vm.remove(child)
    return vm


def set_value(vm: etree._Element, name: str, value: str) -> None:
    """Give our element a child with this text, in place of one that it has."""
    child = vm.find(_tag(name))
    if child is None:
        child = etree.SubElement(vm, _tag(name), nsmap={PREFIX: NAMESPACE})
    child.text = value


def set_custom(vm: etree._Element, custom: Sequence[tuple[str, str]]) -> None:
    """Add an engine's custom properties: names, which become those of elements, and their text."""
    if not custom:
        return
    parent = etree.SubElement(vm, _tag("custom"))
    for name, text in custom:
        etree.SubElement(parent, _tag(name)).text = text


def set_live(domain: libvirt.virDomain, values: Mapping[str, str]) -> None:
    """Give the element of a running domain further values; runs in the connection's pool."""
    _set_values(domain, values, libvirt.VIR_DOMAIN_AFFECT_LIVE)


def set_lasting(domain: libvirt.virDomain, values: Mapping[str, str]) -> None:
    """Give the element of a persistent domain further values; runs in the connection's pool."""
    _set_values(domain, values, libvirt.VIR_DOMAIN_AFFECT_CONFIG)


def _set_values(domain: libvirt.virDomain, values: Mapping[str, str], where: int) -> None:
    kind = libvirt.VIR_DOMAIN_METADATA_ELEMENT
    element = with_values(domain.metadata(kind, NAMESPACE, where), values)
    domain.setMetadata(kind, element, PREFIX, NAMESPACE, where)


def with_values(element: str, values: Mapping[str, str]) -> str:
    """Our element with further values, for virDomain.setMetadata.

    element: as virDomain.metadata(VIR_DOMAIN_METADATA_ELEMENT, NAMESPACE) returns it. values: text
    by name of child (exitCode, exitReason, exitMessage, ...), replacing what was there; empty text
    removes it.
    """
    vm = parse(element, "metadata of the VM")
    # By their local names: libvirt gives children without the prefix that they were defined with.
    for child in [child for child in vm if _local(child) in values]:
        vm.remove(child)
    for name, value in values.items():
        if value:
            set_value(vm, name, value)
    return etree.tostring(vm, encoding="unicode")


def _tag(name: str) -> str:
    return f"{{{NAMESPACE}}}{name}"


def _local(element: etree._Element) -> str:
    return etree.QName(element).localname
