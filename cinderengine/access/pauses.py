# SPDX-License-Identifier: GPL-2.0-or-later
"""How long whoever failed to log in has to wait; no clock and no I/O.

Some failures are free. After each one more, the next login of that user, or from that address, is
not looked at for a time that doubles. A success ends it, and so does that nothing happens for long.
An address from which a user has logged in is not made to wait by the failures that others have with
that user's name: nobody can be shut out of the place where they work.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

# Failures of somebody who has been quiet for so long are forgotten.
FORGOTTEN_AFTER_S = 900.0
# So many are remembered, those that were heard of last; more would be an attack on our memory.
MOST_REMEMBERED = 20_000
# What one customer has of IPv6 addresses, at least.
IPV6_NETWORK_BITS = 64


@dataclass
class _Failures:
    count: int = 0
    last_s: float = 0.0


class Pauses:
    """Failed logins by user and by address. Times are seconds of a clock that does not go back."""

    def __init__(self, free_failures: int, longest_pause_s: float) -> None:
        self._free = free_failures
        self._longest_s = longest_pause_s
        self._failures: OrderedDict[str, _Failures] = OrderedDict()
        self._at_home: OrderedDict[str, None] = OrderedDict()

    def wait_s(self, user: str, address: str, now_s: float) -> float:
        """Seconds until a login of that user from there is looked at; 0 if it is now."""
        return max((self._left_s(key, now_s) for key in self._keys(user, address)), default=0.0)

    def failed(self, user: str, address: str, now_s: float) -> None:
        """Somebody gave a wrong password, or a user that is none."""
        for key in (_user(user), _address(address)):
            known = self._failures.setdefault(key, _Failures())
            if now_s - known.last_s > FORGOTTEN_AFTER_S:
                known.count = 0
            known.count, known.last_s = known.count + 1, now_s
            self._failures.move_to_end(key)
        _bound(self._failures)

    def succeeded(self, user: str, address: str) -> None:
        """That user logged in from there."""
        for key in self._keys(user, address):
            self._failures.pop(key, None)
        home = _home(user, address)
        self._at_home[home] = None
        self._at_home.move_to_end(home)
        _bound(self._at_home)

    def _keys(self, user: str, address: str) -> Iterator[str]:
        """Whose failures count for them."""
        yield _address(address)
        if _home(user, address) not in self._at_home:
            yield _user(user)

    def _left_s(self, key: str, now_s: float) -> float:
        known = self._failures.get(key)
        if known is None or known.count < self._free:
            return 0.0
        # Beyond some doublings a float is as large as needed.
        pause_s = min(self._longest_s, 2.0 ** min(known.count - self._free, 30))
        return max(0.0, known.last_s + pause_s - now_s)


def _user(user: str) -> str:
    return f"user {user}"


def _address(address: str) -> str:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return f"address {address}"
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return f"address {found.ipv4_mapped}"
        found_network = ipaddress.ip_network((found, IPV6_NETWORK_BITS), strict=False)
        return f"address {found_network}"
    return f"address {found}"


def _home(user: str, address: str) -> str:
    return f"{user} at {_address(address)}"


def _bound(known: OrderedDict[str, _Failures] | OrderedDict[str, None]) -> None:
    while len(known) > MOST_REMEMBERED:
        known.popitem(last=False)
