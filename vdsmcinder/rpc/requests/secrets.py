# SPDX-License-Identifier: GPL-2.0-or-later
"""The parameters of Host.registerSecrets and Host.unregisterSecrets, as values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from vdsmcinder.errors import SecretMalformed
from vdsmcinder.virt.secrets.secret import SecretSpec, parse_uuid


def read_secrets(params: Sequence[Any]) -> tuple[SecretSpec, ...]:
    """Read [SecretInfo]. Raises SecretMalformed (72) for the first that is, or that comes twice."""
    specs = tuple(SecretSpec.from_params(p, i) for i, p in enumerate(params))
    for field, values in (
        ("uuid", [s.uuid for s in specs]),
        ("usageID", [f"{s.usage_type.wire_name} {s.usage_id}" for s in specs]),
    ):
        first: dict[str, int] = {}
        for position, value in enumerate(values):
            before = first.setdefault(value, position)
            if before != position:
                raise SecretMalformed(
                    f"secrets[{position}].{field} repeats that of secrets[{before}]; send each "
                    "secret once",
                    field=field,
                )
    return specs


def read_uuids(params: Sequence[Any]) -> frozenset[str]:
    """Read [UUID]. Raises SecretMalformed (72) for what is none."""
    return frozenset(parse_uuid(value, f"uuids[{i}]") for i, value in enumerate(params))
