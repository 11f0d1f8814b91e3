# SPDX-License-Identifier: GPL-2.0-or-later
"""Limits on a disk's I/O: libvirt's <iotune>, which engines and Cinder's qos_specs name alike.

Follows https://libvirt.org/formatdomain.html, `iotune`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from lxml import etree

from vdsmcinder.errors import InvalidParameter
from vdsmcinder.fields import TEXT, Fields, Kind, number
from vdsmcinder.hypervisor.xmldoc import check_text, refuse_children, refuse_repeated

log = logging.getLogger(__name__)

_WHAT = ("total", "read", "write")
_UNITS = ("bytes_sec", "iops_sec")
_SUFFIXES = ("", "_max", "_max_length")

# Rates per second, their bursts and the bursts' length in seconds; the size of one operation.
LIMITS = frozenset(
    f"{what}_{unit}{suffix}" for what in _WHAT for unit in _UNITS for suffix in _SUFFIXES
) | {"size_iops_sec"}

_GROUP = "group_name"
# QEMU's own limits: of rates and their bursts, and of the bursts' lengths in seconds.
MOST = 10**15
_LIMIT = number(0, MOST)
_LENGTH = number(0, 2**32 - 1)


class Refusal(NamedTuple):
    """A limit that does not go with the others, and what it should be, after 'expected'."""

    limit: str
    expected: str


@dataclass(frozen=True)
class IoTune:
    """The limits of a disk.

    limits: pairs of libvirt's name and value (bytes/s, operations/s, s or bytes), sorted by name;
    0 is unlimited. group: disks of one group share the limits.
    """

    limits: tuple[tuple[str, int], ...]
    group: str | None = None

    def __post_init__(self) -> None:
        check_text("iotune", self.group)
        if list(self.limits) != sorted(self.limits) or not set(dict(self.limits)) <= LIMITS:
            raise InvalidParameter("iotune: limits must be known and sorted by name")

    @property
    def values(self) -> Mapping[str, int | str]:
        """All by libvirt's name, the group's included if it has one."""
        return (
            dict(self.limits) if self.group is None else {**dict(self.limits), _GROUP: self.group}
        )

    @property
    def in_force(self) -> Mapping[str, int]:
        """The limits that are some."""
        return {name: value for name, value in self.limits if value}

    def refusal(self) -> Refusal | None:
        """Why QEMU would refuse these limits, None if it takes them.

        Its rules are those of throttle_is_valid (qemu: util/throttle.c), and libvirt's of groups.
        """
        if self.group is not None and not self.in_force:
            return Refusal(_GROUP, "none without limits, which its disks share")
        return next(_refusals(self.in_force), None)

    def changed_by(self, other: IoTune) -> IoTune:
        """These limits once others were set: as libvirt does it for a running VM.

        Of limits of one kind (total, read and write of a unit) it keeps either all or none. A disk
        without limits is in no group.
        """
        given = dict(other.limits)
        touched = {_kind(name) for name in given}
        kept = {name: value for name, value in self.limits if _kind(name) not in touched}
        limits = {**kept, **given}
        group = self.group if any(limits.values()) else None
        return IoTune(tuple(sorted(limits.items())), other.group or group)

    def write(self, disk: etree._Element) -> None:
        """Append <iotune>, its children sorted by name."""
        iotune = etree.SubElement(disk, "iotune")
        for name, value in sorted(self.values.items()):
            etree.SubElement(iotune, name).text = str(value)

    @classmethod
    def read(cls, iotune: etree._Element, thing: str) -> IoTune:
        """Read <iotune>. Raises UnsupportedDrive for limits that are not known here."""
        refuse_children(iotune, LIMITS | {_GROUP}, thing)
        refuse_repeated(iotune, thing)
        texts = {str(child.tag): child.text or "" for child in iotune}
        return cls._from_known(Fields(texts, thing, "iotune"))

    @classmethod
    def from_params(cls, params: Fields) -> IoTune | None:
        """Read a device description's `specParams.ioTune`; None when it holds nothing.

        Raises InvalidParameter for what QEMU would refuse.
        """
        return cls._checked(cls.changes(params), params)

    @classmethod
    def changes(cls, params: Fields) -> IoTune | None:
        """Read limits that are to be set beside those in force; None when there are none."""
        for name in params.names():
            if name not in LIMITS | {_GROUP}:
                raise params.invalid(name, f"limits named {', '.join(sorted(LIMITS))}")
        return cls._from_known(params) if params.names() else None

    @classmethod
    def from_qos_specs(cls, specs: Fields) -> IoTune | None:
        """Read Cinder's qos_specs, which may also hold keys that are for the storage alone.

        group_name is for a hypervisor, where it goes with limits: volumes of a type share them.
        """
        limited = any(name in LIMITS for name in specs.names())
        known = LIMITS | {_GROUP} if limited else LIMITS
        foreign = sorted(set(specs.names()) - known)
        if foreign:
            log.warning("%s: qos_specs holds %s, not for a hypervisor", specs.thing, foreign)
        return cls._checked(cls._from_known(specs), specs) if limited else None

    @classmethod
    def _from_known(cls, fields: Fields) -> IoTune:
        limits = {n: fields.need(n, _value(n)) for n in sorted(fields.names()) if n in LIMITS}
        return cls(tuple(limits.items()), fields.get(_GROUP, TEXT))

    @staticmethod
    def _checked(limits: IoTune | None, fields: Fields) -> IoTune | None:
        if limits is not None:
            refusal = limits.refusal()
            if refusal is not None:
                raise fields.invalid(refusal.limit, refusal.expected)
        return limits


def _value(name: str) -> Kind[int]:
    return _LENGTH if name.endswith("_length") else _LIMIT


def _kind(name: str) -> str:
    return name.partition("_")[2] if name.startswith(_WHAT) else name


def _refusals(values: Mapping[str, int]) -> Iterator[Refusal]:
    """values: the limits other than 0."""
    for unit in _UNITS:
        for suffix in ("", "_max"):
            yield from _both(values, unit, suffix)
        for what in _WHAT:
            yield from _odd_burst(values, f"{what}_{unit}")
    rates = [f"{what}_iops_sec" for what in _WHAT]
    if "size_iops_sec" in values and values.keys().isdisjoint(rates):
        yield Refusal("size_iops_sec", f"0, or one of {', '.join(rates)} beside it")


def _both(values: Mapping[str, int], unit: str, suffix: str) -> Iterator[Refusal]:
    total = f"total_{unit}{suffix}"
    for part in (f"{what}_{unit}{suffix}" for what in ("read", "write")):
        if total in values and part in values:
            because = f"as {total} is {values[total]}"
            yield Refusal(part, f"0, {because}: a limit on the total or on its parts, not on both")


def _odd_burst(values: Mapping[str, int], rate: str) -> Iterator[Refusal]:
    burst, length = f"{rate}_max", f"{rate}_max_length"
    length_s = values.get(length, 1)
    if burst not in values:
        if length_s > 1:
            yield Refusal(length, f"0, or {burst} beside it, which lasts for so long")
        return
    if rate not in values:
        yield Refusal(burst, f"0, or {rate} beside it, which it goes beyond")
    elif values[burst] < values[rate]:
        yield Refusal(burst, f"at least {rate}, {values[rate]}")
    if length_s > MOST // values[burst]:
        yield Refusal(length, f"at most {MOST // values[burst]} with such a {burst}")
