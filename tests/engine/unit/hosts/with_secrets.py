# SPDX-License-Identifier: GPL-2.0-or-later
"""vdsm-cinderd with secrets on libvirt's test driver, which has none: its words are the daemon's.

What the driver lacks stands here, in libvirt-python's own methods; all else is libvirt's.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

import libvirt
from lxml import etree

from tests.faults import pluggable
from vdsmcinder import daemon

PROGRAM = ("tests.engine.unit.hosts.with_secrets", "--config")
_USAGES = {"ceph": libvirt.VIR_SECRET_USAGE_TYPE_CEPH}


class Secret:
    """One of libvirt's, as virSecret has it."""

    def __init__(self, xml: str) -> None:
        self.xml = xml

    def UUIDString(self) -> str:
        return etree.fromstring(self.xml).findtext("uuid") or ""

    def usageType(self) -> int:
        return int(_USAGES[str(etree.fromstring(self.xml).find("usage").get("type"))])

    def usageID(self) -> str:
        return etree.fromstring(self.xml).findtext("usage/name") or ""

    def XMLDesc(self) -> str:
        return self.xml

    def setValue(self, value: bytes) -> None:
        assert value

    def undefine(self) -> None:
        del _known[self.UUIDString()]


_known: dict[str, Secret] = {}


def _list(_: Any) -> list[Secret]:
    return list(_known.values())


def _define(_: Any, xml: str, _flags: int = 0) -> Secret:
    new = Secret(xml)
    _known[new.UUIDString()] = new
    return new


def _look_up(_: Any, uuid: str) -> Secret:
    try:
        return _known[uuid]
    except KeyError:
        error = libvirt.libvirtError("no secret")
        error.err = (libvirt.VIR_ERR_NO_SECRET, 0, "no secret", 0, "", "", "", 0, 0)
        raise error from None


def main(argv: Sequence[str]) -> int:
    """Run the daemon so."""
    pluggable.Plugs().install()
    libvirt.virConnect.listAllSecrets = _list
    libvirt.virConnect.secretDefineXML = _define
    libvirt.virConnect.secretLookupByUUIDString = _look_up
    return daemon.main(argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
