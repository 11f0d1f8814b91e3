# SPDX-License-Identifier: GPL-2.0-or-later
"""Who may have an image open beside the VM that is to use it, as a table."""

from __future__ import annotations

import pytest

from vdsmcinder.ceph.fault_kinds import Kind
from vdsmcinder.ceph.image_use import Claim, ImageUse, Others

HERE, SOURCE, THIRD = "192.0.2.2", "192.0.2.1", "192.0.2.3"
CLAIM = Claim("cookie", "VM x on host2")


def found(*addresses: str) -> dict[str, object]:
    """What ceph/worker.py tells of an image that clients at these addresses have open."""
    watchers = [
        {"address": address, "client": number, "here": address == HERE}
        for number, address in enumerate(addresses)
    ]
    return {"watchers": watchers, "locks": [{"cookie": "auto 1", "client": "", "address": ""}]}


def use(others: Others) -> ImageUse:
    return ImageUse("volumes/volume-x", None, others, readonly=False)


@pytest.mark.parametrize(
    ("others", "addresses", "kind"),
    [
        (Others.ANYBODY, (SOURCE, THIRD), None),
        (Others.NOBODY, (), None),
        (Others.NOBODY, (HERE,), Kind.IN_USE),
        (Others.NOBODY, (SOURCE,), Kind.IN_USE),
        (Others.SOURCE, (), None),
        (Others.SOURCE, (SOURCE,), None),
        # What the source's QEMU had open before it lost its connection is yet to lapse.
        (Others.SOURCE, (SOURCE, SOURCE), None),
        (Others.SOURCE, (SOURCE, THIRD), Kind.IN_USE_TOO),
        (Others.SOURCE, (SOURCE, HERE), Kind.IN_USE_TOO),
        # Behind one address that is translated all hosts look alike.
        (Others.SOURCE, (HERE,), None),
        (Others.SOURCE_AND_HERE, (SOURCE, HERE, HERE), None),
        (Others.SOURCE_AND_HERE, (SOURCE, HERE, THIRD), Kind.IN_USE_TOO),
        (Others.HERE, (HERE,), None),
        (Others.HERE, (HERE, SOURCE), Kind.IN_USE_THERE),
    ],
)
def test_who_may_have_it_open(
    others: Others, addresses: tuple[str, ...], kind: Kind | None
) -> None:
    fault = use(others).held_elsewhere(found(*addresses))
    assert (fault and fault.kind) == kind


def test_who_has_it_open_is_named() -> None:
    fault = use(Others.SOURCE_AND_HERE).held_elsewhere(found(SOURCE, HERE, THIRD))
    assert fault is not None
    assert fault.text == f"client.0 at {SOURCE}, client.2 at {THIRD}"


@pytest.mark.parametrize("others", [o for o in Others if o is not Others.ANYBODY])
def test_a_lock_that_somebody_took_by_hand_keeps_all_away(others: Others) -> None:
    lock = {"cookie": "backup", "client": "client.4", "address": THIRD}
    fault = use(others).held_elsewhere({"watchers": [], "locks": [lock]})
    assert fault is not None
    assert fault.kind is Kind.LOCKED


@pytest.mark.parametrize("others", Others)
def test_only_what_nobody_else_has_is_claimed(others: Others) -> None:
    claimed = use(others).question(CLAIM)["claim"]
    alone = others in (Others.NOBODY, Others.OWN)
    assert (claimed == CLAIM.params()) is alone


LOCK = {"client": "client.7", "cookie": "auto 93", "address": THIRD}


def told(**changes: object) -> dict[str, object]:
    """What ceph/worker.py tells of an image that nothing is wrong with."""
    usual = {"features": 5, "unknown": 0, "primary": True, "room": {}, "may_blocklist": True}
    return {**usual, "watchers": [], "locks": [], **changes}


@pytest.mark.parametrize(
    ("changes", "kind", "text"),
    [
        ({}, None, ""),
        ({"room": {"volumes": "quota"}}, Kind.QUOTA, "volumes"),
        ({"room": {"data": "full"}}, Kind.FULL, "data"),
        ({"room": {"volumes": "scarce", "data": "full"}}, Kind.FULL, "data"),
        ({"room": {"volumes": "scarce"}}, None, ""),
        ({"may_blocklist": False}, None, ""),
        ({"locks": [LOCK]}, None, ""),
        (
            {"locks": [LOCK], "may_blocklist": False},
            Kind.DENIED_BLOCKLIST,
            f"client.7 at {THIRD} has it locked",
        ),
        # Its owner lives, and hands it over.
        (
            {
                **{"locks": [LOCK], "may_blocklist": False},
                "watchers": [{"address": THIRD, "client": 7, "here": False}],
            },
            None,
            "",
        ),
    ],
)
@pytest.mark.parametrize("others", [Others.NOBODY, Others.ANYBODY, Others.SOURCE])
def test_what_keeps_a_disk_from_writing(
    others: Others, changes: dict[str, object], kind: Kind | None, text: str
) -> None:
    fault = use(others).unfit(told(**changes))
    assert (fault and fault.kind, fault.text if fault else "") == (kind, text)
    reader = ImageUse("volumes/volume-x", None, others, readonly=True)
    snapshot = ImageUse("volumes/volume-x", "monday", others, readonly=False)
    # They are opened as if they were written to, which takes room in the pool that they are in.
    own = kind if text == "volumes" else None
    for only_read in (reader, snapshot):
        fault = only_read.unfit(told(**changes))
        assert (fault and fault.kind) == own


@pytest.mark.parametrize("others", [Others.HERE, Others.OWN])
def test_what_is_open_already_needs_no_room_to_be_opened(others: Others) -> None:
    assert use(others).unfit(told(room={"volumes": "full"})) is None
