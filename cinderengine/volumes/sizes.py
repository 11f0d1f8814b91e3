# SPDX-License-Identifier: GPL-2.0-or-later
"""Whether there is room for a volume, and which volumes can be taken over: what needs no asking."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence

from cinderengine.errors import Conflict
from cinderengine.volumes.service import GIB, Allowance, Limits, Volume, VolumeStatus


def gib_of(size_bytes: int) -> int:
    """A size in GiB as Cinder takes it: rounded up, 1 at least."""
    return max(1, -(-size_bytes // GIB))


def check_room(limits: Limits, size_bytes: int, type_name: str) -> None:
    """Return if one more volume of this size may be had; Conflict names the limit that is met."""
    gib = gib_of(size_bytes)
    _check_one(limits, gib)
    _check_allowance(limits.whole, 1, gib, "")
    if type_name in limits.types:
        _check_allowance(limits.types[type_name], 1, gib, type_name)


def check_growth(limits: Limits, old_bytes: int, new_bytes: int, type_name: str) -> None:
    """Return if a volume may become that large; Conflict names the limit that is met."""
    gib, more = gib_of(new_bytes), gib_of(new_bytes) - gib_of(old_bytes)
    _check_one(limits, gib)
    _check_allowance(limits.whole, 0, more, "")
    if type_name in limits.types:
        _check_allowance(limits.types[type_name], 0, more, type_name)


def _check_one(limits: Limits, gib: int) -> None:
    most = limits.per_volume_gib
    if most is not None and gib > most:
        raise Conflict(
            f"A volume of {gib} GiB is larger than the {most} GiB that the project's quota allows "
            "one volume: ask for a smaller one, or have the quota raised."
        )


def _check_allowance(allowance: Allowance, volumes: int, gib: int, type_name: str) -> None:
    of_type = f" of type {type_name}" if type_name else ""
    count, size = allowance.volumes, allowance.gib
    if volumes and count.left is not None and count.left < volumes:
        raise Conflict(
            f"The project has {count.used} of the {count.limit} volumes{of_type} that its quota "
            "allows: delete one, or have the quota raised."
        )
    if gib > 0 and size.left is not None and size.left < gib:
        raise Conflict(
            f"The project has {size.used} of the {size.limit} GiB in volumes{of_type} that its "
            f"quota allows, and {gib} GiB more are asked for: delete a volume, ask for a smaller "
            "one, or have the quota raised."
        )


def offered(volumes: Iterable[Volume], known_ids: Collection[str]) -> Sequence[Volume]:
    """The volumes that may be taken over: nobody has them, and nothing is wrong with them.

    known_ids: the ids of the volumes that the engine has, and the keys of steps that are making
    one, of which it has yet to be told.
    """
    known = frozenset(known_ids)
    return [
        volume
        for volume in volumes
        if volume.status is VolumeStatus.READY
        and volume.id not in known
        and (volume.key is None or volume.key not in known)
    ]
