# SPDX-License-Identifier: GPL-2.0-or-later
"""The process that works on one Ceph pool as one user, with librados and librbd.

Run by its path as a process of its own, and killed when it overruns: a cluster that is gone can
hold librados for minutes. It imports nothing of the engine's, so it is small and starts at once.

Lines of JSON come in on stdin, the first {mon_host, pool, user, key, timeout_s}, each other one a
request {id, op, args}; lines of JSON {id, result} or {id, error: {kind, text}} go out on stdout.
The end of stdin is its end. An image that is told of is {name, size, watchers, metadata}.
"""

from __future__ import annotations

import base64
import binascii
import errno
import json
import os
import re
import resource
import struct
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import rados
import rbd

THREADS = 16
FEATURES = (
    rbd.RBD_FEATURE_LAYERING
    | rbd.RBD_FEATURE_EXCLUSIVE_LOCK
    | rbd.RBD_FEATURE_OBJECT_MAP
    | rbd.RBD_FEATURE_FAST_DIFF
    | rbd.RBD_FEATURE_DEEP_FLATTEN
)
# Our metadata of images begin so.
OURS = "cinder-engine."
# So many of them are read at most, and so many bytes of them all.
_MOST_METADATA = 16
_LONGEST_METADATA = 1 << 18
# No object has this name: to remove it needs the right to write, and changes nothing.
_NO_OBJECT = "cinder-engine.may-write"
# What connecting fails with, by errno. Of an unknown user and a wrong key Ceph says the same.
_CONNECTING = {
    errno.EPERM: "key",
    errno.EACCES: "key",
    errno.EOPNOTSUPP: "key",
    # The key has been looked at by then: it is the names.
    errno.EINVAL: "no_monitors",
    errno.ENOENT: "no_monitors",
    errno.ETIMEDOUT: "silent",
}
# Of librados and librbd, by errno.
_KINDS = {
    errno.EPERM: "denied",
    errno.EACCES: "denied",
    errno.ETIMEDOUT: "slow",
    errno.ESHUTDOWN: "blocklisted",
    errno.ENOSPC: "full",
    errno.EDQUOT: "full",
    errno.EBUSY: "busy",
    errno.ENOTEMPTY: "snapshots",
    errno.ENOENT: "no_image",
}


class Refused(Exception):
    """Something that was asked for cannot be had. kind: one of rbd_faults.py's."""

    def __init__(self, kind: str, text: str = "") -> None:
        super().__init__(text)
        self.kind = kind
        self.text = text


