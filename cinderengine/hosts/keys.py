# SPDX-License-Identifier: GPL-2.0-or-later
"""The keys that a host must have, against those that it has: what it is given, what is taken back.

Keys that somebody registered on a host by hand are left alone: the engine's own are told by their
usage id. No value is in any error or text.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cinderengine.model.secret import Secret
from vdsmcinder.errors import RemoteError

# Hosts list secrets whose usage id begins with ovirt/; the rest says whose they are.
OURS = "ovirt/cinder-engine/"
# The host's codes for "later": libvirt is not there, its VMs are being read, too much goes on.
LATER = frozenset({40, 99, 1100})

# Calls a verb of the host: its name and its parameters; raises RemoteError.
Call = Callable[[str, Mapping[str, Any]], Awaitable[Any]]


@dataclass(frozen=True)
class HostKey:
    """A key that a host must have. revision: of its value; a host has that or has it not."""

    uuid: str
    value: Secret
    usage_type: str = "ceph"
    revision: int = 1


@dataclass(frozen=True)
class Difference:
    """What is to be done so that a host has what it must. register: in full; unregister: uuids."""

    register: Sequence[HostKey] = ()
    unregister: Sequence[str] = ()

    def __bool__(self) -> bool:
        return bool(self.register or self.unregister)


def difference(wanted: Iterable[HostKey], has: Mapping[str, int | None]) -> Difference:
    """What is missing and what is too much, each by uuid.

    has: our keys on the host, with their revisions; None where that is not known.
    """
    keys = {key.uuid: key for key in wanted}
    missing = [key for uuid, key in sorted(keys.items()) if has.get(uuid) != key.revision]
    return Difference(missing, sorted(has.keys() - keys.keys()))


class Delivery:
    """What a host has of our keys, as far as is known, and how it gets the others.

    refused: a sentence for each key that the host did not take, by uuid.
    """

    def __init__(self, host: str) -> None:
        """host: its name, for sentences."""
        self._host = host
        self._given: dict[str, int] = {}
        self.refused: dict[str, str] = {}

    def forget(self) -> None:
        """Nothing is known any more: the host was away, and the values there may be others."""
        self._given.clear()

    async def deliver(self, wanted: Sequence[HostKey], call: Call) -> str:
        """Do all that is to be done; a sentence for what could not be, empty if it has all.

        One key that the host refuses keeps no other from it. Raises what call does, of RemoteError
        only those that mean "later".
        """
        needed = difference(wanted, self._known(await call("Host.getSecrets", {})))
        self.refused = {}
        if needed.register:
            await self._register(needed.register, call)
        if needed.unregister:
            await self._unregister(needed.unregister, call)
        return "; ".join(self.refused[uuid] for uuid in sorted(self.refused))

    def _known(self, listed: Sequence[Mapping[str, Any]]) -> dict[str, int | None]:
        """Ours of those that the host lists."""
        ours = [str(one["uuid"]) for one in listed if str(one["usageID"]).startswith(OURS)]
        return {uuid: self._given.get(uuid) for uuid in ours}

    async def _register(self, keys: Sequence[HostKey], call: Call) -> None:
        try:
            await call("Host.registerSecrets", {"secrets": [_as_sent(key) for key in keys]})
        except RemoteError as e:
            if e.code in LATER:
                raise
            if len(keys) > 1:
                # The host looks at the whole list before it takes one, and stops at the first.
                for key in keys:
                    await self._register([key], call)
                return
            (key,) = keys
            # Hosts of ours never repeat a value; of others it is not known.
            why = e.message.replace(key.value.reveal(), "***")
            self.refused[key.uuid] = (
                f"host {self._host} did not take authentication key {key.uuid}: {why}"
            )
            return
        self._given.update({key.uuid: key.revision for key in keys})

    async def _unregister(self, uuids: Sequence[str], call: Call) -> None:
        try:
            await call("Host.unregisterSecrets", {"uuids": list(uuids)})
        except RemoteError as e:
            if e.code in LATER:
                raise
            for uuid in uuids:
                self.refused[uuid] = (
                    f"host {self._host} did not give up authentication key {uuid}: {e.message}"
                )
            return
        for uuid in uuids:
            self._given.pop(uuid, None)


def _as_sent(key: HostKey) -> dict[str, str]:
    return {
        "uuid": key.uuid,
        "usageType": key.usage_type,
        "usageID": f"{OURS}{key.uuid}",
        "password": key.value.reveal(),
    }
