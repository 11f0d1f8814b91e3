# SPDX-License-Identifier: GPL-2.0-or-later
"""The process that talks to one Ceph cluster as one user, with librados and librbd.

Run by its path as a process of its own, and killed when it overruns: a cluster that is gone can
hold librados for minutes. It imports nothing of the daemon's, so it is small and starts in 50 ms.

Lines of JSON come in on stdin, the first with what to connect to and the user's key, each other one
a request {id, op, args}; lines of JSON {id, result} or {id, error: {kind, text}} go out on stdout.
The end of stdin is its end.
"""

from __future__ import annotations

import base64
import errno
import json
import os
import re
import resource
import struct
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any

import rados
import rbd

THREADS = 16
# The name of our lock on an image's header object; librbd's own is "rbd_lock".
CLAIM = "vdsm-cinder.start"
RENEWABLE = 1  # LOCK_FLAG_MAY_RENEW of Ceph's cls_lock
_OWNER = re.compile(rb"vdsm-cinder:([^;]{1,200});")
# What librbd 16 knows: from layering to a dirty cache, bits 0 to 11. Newer bindings name more.
_FEATURES = (1 << 12) - 1
_MIRRORED = (1 << 6) | (1 << 10)  # journaling, and "non-primary"
# The beginning of a LUKS 1 header, and where in it the data's offset stands, in sectors.
_LUKS_1 = b"LUKS\xba\xbe\x00\x01"
_PAYLOAD_OFFSET = 104
# Which flag of a pool says what of its room; the first that is set counts. One whose quota is
# reached has "full" as well.
_ROOM = {"full_quota": "quota", "full": "full", "backfillfull": "scarce", "nearfull": "scarce"}
# No client has this address, so that it is refused, by monitors that would take another: librbd
# blocklists addresses with a number behind a slash, and "profile rbd" lets no others be.
_NOBODY = "nobody/0"
# How often, in seconds, the user of running VMs is asked about that lacks a right.
_LACKS_S = 600.0
_LACKING = ("denied", "denied_write", "denied_data")


