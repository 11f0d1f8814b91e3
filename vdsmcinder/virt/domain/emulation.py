# SPDX-License-Identifier: GPL-2.0-or-later
"""Making a domain that was written for KVM run under QEMU's emulation, where there is no KVM.

For hosts whose configuration allows emulation.
"""

from __future__ import annotations

from lxml import etree

# Services of KVM to its guests, which libvirt refuses or QEMU ignores under emulation.
_FEATURES = ("hyperv", "kvm", "pvspinlock")
_TIMERS = ("kvmclock", "hypervclock", "pit")


def emulate(domain: etree._Element) -> None:
    """Turn a <domain> of type kvm into one that QEMU can run by emulation alone."""
    domain.set("type", "qemu")
    _replace_cpu(domain)
    for feature in list(domain.iterfind("features/*")):
        if feature.tag in _FEATURES:
            _remove(feature)
    for timer in list(domain.iterfind("clock/timer")):
        if timer.get("name") in _TIMERS:
            _remove(timer)


def _replace_cpu(domain: etree._Element) -> None:
    """Any model may ask for what emulation lacks: take all that it has, keep the arrangement."""
    old = domain.find("cpu")
    cpu = etree.Element("cpu", {"mode": "maximum"})
    if old is None:
        domain.append(cpu)
        return
    for child in list(old):
        if child.tag in ("topology", "numa"):
            cpu.append(child)
    domain.replace(old, cpu)


def _remove(element: etree._Element) -> None:
    parent = element.getparent()
    assert parent is not None, "it was found below the domain"
    parent.remove(element)
