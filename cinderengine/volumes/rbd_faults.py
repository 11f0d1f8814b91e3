# SPDX-License-Identifier: GPL-2.0-or-later
"""What went wrong between us and a Ceph pool, in one sentence each; none holds a key."""

from __future__ import annotations

from collections.abc import Mapping

from cinderengine.errors import Conflict, EngineError, Invalid, NotFound, OutsideError, Unavailable
from cinderengine.volumes.addresses import PoolAddress


class PoolFault(Exception):
    """What the worker answers to a request that was not done.

    kind: a key of _KINDS, or another word. text: the library's words, or what the kind says.
    """

    def __init__(self, kind: str, text: str = "") -> None:
        super().__init__(f"{kind} {text}")
        self.kind = kind
        self.text = text


# What each kind is to the engine; {what}, {pool}, {user}, {monitors} and {text} are filled in.
_KINDS: Mapping[str, tuple[type[EngineError], str]] = {
    "no_monitors": (
        Unavailable,
        "No monitor of the Ceph cluster can be found at {monitors}: correct the names in the URL, "
        "or have DNS know them.",
    ),
    "silent": (
        Unavailable,
        "No monitor of the Ceph cluster at {monitors} answered in time: correct the addresses and "
        "ports in the URL, or see whether the monitors have a quorum.",
    ),
    "overrun": (
        Unavailable,
        "The Ceph cluster at {monitors} did not come to an end with {what} {text}: see its health.",
    ),
    "slow": (
        Unavailable,
        "The OSDs of pool {pool} did not answer in time for {what}: see the cluster's health.",
    ),
    "no_key": (
        Invalid,
        "The password is no CEPHX key: give what 'ceph auth get-key client.{user}' prints.",
    ),
    "key": (
        Invalid,
        "The Ceph cluster at {monitors} does not know user client.{user} with this key: correct "
        "the user, or give what 'ceph auth get-key client.{user}' prints.",
    ),
    "no_pool": (
        Invalid,
        "The Ceph cluster at {monitors} has no pool {pool}: correct the URL, or create the pool.",
    ),
    "denied": (
        Invalid,
        "Ceph does not allow client.{user} {what} in pool {pool}: give the user the capabilities "
        "mon 'profile rbd' and osd 'profile rbd pool={pool}'.",
    ),
    "full": (
        Conflict,
        "There is no room for {what}, for pool {pool} {text}: delete images, or add room.",
    ),
    "busy": (
        Conflict,
        "The pool {pool} keeps {what} while somebody has it open, at {text}: stop or detach what "
        "uses it.",
    ),
    "snapshots": (
        Conflict,
        "The pool {pool} keeps {what} while it has snapshots: delete these first.",
    ),
    "no_image": (
        NotFound,
        "There is no {what} (any more) in pool {pool}: somebody else removed it.",
    ),
    "blocklisted": (
        Unavailable,
        "The Ceph cluster at {monitors} has blocklisted this engine's client: try again, with a "
        "new one.",
    ),
    "ended": (
        Unavailable,
        "The process that works on pool {pool} ended before {what} was done ({text}): try again, "
        "and see that python3-rados and python3-rbd are installed.",
    ),
}
_OTHER = (OutsideError, "Ceph refuses {what} in pool {pool}: {text}.")


def of_pool(fault: PoolFault, at: PoolAddress, user: str, what: str) -> EngineError:
    """The fault in words. what: the object that was worked on, such as "image NAME"."""
    kind, form = _KINDS.get(fault.kind, _OTHER)
    text = " ".join(fault.text.split())[:500]
    return kind(form.format(what=what, pool=at.pool, user=user, monitors=at.mon_host, text=text))
