# SPDX-License-Identifier: GPL-2.0-or-later
"""A client of Cinder's API: what an engine does with volumes, and waits for.

Verbs and fields are those of the Block Storage API v3
(https://docs.openstack.org/api-ref/block-storage/v3/).
"""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any

from lab.base import LabError, wait_until
from lab.cinder.server import BACKEND, PROJECT

# The first version in which a volume in use can be extended, and snapshots need no force.
VERSION = "3.66"
TIMEOUT_S = 60


class Volumes:
    """Volumes and snapshots of one Cinder; each call returns when what it began has happened.

    host: the hypervisor to which connections are made.
    """

    def __init__(self, url: str, host: str) -> None:
        self._url = url
        self._host = host

    # Kinds of volumes

    def create_type(self, name: str, limits: Mapping[str, str] | None = None) -> None:
        """Make a volume type; limits are front-end QoS specs, for a hypervisor to enforce."""
        extra = {"volume_backend_name": "ceph"}
        made = self._call("POST", "/types", volume_type={"name": name, "extra_specs": extra})
        if limits:
            specs = {"name": name, "consumer": "front-end", **limits}
            qos = self._call("POST", "/qos-specs", qos_specs=specs)["qos_specs"]["id"]
            kind = made["volume_type"]["id"]
            self._call("GET", f"/qos-specs/{qos}/associate?vol_type_id={kind}")

    # Volumes

    def create(self, size_gib: int, **fields: Any) -> str:
        """Make a volume, with fields such as volume_type and snapshot_id; its id."""
        made = self._call("POST", "/volumes", volume={"size": size_gib, **fields})
        return self._wait_volume(made["volume"]["id"], "available")

    def manage(self, image: str) -> str:
        """Take over an image of the pool as a volume; its id."""
        volume = {"host": BACKEND, "ref": {"source-name": image}}
        made = self._call("POST", "/os-volume-manage", volume=volume)
        return self._wait_volume(made["volume"]["id"], "available")

    def attach(self, volume: str) -> dict[str, Any]:
        """Initialize a connection and mark the volume as in use; Cinder's answer, as it came."""
        self._act(volume, "os-reserve")
        answer = self._act(volume, "os-initialize_connection", connector=self._connector)
        self._act(volume, "os-attach", host_name=self._host, mountpoint="/dev/vda", mode="rw")
        self._wait_volume(volume, "in-use")
        assert answer is not None
        return answer

    def detach(self, volume: str) -> None:
        """Terminate the connection and mark the volume as available."""
        self._act(volume, "os-terminate_connection", connector=self._connector)
        self._act(volume, "os-detach")
        self._wait_volume(volume, "available")

    def attachment(self, volume: str) -> tuple[Any, Any, Any]:
        """Attach a volume by the attachments API; what POST, PUT and GET of it answer, as it came.

        POST makes it for no host yet, PUT for this one. No instance is named: before it deletes an
        attachment of one, Cinder asks Nova, which there is none of.
        """
        made = self._call("POST", "/attachments", attachment={"volume_uuid": volume})
        path = f"/attachments/{made['attachment']['id']}"
        updated = self._call("PUT", path, attachment={"connector": self._connector})
        self._call("POST", f"{path}/action", **{"os-complete": None})
        self._wait_volume(volume, "in-use")
        return made, updated, self._call("GET", path)

    def delete_attachment(self, volume: str, answer: Mapping[str, Any]) -> None:
        """Delete the attachment that Cinder answered about, and with it the connection."""
        self._call("DELETE", f"/attachments/{answer['attachment']['id']}")
        self._wait_volume(volume, "available")

    def extend(self, volume: str, size_gib: int) -> None:
        """Make a volume in use larger."""
        self._act(volume, "os-extend", new_size=size_gib)
        wait_until(
            lambda: (
                self._volume(volume)["size"] == size_gib
                and self._volume(volume)["status"] == "in-use"
            ),
            f"volume {volume} to have {size_gib} GiB",
            TIMEOUT_S,
        )

    def delete(self, volume: str) -> None:
        """Delete a volume."""
        self._call("DELETE", f"/volumes/{volume}")
        self._wait_gone("volumes", volume)

    # Snapshots

    def snapshot(self, volume: str) -> str:
        """Make a snapshot of a volume, in use or not; its id."""
        made = self._call("POST", "/snapshots", snapshot={"volume_id": volume})["snapshot"]["id"]

        def available() -> bool:
            return self._status(self._call("GET", f"/snapshots/{made}")["snapshot"]) == "available"

        wait_until(available, f"snapshot {made} to be available", TIMEOUT_S)
        return str(made)

    def delete_snapshot(self, snapshot: str) -> None:
        """Delete a snapshot that no volume depends on."""
        self._call("DELETE", f"/snapshots/{snapshot}")
        self._wait_gone("snapshots", snapshot)

    # What there is

    def ids(self) -> dict[str, list[str]]:
        """The ids of all volumes and snapshots."""
        return {
            kind: [thing["id"] for thing in self._call("GET", f"/{kind}")[kind]]
            for kind in ("volumes", "snapshots")
        }

    @property
    def _connector(self) -> dict[str, Any]:
        return {"host": self._host, "os_type": "linux", "platform": "x86_64", "multipath": False}

    def _volume(self, volume: str) -> Any:
        return self._call("GET", f"/volumes/{volume}")["volume"]

    def _wait_volume(self, volume: str, status: str) -> str:
        wait_until(
            lambda: self._status(self._volume(volume)) == status,
            f"volume {volume} to be {status}",
            TIMEOUT_S,
        )
        return volume

    @staticmethod
    def _status(thing: Mapping[str, Any]) -> str:
        if thing["status"].startswith("error"):
            raise LabError(f"Cinder says of {thing['id']}: {thing['status']}; see log/cinder.log")
        return str(thing["status"])

    def _wait_gone(self, kind: str, thing: str) -> None:
        wait_until(lambda: thing not in self.ids()[kind], f"{thing} to be deleted", TIMEOUT_S)

    def _act(self, volume: str, action: str, **fields: Any) -> dict[str, Any] | None:
        answer = self._call("POST", f"/volumes/{volume}/action", **{action: fields})
        return answer if isinstance(answer, dict) else None

    def _call(self, method: str, path: str, **body: Any) -> Any:
        request = urllib.request.Request(
            f"{self._url}{path}",
            method=method,
            data=json.dumps(body).encode() if body else None,
            headers={
                "X-Auth-Token": f"lab:{PROJECT}",
                "Content-Type": "application/json",
                "OpenStack-API-Version": f"volume {VERSION}",
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
                content = answer.read()
        except urllib.error.HTTPError as e:
            said = e.read().decode(errors="replace")[:300]
            raise LabError(f"Cinder refused {method} {path} with {e.code}: {said}") from None
        return json.loads(content) if content else None
