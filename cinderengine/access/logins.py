# SPDX-License-Identifier: GPL-2.0-or-later
"""Who is it that asks: by name and password, or by a token. The one place where that is decided.

Failures slow down whoever has them (pauses.py), and no answer says whether a user exists.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import math
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from cinderengine.access import passwords, tokens, users
from cinderengine.access.pauses import Pauses
from cinderengine.access.tokens import Lifetime
from cinderengine.errors import Unauthenticated
from cinderengine.model.ids import now_ms as clock_ms
from cinderengine.model.secret import Secret
from cinderengine.model.users import Token, User
from cinderengine.store.database import Store
from cinderengine.store.entities import users as rows

log = logging.getLogger(__name__)

# Who shows a password with every request has it looked at thoroughly once in that time.
TRUSTED_S = 300.0
MOST_TRUSTED = 1000
# A processor has other things to do than to check passwords.
CHECKED_AT_ONCE = 2
# Longer names are of nobody, and are not kept in memory.
LONGEST_NAME = 255


@dataclass(frozen=True)
class Issued:
    """A token that was made. text: what its owner shows from now on."""

    text: Secret
    token: Token


class Logins:
    """Logs users of one engine in and out.

    now_ms and monotonic_s: the clocks, for tests.
    """

    def __init__(
        self,
        store: Store,
        lifetime: Lifetime,
        pauses: Pauses,
        *,
        now_ms: Callable[[], int] = clock_ms,
        monotonic_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._lifetime = lifetime
        self._pauses = pauses
        self._now_ms = now_ms
        self._monotonic_s = monotonic_s
        self._checking = asyncio.Semaphore(CHECKED_AT_ONCE)
        self._own_key = os.urandom(32)
        self._trusted: OrderedDict[bytes, float] = OrderedDict()
        self._nobody = ""

    async def by_password(self, principal: str, password: Secret, address: str) -> User:
        """The user of that name (NAME or NAME@PROFILE) and password, who asks from an address.

        Raises Unauthenticated.
        """
        name = "@".join(users.principal(principal[:LONGEST_NAME]))
        user = await self._store.read(users.find, principal[:LONGEST_NAME])
        if user is not None and user.enabled and self._is_trusted(user, password):
            return user
        self._refuse_while_paused(name, address)
        async with self._checking:
            # Once more: many may have come while the first of them failed.
            self._refuse_while_paused(name, address)
            good = await self._checked(user, password)
            if not good or user is None or not user.enabled:
                self._pauses.failed(name, address, self._monotonic_s())
        if not good or user is None or not user.enabled:
            log.warning("login of %s from %s failed", _shown(name), address)
            raise Unauthenticated(
                "The user name or password is incorrect, or the user is disabled; check both."
            )
        self._pauses.succeeded(name, address)
        self._trust(user, password)
        return user

    async def open(self, user: User, scope: str) -> Issued:
        """A token for a user who has logged in. scope: words that clients ask for and get back."""
        text, token = await self._store.write(
            tokens.issue, user, scope, self._now_ms(), self._lifetime
        )
        log.info("user %s logged in", user.principal)
        return Issued(text, token)

    async def by_token(self, text: Secret) -> tuple[Token, User]:
        """A token and whose it is; it was used now. Raises Unauthenticated."""
        now = self._now_ms()
        found = await self._store.read(tokens.find, text, now, self._lifetime)
        if found is None:
            raise Unauthenticated("The session has ended or never was; log in again.")
        token, user = found
        if tokens.is_to_be_touched(token, now):
            await self._store.write(tokens.touch, token.id, now)
        return token, user

    async def close(self, text: Secret) -> None:
        """End a token; nothing happens where there is none."""
        await self._store.write(tokens.revoke, text)

    async def sweep(self) -> None:
        """Remove what is of no use any more."""
        await self._store.write(tokens.sweep, self._now_ms(), self._lifetime)

    def _refuse_while_paused(self, name: str, address: str) -> None:
        left_s = self._pauses.wait_s(name, address, self._monotonic_s())
        if left_s > 0:
            raise Unauthenticated(
                f"Too many logins have failed; try again in {math.ceil(left_s)} s."
            )

    async def _checked(self, user: User | None, password: Secret) -> bool:
        """Whether that is the password; as long for users that are none as for others."""
        if user is None or not user.password_hash:
            if not self._nobody:
                self._nobody = await asyncio.to_thread(passwords.hashed, Secret("nobody"))
            await asyncio.to_thread(passwords.matches, password, self._nobody)
            return False
        good = await asyncio.to_thread(passwords.matches, password, user.password_hash)
        if good and not passwords.is_current(user.password_hash):
            kept = await asyncio.to_thread(passwords.hashed, password)
            await self._store.write(rows.update, user.id, password_hash=kept)
        return good

    def _is_trusted(self, user: User, password: Secret) -> bool:
        until_s = self._trusted.get(self._mark(user, password))
        return until_s is not None and self._monotonic_s() < until_s

    def _trust(self, user: User, password: Secret) -> None:
        self._trusted[self._mark(user, password)] = self._monotonic_s() + TRUSTED_S
        while len(self._trusted) > MOST_TRUSTED:
            self._trusted.popitem(last=False)

    def _mark(self, user: User, password: Secret) -> bytes:
        """What stands for a user with the password of now, by a key that this process alone has."""
        told = "\0".join([user.id, user.password_hash, password.reveal()])
        return hmac.digest(self._own_key, told.encode(), hashlib.sha256)


def _shown(name: str) -> str:
    """A name as somebody gave it, for a line of the log."""
    return name if name.isprintable() else repr(name)