class Pool:
    """The pool, by a connection that is made when it is first needed."""

    def __init__(self, access: Mapping[str, Any]) -> None:
        self._access = access
        self._name = str(access["pool"])
        self._lock = threading.Lock()
        self._cluster: rados.Rados | None = None
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="image")

    # What can be asked

    def check(self) -> None:
        """Whether images can be made here."""
        with self._pool() as ioctx:
            try:
                ioctx.remove_object(_NO_OBJECT)
            except rados.ObjectNotFound:
                pass
            except (rados.PermissionError, rados.PermissionDeniedError) as e:
                raise Refused("denied", str(e)) from e

    def room(self) -> dict[str, int]:
        """Bytes that are stored, and that may be stored yet."""
        with self._pool():
            pools = self._mon("df")["pools"]
        stats = next(pool["stats"] for pool in pools if pool["name"] == self._name)
        quota = self._mon("osd pool get-quota", pool=self._name)["quota_max_bytes"]
        left = int(stats["max_avail"])
        stored = int(stats["stored"])
        return {"used": stored, "available": min(left, max(0, quota - stored)) if quota else left}

    def names(self) -> list[str]:
        """The names of all images."""
        with self._pool() as ioctx:
            return list(rbd.RBD().list(ioctx))

    def describe(self, names: Sequence[str]) -> list[dict[str, Any]]:
        """These images, but for those that are gone."""
        with self._pool() as ioctx:
            found = self._threads.map(lambda name: _describe(ioctx, name), names)
            return [image for image in found if image is not None]

    def create(self, name: str, size: int, metadata: Mapping[str, str]) -> dict[str, Any] | None:
        """The image of this name, made unless it is there, with metadata of ours."""
        with self._pool() as ioctx:
            image = _describe(ioctx, name)
            if image is None:
                self._needs_room()
                _make(ioctx, name, size)
            missing = {
                k: v for k, v in metadata.items() if k not in (image or {}).get("metadata", ())
            }
            _mark(ioctx, name, missing)
            return _describe(ioctx, name)

    def mark(self, name: str, metadata: Mapping[str, str]) -> None:
        """Give an image metadata."""
        with self._pool() as ioctx:
            _mark(ioctx, name, metadata)

    def extend(self, name: str, size: int) -> None:
        """Make an image that large, unless it is."""
        with self._pool() as ioctx:
            with rbd.Image(ioctx, name, read_only=True) as image:
                if image.size() >= size:
                    return
            self._needs_room()
            # Whoever has the image open, and its lock, does it for us.
            with rbd.Image(ioctx, name) as image:
                image.resize(size)

    def remove(self, name: str) -> None:
        """Remove an image; one that is gone is none."""
        with self._pool() as ioctx:
            image = _describe(ioctx, name)
            if image is not None and image["watchers"]:
                raise Refused("busy", ", ".join(image["watchers"]))
            try:
                # What a removal that was broken off has left, it removes as well.
                rbd.RBD().remove(ioctx, name)
            except rbd.ImageNotFound:
                pass
            except rbd.ImageHasSnapshots as e:
                raise Refused("snapshots", str(e)) from e

    # How it is done

    @contextmanager
    def _pool(self) -> Iterator[rados.Ioctx]:
        try:
            ioctx = self._connected().open_ioctx(self._name)
        except rados.ObjectNotFound as e:
            raise Refused("no_pool", str(e)) from e
        with ioctx:
            # Removing needs no room; librados would have it wait for some.
            ioctx.set_osdmap_full_try()
            yield ioctx

    def _connected(self) -> rados.Rados:
        with self._lock:
            if self._cluster is None:
                self._cluster = self._connect()
            return self._cluster

    def _connect(self) -> rados.Rados:
        if not is_key(self._access["key"]):
            raise Refused("no_key")
        # librados takes whole seconds.
        timeout_s = str(max(1, int(self._access["timeout_s"])))
        try:
            cluster = rados.Rados(
                rados_id=self._access["user"],
                conf={
                    # librados logs keys that it cannot read.
                    "log_file": "",
                    "log_to_stderr": "false",
                    "err_to_stderr": "false",
                    "mon_host": self._access["mon_host"],
                    "key": self._access["key"],
                    # The key above counts, not a keyring of this machine's.
                    "keyring": "/dev/null",
                    "auth_client_required": "cephx",
                    "client_mount_timeout": timeout_s,
                    # All at once: one that is silent must not use the time up.
                    "mon_client_hunt_parallel": "16",
                    "rados_mon_op_timeout": timeout_s,
                    "rados_osd_op_timeout": timeout_s,
                },
            )
        except rados.Error as e:
            raise Refused(_CONNECTING.get(abs(e.errno or 0), "other"), str(e)) from e
        try:
            cluster.connect()
        except rados.Error as e:
            cluster.shutdown()
            raise Refused(_CONNECTING.get(abs(e.errno or 0), "other"), str(e)) from e
        return cluster

    def _mon(self, prefix: str, **words: str) -> Any:
        """What the monitors answer to a command."""
        command = json.dumps({"prefix": prefix, "format": "json", **words})
        code, out, said = self._connected().mon_command(command, b"")
        if code:
            kind = "silent" if -code == errno.ETIMEDOUT else "denied"
            raise Refused(kind, said or os.strerror(-code))
        return json.loads(out)

    def _needs_room(self) -> None:
        """Raise if the pool is full: OSDs would let us wait."""
        for pool in self._mon("osd pool ls", detail="detail"):
            if pool["pool_name"] == self._name:
                flags = pool["flags_names"].split(",")
                if "full_quota" in flags or "full" in flags:
                    raise Refused(
                        "full", "has reached its quota" if "full_quota" in flags else "is full"
                    )


def is_key(text: str) -> bool:
    """Whether this is a CEPHX key as Ceph prints it: base64 of a type, the time of its making, a
    length, and itself.
    """
    try:
        value = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return len(value) > 12 and struct.unpack_from("<HIIH", value)[3] == len(value) - 12


