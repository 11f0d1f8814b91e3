# SPDX-License-Identifier: GPL-2.0-or-later
"""The process that asks librbd for an image's size: JSON on stdin, JSON on stdout.

ceph/image_size.py starts it for one question and kills it when it takes too long.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import rados
import rbd


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """{size}, or {error} with missing where the pool or the image does not exist."""
    options = {"mon_host": request["mon_host"], "key": request["key"]}
    # librados reads the host's own ceph.conf for an empty name, and none for None.
    own_conf = None if request["mon_host"] else ""
    try:
        cluster = rados.Rados(
            rados_id=request["user"],
            conffile=request["conf_file"] or own_conf,
            conf={name: value for name, value in options.items() if value},
        )
        if request["user"] is None:
            cluster.conf_set("auth_client_required", "none")
        with cluster:
            return {"size": _size(cluster, request["path"])}
    except (rados.ObjectNotFound, rbd.ImageNotFound) as e:
        return {"missing": True, "error": str(e)}
    except (rados.Error, rbd.Error) as e:
        return {"error": str(e)}


def _size(cluster: rados.Rados, path: str) -> int:
    pool, *namespace, image = path.split("/")
    with cluster.open_ioctx(pool) as ioctx:
        ioctx.set_namespace("".join(namespace))
        with rbd.Image(ioctx, image, read_only=True) as opened:
            return int(opened.size())


if __name__ == "__main__":
    json.dump(answer(json.load(sys.stdin)), sys.stdout)
