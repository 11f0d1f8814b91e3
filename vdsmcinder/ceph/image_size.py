# SPDX-License-Identifier: GPL-2.0-or-later
"""How large an RBD image is now, as Ceph says: QEMU knows the size that it had when it was opened.

virt/resize.py asks. librbd runs in a process of its own, which is killed when it takes too long: a
cluster that is gone can hold librados for minutes.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from vdsmcinder.ceph.hosts import MonitorHost
from vdsmcinder.errors import ImageNotFound, ResourceUnavailable

_WORKER = "vdsmcinder.ceph.image_size_worker"


@dataclass(frozen=True)
class ImageAddress:
    """An image, and how to get at it.

    path: pool/image or pool/namespace/image. hosts: monitors; without any, conf_file or this host's
    ceph.conf names them. user: None where the cluster does not use CEPHX. key: of the user.
    """

    path: str
    hosts: Sequence[MonitorHost]
    conf_file: str | None = None
    user: str | None = None
    key: bytes | None = None

    def request(self) -> bytes:
        """What the worker reads: JSON, by a pipe, for it holds the key."""
        return json.dumps(
            {
                "path": self.path,
                "mon_host": ",".join(map(_monitor, self.hosts)),
                "conf_file": self.conf_file,
                "user": self.user,
                "key": None if self.key is None else base64.b64encode(self.key).decode(),
            }
        ).encode()


async def image_size(image: ImageAddress, timeout_s: float) -> int:
    """The image's size in bytes.

    Raises ImageNotFound (13); ResourceUnavailable (40) if Ceph refuses or does not answer in time.
    """
    worker = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", _WORKER),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        out, _ = await asyncio.wait_for(worker.communicate(image.request()), timeout_s)
    except asyncio.TimeoutError:
        raise ResourceUnavailable(
            f"Ceph did not tell the size of image {image.path} within {timeout_s:g} s; check the "
            "monitors and the network to them, then call again",
            image=image.path,
        ) from None
    finally:
        if worker.returncode is None:
            worker.kill()
            await worker.wait()
    return _size(image.path, out)


def _size(path: str, out: bytes) -> int:
    try:
        answer = json.loads(out)
    except ValueError:
        answer = {"error": "its worker process ended without a word"}
    if "size" in answer:
        return int(answer["size"])
    if answer.get("missing"):
        raise ImageNotFound(
            f"image {path} does not exist in its pool; check the volume in Cinder", image=path
        )
    raise ResourceUnavailable(
        f"the size of image {path} could not be read from Ceph: {answer['error']}; check the key "
        "and the user's capabilities with 'ceph auth get'",
        image=path,
    )


def _monitor(host: MonitorHost) -> str:
    name = f"[{host.name}]" if ":" in host.name else host.name
    return name if host.port is None else f"{name}:{host.port}"