class Refused(Exception):
    """Something that was asked for cannot be had. kind: a value of ceph/workers.py's Kind."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text


# What connecting fails with, by errno. Of an unknown user and a wrong key Ceph says the same.
_CONNECTING = {1: "key", 13: "key", 22: "bad_names", 95: "no_auth", 2: "no_monitors", 110: "silent"}


class Cluster:
    """The connection, made when it is first needed and again after it could not be made."""

    def __init__(self, access: Mapping[str, Any]) -> None:
        self._access = access
        self._lock = threading.Lock()
        self._rados: rados.Rados | None = None
        self._failures = 0
        self._last: Refused | None = None
        self._may_blocklist: bool | None = None
        self._blocklist_asked_s = 0.0

    def connected(self) -> rados.Rados:
        """The connected cluster. Those who wait for an attempt under way share its outcome."""
        seen = self._failures
        with self._lock:
            if self._rados is not None:
                return self._rados
            if self._failures != seen and self._last is not None:
                raise self._last
            try:
                self._rados = self._connect()
            except Refused as e:
                self._failures += 1
                self._last = e
                raise
            return self._rados

    def _connect(self) -> rados.Rados:
        if self._access["key"] and not is_key(base64.b64decode(self._access["key"])):
            raise Refused("no_key", "")
        # librados takes whole seconds.
        timeout_s = str(max(1, int(self._access["timeout_s"])))
        options = {
            "mon_host": self._access["mon_host"],
            "key": self._access["key"],
            "client_mount_timeout": timeout_s,
            # All at once: one that is silent must not use the time up.
            "mon_client_hunt_parallel": "16",
            "rados_mon_op_timeout": timeout_s,
            "rados_osd_op_timeout": timeout_s,
            # The key in the configuration counts, not a keyring of this host's.
            "keyring": "/dev/null",
            # As libvirt tells QEMU.
            "auth_client_required": "cephx, none" if self._access["user"] else "none",
        }
        # librados logs keys that it cannot read.
        silent = {"log_file": "", "log_to_stderr": "false", "err_to_stderr": "false"}
        # librados reads the host's own ceph.conf for an empty name, and none for None.
        own_conf = None if self._access["mon_host"] else ""
        try:
            cluster = rados.Rados(
                rados_id=self._access["user"],
                conffile=self._access["conf_file"] or own_conf,
                conf={**silent, **{name: value for name, value in options.items() if value}},
            )
        except rados.ObjectNotFound as e:
            raise Refused("no_monitors", str(e)) from e
        try:
            cluster.connect()
        except rados.Error as e:
            kind = _CONNECTING.get(e.errno, "other")
            # Then librados has asked DNS for them, which may not answer either.
            if kind == "silent" and not cluster.conf_get("mon_host"):
                kind = "no_monitors"
            cluster.shutdown()
            raise Refused(kind, str(e)) from e
        return cluster

    def monitors_answer(self) -> None:
        """Ask the monitors something: only those in a quorum answer, and who connects needs one."""
        self.mon("mon stat")

    def mon(self, prefix: str, **words: str) -> Any:
        """What the monitors answer to a command."""
        code, out, said = self._command(prefix, words)
        if code:
            raise Refused("denied", said or os.strerror(code))
        return json.loads(out)

    def _command(self, prefix: str, words: Mapping[str, str]) -> tuple[int, bytes, str]:
        """A command's errno, 0 for none, its output, and what is said to an error."""
        command = json.dumps({"prefix": prefix, "format": "json", **words})
        try:
            code, out, said = self.connected().mon_command(command, b"")
        except rados.Error as e:
            raise Refused("silent", str(e)) from e
        if code == -110:
            raise Refused("silent", said)
        return -code, out, said

    def may_blocklist(self, known_for_s: float = 0.0) -> bool:
        """Whether the user may shut other clients out, as librbd does with the dead owner of a lock
        before it takes that over. Nobody is shut out by this.

        known_for_s: that it may not, is not asked again sooner: monitors log each time.
        """
        if self._may_blocklist:
            return True
        if self._may_blocklist is None or time.monotonic() - self._blocklist_asked_s >= known_for_s:
            self._may_blocklist = self._blocklists()
            if not self._may_blocklist:
                self.renew()
                self._may_blocklist = self._blocklists()
            self._blocklist_asked_s = time.monotonic()
        return self._may_blocklist

    def _blocklists(self) -> bool:
        # Monitors look at the right first, then at the address, which is none.
        code, _, _ = self._command("osd blocklist", {"blocklistop": "add", "addr": _NOBODY})
        return code not in (errno.EPERM, errno.EACCES)

    def renew(self) -> None:
        """Connect anew for what is asked next: Ceph goes by the rights that a user had when it
        connected.

        Whoever has the old connection yet, keeps it.
        """
        with self._lock:
            self._rados = None

    def scarce_pools(self) -> dict[str, str]:
        """The pools with too little room, and how little: "quota", "full" or "scarce"."""
        found = {}
        for pool in self.mon("osd pool ls", detail="detail"):
            flags = pool["flags_names"].split(",")
            room = next((room for flag, room in _ROOM.items() if flag in flags), None)
            if room is not None:
                found[pool["pool_name"]] = room
        return found


def is_key(value: bytes) -> bool:
    """Whether these are a CEPHX key's bytes: a type, the time of its making, a length, and itself.

    librados fails with EINVAL over others, and over other things too.
    """
    return len(value) > 12 and struct.unpack_from("<HIIH", value)[3] == len(value) - 12


