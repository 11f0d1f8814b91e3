# SPDX-License-Identifier: GPL-2.0-or-later
"""The policy of a VM in the domain's metadata: <qos> of namespace http://ovirt.org/vm/tune/1.0.

vcpuLimit is the share of the host's processors that the VM may use, in percent; ioTune is read by
virt/disk/iotune_policy.py. Engines write it into new documents, VM.updateVmPolicy changes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import libvirt
from lxml import etree

from vdsmcinder.fields import Kind, number
from vdsmcinder.hypervisor.xmldoc import parse
from vdsmcinder.virt.disk.iotune_policy import NAMESPACE, DevicePolicy

PREFIX = "ovirt-tune"
LIMIT_PCT = number(0, 2**31 - 1)
_US = number(-(2**63), 2**63 - 1)
_KIND = libvirt.VIR_DOMAIN_METADATA_ELEMENT


@dataclass(frozen=True)
class CpuLimit:
    """What a VM may use of the host's processors.

    limit_pct: what its policy allows, None for all. period_us, quota_us: what libvirt has in force,
    for how long each virtual processor may run in a period; None where it does not say, and a quota
    below 0 is none.
    """

    limit_pct: int | None
    period_us: int | None
    quota_us: int | None

    @classmethod
    def read(cls, domain: etree._Element) -> CpuLimit:
        """Read it from a <domain>; what is no number counts as absent."""
        limit = domain.findtext(f"metadata/{{{NAMESPACE}}}qos/{{*}}vcpuLimit")
        period, quota = (domain.findtext(f"cputune/{name}") for name in ("period", "quota"))
        return cls(_number(limit, LIMIT_PCT) or None, _number(period, _US), _number(quota, _US))


def _number(text: str | None, kind: Kind[int]) -> int | None:
    try:
        return kind.convert((text or "").strip())
    except ValueError:
        return None


def changed(
    element: str | None, limit_pct: int | None, devices: Sequence[DevicePolicy] = ()
) -> str:
    """<qos> with another limit, and with other policies for those devices; the rest is kept.

    element: as virDomain.metadata() gives it, None where the domain has none. limit_pct: None
    keeps that which is there.
    """
    qos = etree.Element("qos") if element is None else parse(element, "the VM's policy")
    if limit_pct is not None:
        for old in _children(qos, "vcpuLimit"):
            qos.remove(old)
        etree.SubElement(qos, "vcpuLimit").text = str(limit_pct)
    if devices:
        (io_tune, *_) = _children(qos, "ioTune") or [etree.SubElement(qos, "ioTune")]
        for policy in devices:
            for old in _children(io_tune, "device"):
                if policy.is_of(old.get("name"), old.get("path")):
                    io_tune.remove(old)
            policy.write(io_tune)
    return etree.tostring(qos, encoding="unicode")


def _children(element: etree._Element, name: str) -> list[etree._Element]:
    """By their local names: libvirt gives children without the prefix that they had."""
    return [child for child in element if etree.QName(child).localname == name]


# What follows runs in the connection's thread pool.


def write_live(
    domain: libvirt.virDomain, limit_pct: int | None, devices: Sequence[DevicePolicy]
) -> None:
    """Change the policy of a running domain, as changed() does."""
    where = libvirt.VIR_DOMAIN_AFFECT_LIVE
    try:
        known = domain.metadata(_KIND, NAMESPACE, where)
    except libvirt.libvirtError as e:
        if e.get_error_code() != libvirt.VIR_ERR_NO_DOMAIN_METADATA:
            raise
        known = None
    domain.setMetadata(_KIND, changed(known, limit_pct, devices), PREFIX, NAMESPACE, where)
