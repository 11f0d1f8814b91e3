# SPDX-License-Identifier: GPL-2.0-or-later
"""Certificates that end before long: told to engines by an event, to operators by the log.

Each is told when it is found out and then once a day, and to every client that subscribes
meanwhile.
"""

from __future__ import annotations

import asyncio
import logging
import time

from vdsmcinder.rpc.events import Events, Told
from vdsmcinder.tasks import Tasks
from vdsmcinder.transport.certificates import Certificates, Held, Owner

log = logging.getLogger(__name__)

DAY_S = 86400.0
# How often it is looked whether there is something to tell, in seconds.
LOOK_S = 10.0
REMEDIES = {
    Owner.HOST: "renew it with vdsm-cinder pki renew, or have the engine do it",
    Owner.CA: "renew it with vdsm-cinder pki renew --with-ca, or have the engine do it, and bring "
    "it to all clients",
    Owner.HOSTS_CA: "renew it with vdsm-cinder pki hosts --force --install where its key is, and "
    "bring it to all hosts",
}


class Expiry:
    """Tells of certificates in force that end within so many days.

    certificates: all that are in force; None without TLS, and before start().
    """

    def __init__(self, events: Events, within_days: float, tasks: Tasks) -> None:
        self._events = events
        self._within_s = within_days * DAY_S
        self._told: dict[Held, float] = {}  # when last, by the monotonic clock
        self.certificates: Certificates | None = None
        self._tasks = tasks

    def start(self, certificates: Certificates | None) -> None:
        """Begin to tell; without certificates there is nothing."""
        if certificates is not None:
            self.use(certificates)
            self._tasks.spawn(self._watch(), "watch")

    def use(self, certificates: Certificates) -> None:
        """Look at these from now on, and greet whoever subscribes with what is to be told."""
        self.certificates = certificates
        self._events.greet_with(self._greeting)

    async def close(self) -> None:
        """Return when nothing of it is left."""
        await self._tasks.close()

    @property
    def ending(self) -> list[Held]:
        """The certificates that end soon, or have ended."""
        if self.certificates is None:
            return []
        limit = time.time() + self._within_s
        return [held for held in self.certificates.held if held.expires_at <= limit]

    def tell(self, now_s: float) -> None:
        """Tell of those that have not been told of for a day; now_s: the monotonic clock."""
        ending = self.ending
        self._told = {held: when for held, when in self._told.items() if held in ending}
        for held in ending:
            if now_s - self._told.get(held, now_s - DAY_S) >= DAY_S:
                self._told[held] = now_s
                log.warning("%s", sentence(held))
                self._events.publish(*certificate_expires(held))

    def _greeting(self) -> list[Told]:
        return [certificate_expires(held) for held in self.ending]

    async def _watch(self) -> None:
        while True:
            self.tell(time.monotonic())
            await asyncio.sleep(LOOK_S)


def sentence(held: Held) -> str:
    """That a certificate ends, or has ended, and what to do."""
    left_s = held.expires_at - time.time()
    end = "has expired" if left_s <= 0 else f"expires in {left_s / DAY_S:.1f} days"
    return f"{held} {end}; {REMEDIES[held.owner]}"


def certificate_expires(held: Held) -> Told:
    """Name and params of the event that tells that a certificate ends soon, or has ended."""
    told = {
        "file": held.file,
        "subject": held.subject,
        "expires": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(held.expires_at)),
        "daysLeft": int((held.expires_at - time.time()) // DAY_S),
        "message": sentence(held),
    }
    return f"|host|certificate_expires|{held.owner.value}", {held.owner.value: told}
