# SPDX-License-Identifier: GPL-2.0-or-later
"""What can be wrong with a Ceph cluster, a user, a pool or an image: cause and remedy of each.

What becomes of a CephFault on the wire is for virt/ to say, with the classes of
vdsmcinder/errors.py that `error` names.
"""

from __future__ import annotations

import enum

from vdsmcinder.ceph.monitor_survey import Survey, in_words
from vdsmcinder.errors import ImageNotFound, ResourceUnavailable, VdsmCinderError

_CHECK_CAPS = "check its capabilities with 'ceph auth get client.{user}'"
_MAY_BLOCKLIST = "give client.{user} the capability mon 'profile rbd' with 'ceph auth caps', "
_MAY_BLOCKLIST += "beside those that 'ceph auth get client.{user}' shows for OSDs"
_ROOM = "add OSDs, or delete what nobody needs; 'ceph health detail' and 'ceph osd df' show which"
_REGISTER = "register the key that 'ceph auth get-key client.{user}' prints"
_REGISTER += ", with Host.registerSecrets"
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
    BAD_NAMES = (
        "bad_names",
        "librados, and so QEMU, cannot look up the name of one of its monitors",
        "check the names, or give the disk the monitors' addresses",
        ResourceUnavailable,
    )
    KEY = (
        "key",
        # Of an unknown user and of a wrong key Ceph says the same.
        "Ceph knows no user {user}, or that user has another key",
        _REGISTER,
        None,
    )
    NO_KEY = ("no_key", "the secret of user {user} holds no Ceph key", _REGISTER, None)
    NO_AUTH = (
        "no_auth",
        "the Ceph cluster wants a user and a key and the disk names none",
        "give the disk its auth",
        None,
    )
    DENIED = ("denied", "Ceph user {user} may not open the image", _CHECK_CAPS, None)
    DENIED_WRITE = (
        "denied_write",
        "Ceph user {user} may not write to the image",
        _CHECK_CAPS + ", or describe the disk as readonly",
        None,
    )
    DENIED_DATA = (
        "denied_data",
        "Ceph user {user} may not write to pool {text}, which has the image's data",
        _CHECK_CAPS + ", or describe the disk as readonly",
        None,
    )
    DENIED_BLOCKLIST = (
        "denied_blocklist",
        "Ceph user {user} may not blocklist clients, so that nothing can be written to an image "
        "whose last user died",
        _MAY_BLOCKLIST,
        None,
    )
    QUOTA = (
        "quota",
        "pool {text} is full, for its quota is reached",
        "delete what nobody needs, or raise the quota with 'ceph osd pool set-quota'; 'ceph df "
        "detail' shows both",
        ResourceUnavailable,
    )
    FULL = (
        "full",
        "pool {text} is full, for an OSD of the Ceph cluster is",
        _ROOM,
        ResourceUnavailable,
    )
    SCARCE = (
        "scarce",
        "pool {text} is nearly full, for an OSD of the Ceph cluster is",
        _ROOM,
        None,
    )
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
    UNGUARDED = (
        "unguarded",
        "the image has no feature exclusive-lock, so that a host that was cut off goes on writing "
        "to it when it is back, beside another that has it by then",
        "enable it with 'rbd feature enable POOL/IMAGE exclusive-lock', or describe the disk as "
        "shared; VM.create and VM.hotplugDisk also take allowNoExclusiveLock",
        None,
    )
    CLAIMED = (
        "claimed",
        "the image is being given to another VM just now",
        "use it in one place only; if that start failed, call again in 30 s",
        None,
    )
    IN_USE = (
        "in_use",
        "the image is in use elsewhere",
        "end the VM that has it, or describe the disk as shared; what a host that died holds, Ceph "
        "lets go after 30 s",
        None,
    )
    IN_USE_TOO = (
        "in_use_too",
        "the image is open on more hosts than the one that the VM is to come from",
        "end what has it on the other, then call again; what a host that died holds, Ceph lets go "
        "after 30 s",
        None,
    )
    IN_USE_THERE = (
        "in_use_there",
        "the image is still open on another host",
        "see to it that the host that the VM comes from is off, and call again; Ceph lets go what "
        "it held after 30 s",
        None,
    )
    UNSEEN = (
        "unseen",
        "whether the image is open on another host cannot be seen, for the key of Ceph user {user} "
        "has not been given since the daemon started",
        _REGISTER + ", and call again; VM.create and VM.hotplugDisk also take allowUnchecked",
        None,
    )
    LOCKED = (
        "locked",
        "the image was locked by hand",
        "look with 'rbd lock ls', and remove the lock with 'rbd lock rm' if nobody needs it",
        None,
    )
    SECONDARY = (
        "secondary",
        "the image is the copy of one that is mirrored from another cluster, and cannot be written",
        "promote it with 'rbd mirror image promote', or use the original",
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
# These pass in a moment if it is but a client that looks at the image, or that ends.
PASSING = frozenset({Kind.IN_USE, Kind.IN_USE_TOO, Kind.IN_USE_THERE, Kind.CLAIMED})
# Somebody else has the image for certain.
TAKEN = frozenset({*PASSING, Kind.LOCKED})
# What is written to the pool waits for room.
FULL = frozenset({Kind.QUOTA, Kind.FULL})
# While one of these lasts, nobody gets anything from the cluster.
DOWN = frozenset({Kind.SILENT, Kind.OVERRUN})


# What Ceph says adds nothing to these.
_PLAIN = frozenset(
    {Kind.NO_POOL, Kind.NO_NAMESPACE, Kind.NO_IMAGE, Kind.NO_SNAPSHOT, Kind.KEY, Kind.NO_KEY}
    # Or stands in them.
    | {Kind.QUOTA, Kind.FULL, Kind.SCARCE, Kind.DENIED_DATA}
    | {Kind.NO_AUTH, Kind.BAD_NAMES, Kind.DENIED, Kind.DENIED_WRITE, Kind.NO_MONITORS}
)


class CephFault(Exception):
    """Ceph could not or would not.

    text: what there is to add, such as Ceph's own words. monitors: what a survey of the cluster's
    monitors found, once somebody has made one.
    """

    def __init__(self, kind: Kind, text: str = "", monitors: Survey | None = None) -> None:
        super().__init__(text or kind.cause)
        self.kind = kind
        self.text = text
        self.monitors = monitors

    def cause(self, user: str | None) -> str:
        """The cause, with what there is to add. user: of the account that asked."""
        cause = self.kind.cause.format(user=user, text=self.text)
        if self.kind is Kind.BAD_NAMES and self.monitors:
            return f"{cause}: {in_words(self.monitors)}"
        if self.kind in DOWN and self.monitors:
            answering = [monitor for monitor, why in self.monitors.items() if why is None]
            found = in_words(self.monitors)
            if not answering:
                return f"no Ceph monitor can be reached from this host: {found}"
            reached = f"{len(answering)} of {len(self.monitors)} Ceph monitors can be reached from"
            if self.kind is Kind.SILENT:
                return f"{reached} this host, but have no quorum or let nobody in: {found}"
            return f"{cause} ({self.text}), though {reached} this host: {found}"
        return cause if self.kind in _PLAIN or not self.text else f"{cause} ({self.text})"

    def remedy(self, user: str | None) -> str:
        """What to do about it."""
        return self.kind.remedy.format(user=user)
