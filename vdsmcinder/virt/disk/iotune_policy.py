# SPDX-License-Identifier: GPL-2.0-or-later
"""The I/O tuning policy that an engine left in a domain's metadata: what a disk may get at most,
and what it shall get at least.

It is for whoever acts on it, such as a memory overcommit manager. The element is the engine's:
<qos> of namespace http://ovirt.org/vm/tune/1.0, in it <ioTune> with a <device> for each disk, in
each <guaranteed> and <maximum>.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from lxml import etree

from vdsmcinder.virt.disk.tuning import LIMITS

_NUMBER = re.compile("[0-9]{1,18}")
NAMESPACE = "http://ovirt.org/vm/tune/1.0"


@dataclass(frozen=True)
class DevicePolicy:
    """The policy for one disk, named by its target, its path, or both.

    guaranteed, maximum: limits by libvirt's name, bytes or operations per second.
    """

    name: str | None
    path: str | None
    guaranteed: Mapping[str, int] = field(default_factory=dict, hash=False)
    maximum: Mapping[str, int] = field(default_factory=dict, hash=False)

    def is_of(self, name: str | None, path: str | None) -> bool:
        """Whether a policy with these names is for the same disk."""
        return bool((name and name == self.name) or (path and path == self.path))

    def write(self, io_tune: etree._Element) -> None:
        """Append it as <device>, which read() reads."""
        names = {"name": self.name, "path": self.path}
        device = etree.SubElement(io_tune, "device", {k: v for k, v in names.items() if v})
        for kind, limits in (("maximum", self.maximum), ("guaranteed", self.guaranteed)):
            parent = etree.SubElement(device, kind)
            for limit, value in sorted(limits.items()):
                etree.SubElement(parent, limit).text = str(value)


def read(domain: etree._Element) -> tuple[DevicePolicy, ...]:
    """The policies in a <domain>'s metadata; what is no number is passed over."""
    return tuple(
        DevicePolicy(
            name=device.get("name") or None,
            path=device.get("path") or None,
            guaranteed=_limits(device, "guaranteed"),
            maximum=_limits(device, "maximum"),
        )
        for device in domain.iterfind(f"metadata/{{{NAMESPACE}}}qos/{{*}}ioTune/{{*}}device")
    )


def _limits(device: etree._Element, kind: str) -> dict[str, int]:
    limits = {}
    for limit in device.iterfind(f"{{*}}{kind}/*"):
        name, text = etree.QName(limit).localname, (limit.text or "").strip()
        if name in LIMITS and _NUMBER.fullmatch(text):
            limits[name] = int(text)
    return limits
