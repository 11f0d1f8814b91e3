# SPDX-License-Identifier: GPL-2.0-or-later
"""The policy that VM.updateVmPolicy gives a VM."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vdsmcinder.fields import Fields
from vdsmcinder.rpc.requests.disk import read_names
from vdsmcinder.virt.disk.tuning import IoTune
from vdsmcinder.virt.domain.policy import LIMIT_PCT
from vdsmcinder.virt.live.policy import DiskChange, PolicyChange


def read_policy(params: Mapping[str, Any]) -> PolicyChange:
    """Read UpdateVmPolicyParams. Raises MissingParameter (11), InvalidParameter (91)."""
    fields = Fields(params, "policy")
    limit_pct = fields.get("vcpuLimit", LIMIT_PCT)
    disks = tuple(map(_read_disk, fields.sections("ioTune")))
    if limit_pct is None and not disks:
        raise fields.missing("vcpuLimit", "it, ioTune or both")
    return PolicyChange(limit_pct, disks)


def _read_disk(fields: Fields) -> DiskChange:
    names = read_names(fields.values)
    if not names.names:
        raise fields.missing("name", "the disk's name, such as vda, its path or its imageID")
    maximum = IoTune.changes(fields.section("maximum"))
    guaranteed = IoTune.changes(fields.section("guaranteed"))
    if maximum is None and guaranteed is None:
        raise fields.missing("maximum", "the limits, 0 for none")
    return DiskChange(names, maximum, guaranteed)
