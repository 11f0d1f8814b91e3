# SPDX-License-Identifier: GPL-2.0-or-later
"""The limits that VM.setIoTune sets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vdsmcinder.fields import TEXT, Fields
from vdsmcinder.virt.disk.tuning import IoTune
from vdsmcinder.virt.live.iotune import Tunable


def read_tunables(params: Sequence[Mapping[str, Any]]) -> tuple[Tunable, ...]:
    """Read [VmDiskDeviceTuneParams]. Raises MissingParameter (11), InvalidParameter (91)."""
    return tuple(_read_tunable(tunable, i) for i, tunable in enumerate(params))


def _read_tunable(params: Mapping[str, Any], position: int) -> Tunable:
    fields = Fields(params, "setIoTune", f"tunables[{position}]")
    name, path = fields.get("name", TEXT), fields.get("path", TEXT)
    if name is None and path is None:
        raise fields.missing("name", "the disk's name, such as vda, or else its path")
    limits = IoTune.changes(fields.section("ioTune"))
    if limits is None:
        raise fields.missing("ioTune", "the limits, 0 for none")
    return Tunable(name, path, limits)
