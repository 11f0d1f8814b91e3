# SPDX-License-Identifier: GPL-2.0-or-later
"""The records that the guest's command `hammer` writes, and what an image holds of them.

So what a guest was told is on its disk can be compared with what librbd reads of the image from
outside. lab/guest/files/init writes the records.
"""

from __future__ import annotations

from dataclasses import dataclass

from lab.ceph.cluster import MIB, Ceph

RECORD_BYTES = 4096
_LINE_BYTES = 64
_FACTOR, _MODULUS = 2654435761, 2**32


def record(number: int, run: int = 0) -> bytes:
    """The 4 KiB of record `number` of `hammer DEV RUN`."""
    total = (number * _FACTOR + run) % _MODULUS
    line = b"%-63s." % (b"record %d of run %d, sum %d" % (number, run, total))
    return line * (RECORD_BYTES // _LINE_BYTES)


@dataclass(frozen=True)
class Comparison:
    """What an image holds of a run. acknowledged: records that the guest was told are on disk.

    lost: those of them that are not there. strange: blocks with something that was never written
    there, such as half a record.
    """

    acknowledged: int
    lost: tuple[int, ...]
    strange: tuple[int, ...]


def compare(ceph: Ceph, image: str, run: int, acknowledged: int) -> Comparison:
    """Read every record of the run that is to be in the image, the newest where it went round.

    acknowledged: how many records the guest was told are on disk, counted from 0. The one after
    them may be there, or not.
    """
    size = ceph.image_size(image)
    per_round = size // RECORD_BYTES
    blocks = min(acknowledged + 1, per_round)
    count_mib = -(-blocks * RECORD_BYTES // MIB)
    data = ceph.read_image(image, 0, count_mib)
    lost, strange = [], []
    for block in range(min(acknowledged, per_round)):
        # The newest that was acknowledged for this block, and the one that may have followed it.
        newest = block + (acknowledged - 1 - block) // per_round * per_round
        found = data[block * RECORD_BYTES : (block + 1) * RECORD_BYTES]
        if found == record(newest, run):
            continue
        if newest + per_round == acknowledged and found == record(acknowledged, run):
            continue
        lost.append(newest)
        if not _is_older(found, newest - per_round, run):
            strange.append(newest)
    return Comparison(acknowledged, tuple(lost), tuple(strange))


def _is_older(found: bytes, before: int, run: int) -> bool:
    """Whether a block holds what it held before the record: that of the round before, or no run."""
    return found == record(before, run) if before >= 0 else b" of run %d," % run not in found
