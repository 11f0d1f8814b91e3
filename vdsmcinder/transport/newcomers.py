# SPDX-License-Identifier: GPL-2.0-or-later
"""Clients that have not shown yet who they are: how many there may be, and who comes too often.

Whoever reaches the port can be one. An address that sends many takes the place of its own, and the
log has one line of it in a minute.
"""

from __future__ import annotations

import asyncio
import ipaddress
import logging
import time
from collections import OrderedDict
from logging import WARNING
from typing import Callable

log = logging.getLogger(__name__)

# Clients that may be in their handshake or silent: each takes some 100 KB.
MOST = 1000
MOST_OF_ADDRESS = 500
# Clients of one address that may fail one after the other, and how many more in each second.
FAILURES = 300
FAILURES_PER_S = 10.0
# An address gets one line in the log in so many seconds.
QUIET_S = 60.0
# Addresses that are remembered; the one that was heard of longest ago is forgotten first.
MOST_ADDRESSES = 4096


class _Address:
    """What is known of one address. may_fail: clients of it that may fail from now on.

    untold: refusals since its last line in the log, of which last is the latest one's reason.
    """

    def __init__(self, now_s: float) -> None:
        self.greeted: dict[asyncio.Task[None], None] = {}  # in the order in which they came
        self.may_fail = float(FAILURES)
        self.reckoned_s = now_s
        self.told_s = -QUIET_S
        self.untold = 0
        self.last = ""

    def reckon(self, now_s: float) -> None:
        passed_s = now_s - self.reckoned_s
        self.may_fail = min(self.may_fail + passed_s * FAILURES_PER_S, float(FAILURES))
        self.reckoned_s = now_s

    @property
    def forgettable(self) -> bool:
        return not self.greeted and not self.untold and self.may_fail == FAILURES


class Newcomers:
    """Those that are being greeted. turned_away: how many were refused, or gave up.

    Addresses are those of hosts, as text; those of unix sockets are None and have no limit but that
    of all together. now_s: the monotonic clock.
    """

    def __init__(self, now_s: Callable[[], float] = time.monotonic) -> None:
        self.turned_away = 0
        self._now_s = now_s
        self._of: OrderedDict[str | None, _Address] = OrderedDict()
        self._count = 0
        self._next_look: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to tell of what was not told of."""
        loop = asyncio.get_running_loop()
        self._next_look = loop.call_later(QUIET_S, self._look_again)

    def close(self) -> None:
        """Tell of what was not told of, and no more."""
        if self._next_look is not None:
            self._next_look.cancel()
        for address, known in self._of.items():
            self._tell_untold(address, known)

    def let_in(self, host: str | None) -> bool:
        """Whether a client of that host is to be greeted; it is told of if not."""
        address = _network(host)
        known = self._known(address)
        known.reckon(self._now_s())
        if address is None or known.may_fail >= 1:
            return True
        self._refused(address, known, "too many clients of this address have failed lately")
        return False

    def greets(self, task: asyncio.Task[None], host: str | None) -> None:
        """A client is being greeted by a task; if they are too many, that of another is ended."""
        address = _network(host)
        known = self._known(address)
        known.greeted[task] = None
        self._count += 1
        if len(known.greeted) > MOST_OF_ADDRESS:
            self._end_oldest(address, known)
        elif self._count > MOST:
            self._end_oldest(*max(self._of.items(), key=lambda item: len(item[1].greeted)))

    def greeted(self, task: asyncio.Task[None], host: str | None) -> None:
        """A client's greeting is over."""
        self._leave(self._known(_network(host)), task)

    def failed(
        self, host: str | None, name: str, why: str, *, counts: bool = True, level: int = WARNING
    ) -> None:
        """A client was refused. name: its address and port. counts: not if it was only slow."""
        address = _network(host)
        known = self._known(address)
        if counts:
            known.reckon(self._now_s())
            known.may_fail = max(known.may_fail - 1, 0.0)
        self._refused(address, known, why, name, level)

    def look(self) -> None:
        """Tell of refusals whose minute is over, and forget who has been quiet."""
        for address, known in tuple(self._of.items()):
            if self._now_s() - known.told_s >= QUIET_S:
                self._tell_untold(address, known)
            known.reckon(self._now_s())
            if known.forgettable:
                del self._of[address]

    def _look_again(self) -> None:
        self.start()
        self.look()

    def _end_oldest(self, address: str | None, known: _Address) -> None:
        oldest = next(iter(known.greeted))
        self._leave(known, oldest)
        known.may_fail = max(known.may_fail - 1, 0.0)
        self._refused(
            address, known, "too many clients have not said anything yet, of which it was the first"
        )
        oldest.cancel()

    def _leave(self, known: _Address, task: asyncio.Task[None]) -> None:
        if task in known.greeted:
            del known.greeted[task]
            self._count -= 1

    def _refused(
        self,
        address: str | None,
        known: _Address,
        why: str,
        name: str = "",
        level: int = WARNING,
    ) -> None:
        self.turned_away += 1
        if self._now_s() - known.told_s < QUIET_S:
            known.untold += 1
            known.last = why
            return
        self._tell_untold(address, known)
        known.told_s = self._now_s()
        log.log(level, "client %s refused: %s", name or address or "on the unix socket", why)

    def _tell_untold(self, address: str | None, known: _Address) -> None:
        if known.untold:
            log.warning(
                "%d more clients at %s were refused; the last one: %s",
                known.untold,
                address or "the unix socket",
                known.last,
            )
            known.told_s = self._now_s()
        known.untold = 0

    def _known(self, address: str | None) -> _Address:
        known = self._of.get(address)
        if known is None:
            known = self._of[address] = _Address(self._now_s())
            if len(self._of) > MOST_ADDRESSES:
                self._forget_one()
        self._of.move_to_end(address)
        return known

    def _forget_one(self) -> None:
        for address, known in self._of.items():
            if not known.greeted:
                self._tell_untold(address, known)
                del self._of[address]
                return


def _network(host: str | None) -> str | None:
    """Whose an address is: a host has as many of IPv6 as it likes, within its network."""
    if host is None or ":" not in host:
        return host
    plain = ipaddress.IPv6Address(host.partition("%")[0])
    if plain.ipv4_mapped is not None:
        return str(plain.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(plain) >> 64 << 64, 64)))
