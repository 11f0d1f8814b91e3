# SPDX-License-Identifier: GPL-2.0-or-later
"""All types of the API by their names."""

from __future__ import annotations

from collections.abc import Mapping

from cinderengine.api.types import compute, storage, system
from cinderengine.api.types.schema import Type

TYPES: Mapping[str, Type] = {
    declared.name: declared for declared in (*storage.TYPES, *compute.TYPES, *system.TYPES)
}
