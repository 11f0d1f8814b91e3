# SPDX-License-Identifier: GPL-2.0-or-later
"""One line for each event, in words that a person watching a host reads.

The events are those of contract/wire.md.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from vdsmcinder.client.tables import printable
from vdsmcinder.client.vms import SHORT_ID

NAMELESS = "(gone)"
CERTIFICATE = "|host|certificate_expires|"


class Narrator:
    """Tells events; remembers the VMs' names, and the statuses that they had before.

    fetch_names: asks the daemon for the names of its VMs by id; called when an unknown VM appears.
    """

    def __init__(self, fetch_names: Callable[[], Mapping[str, str]]) -> None:
        self._fetch_names = fetch_names
        self._names = dict(fetch_names())
        self._statuses: dict[str, str] = {}

    def line(self, event: Mapping[str, Any]) -> str:
        """The event as one line, with the time at which it is told."""
        return f"{time.strftime('%H:%M:%S')}  {printable(self._told(event))}"

    def _told(self, event: Mapping[str, Any]) -> str:
        params = event.get("params", {})
        name = str(event.get("method", ""))
        if name.startswith(CERTIFICATE):
            (told,) = (value for key, value in params.items() if key != "notify_time")
            return str(told.get("message"))
        topic, _, vm_id = name.strip("|").removeprefix("virt|").partition("|")
        details = params.get(vm_id)
        if not isinstance(details, Mapping):
            return f"{topic} {vm_id}".rstrip()
        if topic == "VM_status" and "status" in details:
            return f"{self._who(vm_id)}  {self._status(vm_id, details)}"
        if topic == "VM_migration_status":
            copied = " (post-copy)" if details.get("postcopy") else ""
            return f"{self._who(vm_id)}  migration {details.get('progress')} %{copied}"
        return f"{self._who(vm_id)}  {topic}"

    def _who(self, vm_id: str) -> str:
        if vm_id not in self._names:
            self._names = {vm_id: "", **self._fetch_names()}
        return f"{vm_id[:SHORT_ID]}  {self._names[vm_id] or NAMELESS}"

    def _status(self, vm_id: str, details: Mapping[str, Any]) -> str:
        status = str(details["status"])
        before = self._statuses.get(vm_id)
        self._statuses[vm_id] = status
        if before == status:
            return f"{status}: its devices changed"
        reason = details.get("exitMessage") or details.get("pauseCode")
        told = status if before is None else f"{before} -> {status}"
        return f"{told}: {reason}" if reason and reason != "NOERR" else told