class Images:
    """What is asked of images."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="image")
        # Locks are known by their clients: to keep one up, or to give it back, takes the same.
        self._claimants: dict[tuple[str, str], rados.Rados] = {}

    def inspect(self, images: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Look at all of them at once; for each what _inspect tells, or its {error}."""
        # First, so that no claim is made in vain: OSDs serve us without monitors, but not QEMU,
        # which has yet to connect.
        scarce = self._cluster.scarce_pools()
        may = not any(image.get("writes") for image in images) or self._cluster.may_blocklist()
        asked = [{**image, "scarce": scarce, "may_blocklist": may} for image in images]
        found = self._look(asked)
        denied = [n for n, one in enumerate(found) if one.get("error", {}).get("kind") in _LACKING]
        if denied:
            self._cluster.renew()
            for n, one in zip(denied, self._look([asked[n] for n in denied])):
                found[n] = one
        return found

    def _look(self, asked: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        client = self._cluster.connected()
        looks = [
            self._threads.submit(guarded, self._inspect, {**image, "client": client})
            for image in asked
        ]
        return [look.result() for look in looks]

    def _inspect(
        self,
        path: str,
        *,
        client: rados.Rados,
        scarce: Mapping[str, str],
        may_blocklist: bool,
        snapshot: str | None = None,
        claim: Mapping[str, Any] | None = None,
        writes: bool = False,
        luks: bool = False,
    ) -> dict[str, Any]:
        """An image's size, features and users, and those of its pools that lack room.

        scarce, may_blocklist: what Cluster tells. claim: of the image, taken before its users are
        read, so that of two who claim it and look one sees the other.
        writes: it will be written to, so raise if the user may not write to the pool of its data.
        luks: read its header, too.
        """
        with _opened(client, path) as (ioctx, image):
            features = image.features()
            pool, data_pool = ioctx.get_pool_name(), _data_pool(client, ioctx, image)
            found: dict[str, Any] = {
                "features": features,
                "unknown": features & ~known_features(),
                "room": {p: scarce[p] for p in (pool, data_pool) if p in scarce},
                # An image that nobody locks is written to whoever died.
                "may_blocklist": may_blocklist or not features & rbd.RBD_FEATURE_EXCLUSIVE_LOCK,
            }
            if writes and data_pool != pool:
                _try_to_write(client, data_pool, ioctx, image)
            if snapshot is not None:
                _set_snapshot(image, snapshot)
            elif claim is not None:
                self._claim(client, path, header_of(image), claim)
            found["size"] = image.size()
            if luks:
                found["luks_header"] = _luks_header(image)
            found["watchers"] = _watchers(client, image)
            found["locks"] = _locks(image)
            found["primary"] = _is_primary(image, found["features"])
            return found

    def renew(self, path: str, claim: Mapping[str, Any]) -> None:
        client = self._cluster.connected()
        with _opened(client, path) as (_, image):
            self._claim(client, path, header_of(image), claim)

    def _claim(self, client: rados.Rados, path: str, header: str, claim: Mapping[str, Any]) -> None:
        """Claim an image, or keep its claim up. client: as which, if it is not claimed yet."""
        client = self._claimants.get((path, claim["cookie"]), client)
        with _pool(client, path) as (ioctx, _):
            _lock(ioctx, header, claim)
        self._claimants[path, claim["cookie"]] = client

    def release(self, path: str, claim: Mapping[str, Any]) -> None:
        client = self._claimants.pop((path, claim["cookie"]), None) or self._cluster.connected()
        # Not found is one that has lapsed.
        with suppress(rados.ObjectNotFound), _opened(client, path) as (ioctx, image):
            ioctx.unlock(header_of(image), CLAIM, claim["cookie"])

    def mark(self, path: str, name: str, text: str) -> None:
        """Give the image metadata; by its class in the OSD, for librbd asks who writes to it."""
        asked = struct.pack("<I", 1) + _packed(name) + _packed(text)
        with _opened(self._cluster.connected(), path) as (ioctx, image):
            ioctx.execute(header_of(image), "rbd", "metadata_set", asked)

    def unmark(self, path: str, name: str) -> None:
        with (
            suppress(rados.ObjectNotFound),
            _opened(self._cluster.connected(), path) as (ioctx, image),
        ):
            ioctx.execute(header_of(image), "rbd", "metadata_remove", _packed(name))

    def marked(self, path: str, name: str) -> str | None:
        """What the image's metadata hold of that name; None for nothing."""
        with _opened(self._cluster.connected(), path) as (_, image):
            return next((str(text) for key, text in image.metadata_list() if key == name), None)


@contextmanager
def _pool(client: rados.Rados, path: str) -> Iterator[tuple[rados.Ioctx, str]]:
    """The pool (and namespace) of an image's path, and the image's name."""
    pool, *namespace, image = path.split("/")
    try:
        ioctx = client.open_ioctx(pool)
    except rados.ObjectNotFound as e:
        raise Refused("no_pool", str(e)) from e
    with ioctx:
        # A full pool takes locks, which need no room; librados would have them wait for it.
        ioctx.set_osdmap_full_try()
        ioctx.set_namespace("".join(namespace))
        yield ioctx, image


@contextmanager
def _opened(client: rados.Rados, path: str) -> Iterator[tuple[rados.Ioctx, rbd.Image]]:
    """For reading only: that makes no watcher, and takes no lock away from who has it."""
    with _pool(client, path) as (ioctx, name):
        try:
            with rbd.Image(ioctx, name, read_only=True) as image:
                yield ioctx, image
        except rbd.ImageNotFound as e:
            namespace = ioctx.get_namespace()
            if namespace and not rbd.RBD().namespace_exists(ioctx, namespace):
                raise Refused("no_namespace", str(e)) from e
            raise Refused("no_image", str(e)) from e


def _watchers(client: rados.Rados, image: rbd.Image) -> list[dict[str, Any]]:
    """Who has the image open, and whether that is on this host, by its address to the cluster."""
    here = address(client.get_addrs())
    found = [(address(w["addr"]), w["id"]) for w in image.watchers_list()]
    return [{"address": where, "client": who, "here": where == here} for where, who in found]


def _data_pool(client: rados.Rados, ioctx: rados.Ioctx, image: rbd.Image) -> str:
    """The pool that has an image's data, which may be another than that of its header."""
    pool_id = image.data_pool_id()
    same = pool_id == ioctx.get_pool_id()
    return str(ioctx.get_pool_name() if same else client.pool_reverse_lookup(pool_id))


def _try_to_write(client: rados.Rados, pool: str, ioctx: rados.Ioctx, image: rbd.Image) -> None:
    """Raise if the user may not write to an image's data: remove an object that is not there.

    Its name begins like those of the data, for capabilities may be of such names only.
    """
    with client.open_ioctx(pool) as data:
        data.set_osdmap_full_try()
        data.set_namespace(ioctx.get_namespace())
        try:
            data.remove_object(f"{image.block_name_prefix()}.vdsm-cinder")
        except rados.ObjectNotFound:
            pass
        except (rados.PermissionError, rados.PermissionDeniedError) as e:
            raise Refused("denied_data", pool) from e


def _packed(text: str) -> bytes:
    """As Ceph's encoding has a string."""
    value = text.encode()
    return struct.pack("<I", len(value)) + value


def _luks_header(image: rbd.Image) -> int:
    """The bytes that LUKS 1 keeps for itself in front of the data; 0 in an image that has none."""
    head = image.read(0, min(image.size(), _PAYLOAD_OFFSET + 4))
    if len(head) < _PAYLOAD_OFFSET + 4 or not head.startswith(_LUKS_1):
        return 0
    (sectors,) = struct.unpack_from(">I", head, _PAYLOAD_OFFSET)
    return int(sectors) * 512


def _set_snapshot(image: rbd.Image, snapshot: str) -> None:
    try:
        image.set_snap(snapshot)
    except rbd.ImageNotFound as e:
        raise Refused("no_snapshot", str(e)) from e


def _lock(ioctx: rados.Ioctx, header: str, claim: Mapping[str, Any]) -> None:
    about = f"vdsm-cinder:{claim['owner']};"
    try:
        ioctx.lock_exclusive(header, CLAIM, claim["cookie"], about, claim["duration_s"], RENEWABLE)
    except rados.ObjectBusy as e:
        raise Refused("claimed", _claimant(ioctx, header)) from e
    except (rados.PermissionError, rados.PermissionDeniedError) as e:
        raise Refused("denied_write", str(e)) from e


def _claimant(ioctx: rados.Ioctx, header: str) -> str:
    """Who holds our lock, out of cls_lock's reply, where his words stand between bytes."""
    name = CLAIM.encode()
    asked = struct.pack("<BBII", 1, 1, 4 + len(name), len(name)) + name
    _, reply = ioctx.execute(header, "lock", "get_info", asked)
    owner = _OWNER.search(reply)
    return owner[1].decode(errors="replace") if owner else ""


def _locks(image: rbd.Image) -> list[dict[str, str]]:
    """Who has locked the image: librbd, whose cookies begin with "auto", or a person."""
    found = image.list_lockers()
    if not found:
        return []
    return [
        {"client": client, "cookie": cookie, "address": address(where)}
        for client, cookie, where in found["lockers"]
    ]


def _is_primary(image: rbd.Image, features: int) -> bool:
    if not features & _MIRRORED:
        return True
    try:
        info = image.mirror_image_get_info()
    except rbd.Error:
        return True
    return bool(info["primary"]) or info["state"] != rbd.RBD_MIRROR_IMAGE_ENABLED


def header_of(image: rbd.Image) -> str:
    """The object that all who open the image watch."""
    return f"{image.get_name()}.rbd" if image.old_format() else f"rbd_header.{image.id()}"


def known_features() -> int:
    """The bits of image features that this librbd knows."""
    named = (value for name, value in vars(rbd).items() if name.startswith("RBD_FEATURE_"))
    known = _FEATURES
    for bit in named:
        known |= bit
    return known


def address(text: str) -> str:
    """The host of Ceph's "10.0.0.1:0/123" or "v1:[fd00::1]:0/123"."""
    host = text.rpartition("/")[0].rpartition(":")[0] or text
    return re.sub(r"^(v\d|any):", "", host).strip("[]")


class Vitals:
    """How the cluster is."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def connect(self) -> None:
        """Whether it can be reached at all."""
        self._cluster.monitors_answer()

    def vitals(self, pools: Sequence[str]) -> dict[str, Any]:
        """Its monitors, health, room, and how long it took to answer, in seconds."""
        self._cluster.connected()
        began = time.monotonic()
        quorum = self._cluster.mon("quorum_status")
        answered_s = time.monotonic() - began
        room = self._cluster.mon("df")
        scarce = self._cluster.scarce_pools()
        return {
            "fsid": quorum["monmap"]["fsid"],
            "answered_s": answered_s,
            "monitors": [
                {
                    "name": mon["name"],
                    "addresses": _addresses(mon),
                    "in_quorum": mon["name"] in quorum["quorum_names"],
                }
                for mon in quorum["monmap"]["mons"]
            ],
            "may_blocklist": self._cluster.may_blocklist(_LACKS_S),
            "health": _health(self._cluster.mon("health", detail="detail")),
            "total_bytes": room["stats"]["total_bytes"],
            "available_bytes": room["stats"]["total_avail_bytes"],
            "pools": {
                pool["name"]: {
                    "used_bytes": pool["stats"]["bytes_used"],
                    "available_bytes": pool["stats"]["max_avail"],
                    "used_ratio": pool["stats"]["percent_used"],
                    "room": scarce.get(pool["name"]),
                }
                for pool in room["pools"]
                if pool["name"] in pools
            },
        }


def _addresses(mon: Mapping[str, Any]) -> list[str]:
    return [entry["addr"] for entry in mon.get("public_addrs", {}).get("addrvec", [])]


def _health(found: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "status": found["status"],
        "checks": {
            code: {
                "severity": check["severity"],
                "summary": check["summary"]["message"],
                # A cluster in trouble has a line for each of its thousands of placement groups.
                "detail": [line["message"] for line in check.get("detail", ())[:20]],
            }
            for code, check in found["checks"].items()
        },
    }


# librbd's and librados' classes; subclasses of the general error come first.
_KINDS: Sequence[tuple[tuple[int, ...], str]] = (
    ((1, 13), "denied"),
    ((110,), "slow"),
    ((108,), "blocklisted"),
    ((38, 95), "features"),
)


def guarded(func: Any, args: Mapping[str, Any]) -> dict[str, Any]:
    """What func gives, or {error: {kind, text}}."""
    try:
        return {"result": func(**args)}
    except Refused as e:
        return {"error": {"kind": e.kind, "text": e.text}}
    except (rados.Error, rbd.Error) as e:
        errno = abs(getattr(e, "errno", None) or 0)
        kind = next((kind for numbers, kind in _KINDS if errno in numbers), "other")
        return {"error": {"kind": kind, "text": str(e)}}
    except Exception as e:
        return {"error": {"kind": "other", "text": repr(e)}}


def main() -> None:
    """Serve requests, several at a time, until stdin ends."""
    # The key must not reach a disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # librados writes to stdout when it cannot look a name up.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    cluster = Cluster(json.loads(sys.stdin.readline()))
    images, vitals = Images(cluster), Vitals(cluster)
    operations = {
        "inspect": images.inspect,
        "renew": images.renew,
        "release": images.release,
        "mark": images.mark,
        "unmark": images.unmark,
        "marked": images.marked,
        "connect": vitals.connect,
        "vitals": vitals.vitals,
    }
    writing = threading.Lock()

    def serve(request: Mapping[str, Any]) -> None:
        reply = guarded(operations[request["op"]], request["args"])
        with writing:
            print(json.dumps({"id": request["id"], **reply}), file=answers, flush=True)

    requests = ThreadPoolExecutor(THREADS, thread_name_prefix="request")
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        requests.submit(serve, json.loads(line))
    # librados may be in the middle of something that never ends.
    os._exit(0)


if __name__ == "__main__":
    main()