def _describe(ioctx: rados.Ioctx, name: str) -> dict[str, Any] | None:
    """An image; None for one that is gone. For reading only: that makes no watcher."""
    try:
        with rbd.Image(ioctx, name, read_only=True) as image:
            return {
                "name": name,
                "size": image.size(),
                "watchers": [_host(watcher["addr"]) for watcher in image.watchers_list()],
                "metadata": _metadata(ioctx, image),
            }
    except rbd.ImageNotFound:
        return None


def _make(ioctx: rados.Ioctx, name: str, size: int) -> None:
    """Make an image, also where one that was broken off has left its name."""

    def make() -> None:
        rbd.RBD().create(ioctx, name, size, old_format=False, features=FEATURES)

    try:
        make()
    except rbd.ImageExists:
        if _describe(ioctx, name) is not None:
            return
        rbd.RBD().remove(ioctx, name)
        make()


def _mark(ioctx: rados.Ioctx, name: str, metadata: Mapping[str, str]) -> None:
    """Metadata by their class in the OSD, for librbd asks who writes to the image."""
    if not metadata:
        return
    packed = b"".join(_packed(key) + _packed(value) for key, value in metadata.items())
    with rbd.Image(ioctx, name, read_only=True) as image:
        header = _header(image)
    asked = struct.pack("<I", len(metadata)) + packed
    ioctx.execute(header, "rbd", "metadata_set", asked)


def _metadata(ioctx: rados.Ioctx, image: rbd.Image) -> dict[str, str]:
    """Our metadata of an image.

    By their class, too: librbd's own list drops empty values, and gives each key after one the
    value of the next.
    """
    asked = _packed(OURS) + struct.pack("<Q", _MOST_METADATA)
    _, told = ioctx.execute(_header(image), "rbd", "metadata_list", asked, _LONGEST_METADATA)
    return {k: v for k, v in _unpacked(told) if k.startswith(OURS)}


def _header(image: rbd.Image) -> str:
    """The object that has an image's metadata; images of the first format have none."""
    return f"{image.get_name()}.rbd" if image.old_format() else f"rbd_header.{image.id()}"


def _unpacked(told: bytes) -> Iterator[tuple[str, str]]:
    """The strings of an encoded map."""
    (count,) = struct.unpack_from("<I", told)
    at = 4
    for _ in range(count):
        pair = []
        for _ in range(2):
            (length,) = struct.unpack_from("<I", told, at)
            pair.append(told[at + 4 : at + 4 + length].decode(errors="replace"))
            at += 4 + length
        yield pair[0], pair[1]


def _packed(text: str) -> bytes:
    """As Ceph's encoding has a string."""
    value = text.encode()
    return struct.pack("<I", len(value)) + value


def _host(text: str) -> str:
    """The host of Ceph's "10.0.0.1:0/123" or "v1:[fd00::1]:0/123"."""
    host = text.rpartition("/")[0].rpartition(":")[0] or text
    return re.sub(r"^(v\d|any):", "", host).strip("[]")


def answer(func: Any, args: Mapping[str, Any]) -> dict[str, Any]:
    """What func gives, or {error: {kind, text}}."""
    try:
        return {"result": func(**args)}
    except Refused as e:
        return {"error": {"kind": e.kind, "text": e.text}}
    except (rados.Error, rbd.Error) as e:
        number = abs(getattr(e, "errno", None) or 0)
        return {"error": {"kind": _KINDS.get(number, "other"), "text": str(e)}}
    except Exception as e:
        return {"error": {"kind": "other", "text": repr(e)}}


def main() -> None:
    """Serve requests, several at a time, until stdin ends."""
    # The key must not reach a disk.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # librados writes to stdout when it cannot look a name up.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    pool = Pool(json.loads(sys.stdin.readline()))
    operations = {
        name: getattr(pool, name)
        for name in ("check", "room", "names", "describe", "create", "mark", "extend", "remove")
    }
    writing = threading.Lock()

    def serve(request: Mapping[str, Any]) -> None:
        reply = answer(operations[request["op"]], request["args"])
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
