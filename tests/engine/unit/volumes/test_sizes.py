# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cinderengine.errors import Conflict
from cinderengine.volumes.cinder import limits_of
from cinderengine.volumes.service import (
    CINDER_STATUSES,
    GIB,
    Allowance,
    Bound,
    Limits,
    Volume,
    VolumeStatus,
    status_of,
)
from cinderengine.volumes.sizes import check_growth, check_room, gib_of, offered


@given(st.integers(min_value=0, max_value=2**60))
def test_gib_are_rounded_up(size_bytes):
    gib = gib_of(size_bytes)
    assert gib >= 1
    assert size_bytes <= gib * GIB < size_bytes + GIB or gib == 1


WHOLE = Limits(Allowance(Bound(10, 9), Bound(100, 98)))
FULL = Limits(Allowance(Bound(10, 10), Bound(100, 98)))
GOLD = Limits(types={"gold": Allowance(Bound(3, 3), Bound(5, 5))})
GOLD_SIZE = Limits(types={"gold": Allowance(Bound(), Bound(5, 4))})
NONE_AT_ALL = Limits(Allowance(Bound(0, 0), Bound(0, 0)))
OVER = Limits(Allowance(Bound(None, 5), Bound(10, 12)))


@pytest.mark.parametrize(
    ("limits", "gib", "kind"),
    [
        (Limits(), 10**6, "gold"),
        (WHOLE, 1, ""),
        (WHOLE, 2, ""),
        (GOLD, 9, "silver"),
        (GOLD, 9, ""),
        (GOLD_SIZE, 1, "gold"),
        (Limits(per_volume_gib=3), 3, ""),
    ],
)
def test_there_is_room(limits, gib, kind):
    check_room(limits, gib * GIB, kind)


@pytest.mark.parametrize(
    ("limits", "size_bytes", "kind", "words"),
    [
        (WHOLE, 3 * GIB, "", "98 of the 100 GiB"),
        (WHOLE, 2 * GIB + 1, "", "3 GiB more"),
        (FULL, 1, "", "10 of the 10 volumes that"),
        (GOLD, 1, "gold", "3 of the 3 volumes of type gold"),
        (GOLD_SIZE, 2 * GIB, "gold", "4 of the 5 GiB in volumes of type gold"),
        (NONE_AT_ALL, 1, "", "0 of the 0 volumes"),
        (OVER, 1, "", "12 of the 10 GiB"),
        (Limits(per_volume_gib=3), 3 * GIB + 1, "", "4 GiB is larger than the 3 GiB"),
    ],
)
def test_there_is_no_room(limits, size_bytes, kind, words):
    with pytest.raises(Conflict) as caught:
        check_room(limits, size_bytes, kind)
    assert words in caught.value.detail
    assert caught.value.detail.endswith(".")


def test_growth_counts_what_is_more_and_no_volume():
    check_growth(FULL, 50 * GIB, 52 * GIB, "")
    check_growth(OVER, GIB, GIB, "")
    # Within the same GiB nothing more is taken.
    check_growth(OVER, GIB // 2, GIB, "")
    with pytest.raises(Conflict, match="3 GiB more"):
        check_growth(FULL, 50 * GIB, 53 * GIB, "")
    with pytest.raises(Conflict, match="of type gold"):
        check_growth(GOLD_SIZE, GIB, 3 * GIB, "gold")
    with pytest.raises(Conflict, match="larger than the 3 GiB"):
        check_growth(Limits(per_volume_gib=3), 3 * GIB, 4 * GIB, "")


def test_limits_out_of_quotas():
    quotas = {
        "id": "0" * 32,
        "volumes": {"limit": -1, "in_use": 2, "reserved": 1, "allocated": 0},
        "gigabytes": {"limit": 10, "in_use": 5, "reserved": 2},
        "per_volume_gigabytes": {"limit": -1, "in_use": 0, "reserved": 0},
        "backup_gigabytes": {"limit": 1, "in_use": 1, "reserved": 0},
        "snapshots_gold": {"limit": 1, "in_use": 1, "reserved": 0},
        "volumes_gold": {"limit": 3, "in_use": 0, "reserved": 3},
        "gigabytes_gold": {"limit": -1, "in_use": 1, "reserved": 0},
        "gigabytes_my_type": {"limit": 7, "in_use": 0, "reserved": 0},
    }
    assert limits_of(Allowance(), quotas) == Limits(
        Allowance(Bound(None, 3), Bound(10, 7)),
        {
            "gold": Allowance(Bound(3, 3), Bound(None, 1)),
            "my_type": Allowance(Bound(), Bound(7, 0)),
        },
    )


def volume(volume_id, status=VolumeStatus.READY, key=None):
    return Volume(volume_id, "name", GIB, status, status.value, key=key)


def test_what_may_be_taken_over():
    volumes = [
        volume("free"),
        volume("known"),
        volume("of-another-engine", key="theirs"),
        volume("in-preparation", key="ours"),
        *(volume(status.value, status) for status in VolumeStatus if status != "ready"),
    ]
    found = offered(volumes, ["known", "ours"])
    assert [v.id for v in found] == ["free", "of-another-engine"]


def test_ten_thousand_are_few():
    volumes = [volume(str(n)) for n in range(10_000)]
    known = [str(n) for n in range(0, 10_000, 2)]
    assert len(offered(volumes, known)) == 5_000


# Of Cinder 21: VolumeStatus in its objects/fields.py.
CINDERS = """
    creating available deleting error error_deleting error_managing managing attaching in-use
    detaching maintenance restoring-backup error_restoring reserved awaiting-transfer backing-up
    error_backing-up error_extending downloading uploading retyping extending
"""


def test_each_status_of_cinder_means_something():
    assert set(CINDERS.split()) <= set(CINDER_STATUSES)
    failed = {words for words, status in CINDER_STATUSES.items() if status is VolumeStatus.FAILED}
    assert failed == {words for words in CINDER_STATUSES if words.startswith("error")}
    assert status_of("available") is VolumeStatus.READY


def test_an_unknown_status_is_waited_for():
    assert status_of("daydreaming") is VolumeStatus.BUSY
