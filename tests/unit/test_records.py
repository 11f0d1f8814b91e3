# SPDX-License-Identifier: GPL-2.0-or-later
"""What the suite of faults takes for lost: the comparison of records with an image's bytes."""

from __future__ import annotations

from typing import cast

import pytest

from lab.ceph.cluster import MIB, Ceph
from lab.guest.records import RECORD_BYTES, Comparison, compare, record

RUN = 7
PER_ROUND = MIB // RECORD_BYTES


class Image:
    """An image of 1 MiB in place of Ceph's; record N was written N-th, like the guest does."""

    def __init__(self, written: int) -> None:
        self.data = bytearray(MIB)
        for number in range(written):
            self.put(number % PER_ROUND, record(number, RUN))

    def put(self, block: int, data: bytes) -> None:
        self.data[block * RECORD_BYTES : (block + 1) * RECORD_BYTES] = data

    def image_size(self, _name: str) -> int:
        return MIB

    def read_image(self, _name: str, _offset_mib: int, count_mib: int) -> bytes:
        return bytes(self.data[: count_mib * MIB])


def comparing(image: Image, name: str, run: int, acknowledged: int) -> Comparison:
    return compare(cast(Ceph, image), name, run, acknowledged)


@pytest.mark.parametrize("acknowledged", [0, 1, 5, PER_ROUND, PER_ROUND + 1, 3 * PER_ROUND - 1])
@pytest.mark.parametrize("under_way", [0, 1])
def test_all_is_there(acknowledged, under_way):
    found = comparing(Image(acknowledged + under_way), "x", RUN, acknowledged)
    assert (found.acknowledged, found.lost, found.strange) == (acknowledged, (), ())


def test_a_record_that_never_came_is_lost():
    image = Image(5)
    image.put(3, bytes(RECORD_BYTES))
    found = comparing(image, "x", RUN, 5)
    assert (found.lost, found.strange) == ((3,), ())


def test_a_record_of_the_round_before_is_a_lost_one():
    image = Image(PER_ROUND + 10)
    image.put(4, record(4, RUN))
    found = comparing(image, "x", RUN, PER_ROUND + 10)
    assert (found.lost, found.strange) == ((PER_ROUND + 4,), ())


@pytest.mark.parametrize(
    "data",
    [
        record(2, RUN)[:2048] + bytes(2048),
        record(2, RUN)[:2048] + record(3, RUN)[2048:],
        record(3, RUN),
        record(2, RUN).replace(b"sum", b"Sum", 1),
    ],
    ids=["half", "torn", "misplaced", "altered"],
)
def test_what_was_never_written_there_is_strange(data):
    image = Image(5)
    image.put(2, data)
    found = comparing(image, "x", RUN, 5)
    assert (found.lost, found.strange) == ((2,), (2,))


def test_a_record_of_another_run_is_lost():
    image = Image(5)
    image.put(2, record(2, RUN + 1))
    assert comparing(image, "x", RUN, 5).lost == (2,)
