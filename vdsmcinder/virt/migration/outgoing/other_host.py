# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon of the host that a VM goes to: connected when it is needed, and told verdicts."""

from __future__ import annotations

from typing import Union

from vdsmcinder.errors import MigrationFailed, PeerUnreachable
from vdsmcinder.virt.migration.outgoing.events import Answered, Objected, Unreached
from vdsmcinder.virt.vm.migration import Dial, Peer, PeerRefused, Verdict, error_of
from vdsmcinder.virt.vm.migration_request import Address

Reply = Union[Answered, Objected, Unreached]


class OtherHost:
    """One connection at most; address: where that daemon listens."""

    def __init__(self, dial: Dial, address: Address) -> None:
        self.address = address
        self._dial = dial
        self._peer: Peer | None = None

    async def peer(self) -> Peer:
        """The daemon. Raises PeerUnreachable (10)."""
        if self._peer is None:
            self._peer = await self._dial(self.address)
        return self._peer

    async def hang_up(self) -> None:
        """Let go of the connection, to have a new one next time."""
        peer, self._peer = self._peer, None
        if peer is not None:
            await peer.close()

    async def say(self, vm_id: str, migration_id: str, verdict: Verdict) -> Reply:
        """Tell it, once, what is to become of its copy of a VM; what it answers, or why not."""
        try:
            peer = await self.peer()
            return Answered(await peer.conclude(vm_id, migration_id, verdict))
        except PeerRefused as e:
            return Objected(error_of(e, f"VM {vm_id}: host {self.address}", MigrationFailed))
        except PeerUnreachable as e:
            await self.hang_up()
            return Unreached(e)
