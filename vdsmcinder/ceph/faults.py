# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be wrong with a Ceph cluster, a user, a pool or an image: cause and remedy of each.

ceph/workers.py raises CephFault; what becomes of it on the wire is for virt/ to say, with the
classes of vdsmcinder/errors.py that `error` names.
"""

from __future__ import annotations

import enum

from vdsmcinder.errors import ImageNotFound, ResourceUnavailable, VdsmCinderError

_CHECK_CAPS = "check the user's capabilities with 'ceph auth get'"
_REGISTER = "register the key that 'ceph auth get-key' prints for this user, with "
_REGISTER += "Host.registerSecrets"
_NETWORK = "check the monitors and the network to them, then call again"


class Kind(enum.Enum):
    """A kind of fault: its name in ceph/worker.py, the cause, the remedy, and the error's class.

    error: None where the fault has no class of its own, and the verb's counts.
    """

    SILENT = (
        "silent",
        "the monitors of its Ceph cluster let nobody in, as they do without a quorum",
        _NETWORK,
        ResourceUnavailable,
    )
    OVERRUN = (
        "overrun",
        "its Ceph cluster does not answer",
        "check the monitors, the OSDs and the network to them, then call again",
        ResourceUnavailable,
    )
    ENDED = (
        "ended",
        "the process that asks Ceph was ended",
        "call again",
        ResourceUnavailable,
    )
    SLOW = (
        "slow",
        "the OSDs that have the image do not answer",
        "check them with 'ceph health detail' and the network to them, then call again",
        ResourceUnavailable,
    )
    NO_MONITORS = (
        "no_monitors",
        "it names no monitors and this host has no ceph.conf that does",
        "give the disk its hosts",
        None,
    )
    KEY = (
        "key",
        "Ceph does not accept the user or its key",
        _REGISTER,
        None,
    )
    NO_KEY = ("no_key", "its secret holds no Ceph key", _REGISTER, None)
    NO_AUTH = (
        "no_auth",
        "the Ceph cluster wants a user and a key and the disk names none",
        "give the disk its auth",
        None,
    )
    DENIED = ("denied", "the Ceph user may not open the image", _CHECK_CAPS, None)
    NO_POOL = (
        "no_pool",
        "the pool does not exist",
        "check its name with 'ceph osd pool ls' and the volume type in Cinder",
        ImageNotFound,
    )
    NO_NAMESPACE = (
        "no_namespace",
        "the namespace does not exist in its pool",
        "check its name with 'rbd namespace ls'",
        ImageNotFound,
    )
    NO_IMAGE = (
        "no_image",
        "the image does not exist in its pool",
        "check the volume in Cinder and its pool with 'rbd info'",
        ImageNotFound,
    )
    NO_SNAPSHOT = (
        "no_snapshot",
        "the image does not have the snapshot",
        "check it in Cinder and with 'rbd snap ls'",
        ImageNotFound,
    )
    FEATURES = (
        "features",
        "the image has features that librbd on this host does not support",
        "update librbd and QEMU on this host, or disable them with 'rbd feature disable'",
        None,
    )
    CLAIMED = (
        "claimed",
        "a VM that is just being started with the image has it",
        "run it in one place only; if that start failed, call again in 30 s",
        None,
    )
    BLOCKLISTED = (
        "blocklisted",
        "the Ceph cluster has blocklisted this host",
        "check 'ceph osd blocklist ls' and whether this host was fenced",
        None,
    )
    OTHER = ("other", "Ceph refuses", "look the reason up in the cluster's log", None)

    def __init__(
        self, word: str, cause: str, remedy: str, error: type[VdsmCinderError] | None
    ) -> None:
        self.word = word
        self.cause = cause
        self.remedy = remedy
        self.error = error


KINDS = {kind.word: kind for kind in Kind}
# While one of these lasts, nobody gets anything from the cluster.
DOWN = frozenset({Kind.SILENT, Kind.OVERRUN})


class CephFault(Exception):
    """Ceph could not or would not. text: its own words, perhaps none."""

    def __init__(self, kind: Kind, text: str = "") -> None:
        super().__init__(text or kind.cause)
        self.kind = kind
        self.text = text
