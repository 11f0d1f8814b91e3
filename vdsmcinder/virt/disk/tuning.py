# SPDX-License-Identifier: GPL-2.0-or-later
"""Limits on a disk's I/O: libvirt's <iotune>, which engines and Cinder's qos_specs name alike.

Follows https://libvirt.org/formatdomain.html, `iotune`.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from lxml import etree

from vdsmcinder.errors import InvalidParameter
from vdsmcinder.fields import TEXT, Fields, number
from vdsmcinder.hypervisor.xmldoc import check_text, refuse_children

log = logging.getLogger(__name__)

_UNITS = ("bytes_sec", "iops_sec")
_SUFFIXES = ("", "_max", "_max_length")

# Rates per second, their bursts and the bursts' length in seconds; the size of one operation.
LIMITS = frozenset(
    f"{what}_{unit}{suffix}"
    for what in ("total", "read", "write")
    for unit in _UNITS
    for suffix in _SUFFIXES
) | {"size_iops_sec"}

_GROUP = "group_name"
_LIMIT = number(0, 2**63 - 1)


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
        self._refuse_total_with_parts()

    def _refuse_total_with_parts(self) -> None:
        """libvirt takes a limit on the total or on its parts, not both."""
        values = dict(self.limits)
        for unit in _UNITS:
            for suffix in _SUFFIXES:
                total = f"total_{unit}{suffix}"
                for what in ("read", "write"):
                    part = f"{what}_{unit}{suffix}"
                    if values.get(total) and values.get(part):
                        raise InvalidParameter(
                            f"iotune: {total} is {values[total]} and {part} is {values[part]}; "
                            "expected a limit on the total or on its parts, not on both",
                            field=part,
                        )

    def write(self, disk: etree._Element) -> None:
        """Append <iotune>, its children sorted by name."""
        children = {name: str(value) for name, value in self.limits}
        if self.group is not None:
            children[_GROUP] = self.group
        iotune = etree.SubElement(disk, "iotune")
        for name in sorted(children):
            etree.SubElement(iotune, name).text = children[name]

    @classmethod
    def read(cls, iotune: etree._Element, thing: str) -> IoTune:
        """Read <iotune>. Raises UnsupportedDrive for limits that are not known here."""
        refuse_children(iotune, LIMITS | {_GROUP}, thing)
        texts = {str(child.tag): child.text or "" for child in iotune}
        return cls._from_known(Fields(texts, thing, "iotune"))

    @classmethod
    def from_params(cls, params: Fields) -> IoTune | None:
        """Read a device description's `specParams.ioTune`; None when it holds nothing."""
        for name in params.names():
            if name not in LIMITS | {_GROUP}:
                raise params.invalid(name, f"limits named {', '.join(sorted(LIMITS))}")
        return cls._from_known(params) if params.names() else None

    @classmethod
    def from_qos_specs(cls, specs: Fields) -> IoTune | None:
        """Read Cinder's qos_specs, which may also hold keys that are for the storage alone."""
        known = [name for name in specs.names() if name in LIMITS]
        foreign = sorted(set(specs.names()) - LIMITS)
        if foreign:
            log.warning("%s: qos_specs holds %s, not for a hypervisor", specs.thing, foreign)
        return cls._from_known(specs) if known else None

    @classmethod
    def _from_known(cls, fields: Fields) -> IoTune:
        limits = {n: fields.need(n, _LIMIT) for n in sorted(fields.names()) if n in LIMITS}
        return cls(tuple(limits.items()), fields.get(_GROUP, TEXT))
