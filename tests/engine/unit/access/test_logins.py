# SPDX-License-Identifier: GPL-2.0-or-later
"""Who gets in, for how long, and who does not: on a real database."""

from __future__ import annotations

import logging

import pytest

from cinderengine.access import passwords, users
from cinderengine.access.logins import TRUSTED_S, Logins
from cinderengine.access.pauses import Pauses
from cinderengine.access.tokens import USED_EVERY_MS, Lifetime
from cinderengine.errors import Conflict, Invalid, NotFound, Unauthenticated
from cinderengine.model.secret import Secret
from cinderengine.store.entities import tokens

HERE, THERE = "192.0.2.1", "192.0.2.2"
PASSWORD = Secret("correct horse")
HOUR_MS = 3_600_000


class Clock:
    """One that goes when it is told to."""

    def __init__(self):
        self.ms = 1_700_000_000_000

    def now_ms(self):
        return self.ms

    def monotonic_s(self):
        return self.ms / 1000


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(passwords, "N", 16)


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
async def logins(store, clock):
    kept = passwords.hashed(PASSWORD)
    await store.write(users.add, "admin@internal", kept, administrator=True)
    lifetime = Lifetime(idle_ms=HOUR_MS // 2, longest_ms=24 * HOUR_MS)
    pauses = Pauses(free_failures=3, longest_pause_s=60)
    return Logins(store, lifetime, pauses, now_ms=clock.now_ms, monotonic_s=clock.monotonic_s)


async def failed(logins, principal="admin@internal", password="wrong", address=HERE):
    with pytest.raises(Unauthenticated) as refused:
        await logins.by_password(principal, Secret(password), address)
    return refused.value.detail


@pytest.mark.parametrize("name", ["admin@internal", "admin", "admin@internal-authz"])
async def test_a_user_logs_in_with_and_without_profile(logins, name):
    user = await logins.by_password(name, PASSWORD, HERE)
    assert user.principal == "admin@internal"


@pytest.mark.parametrize(
    "name", ["admin@example.com", "root", "", "admin@", "@internal", "a" * 9999]
)
async def test_nobody_else_does_and_nothing_tells_whether_they_exist(logins, name):
    assert await failed(logins, name) == await failed(logins)


async def test_an_address_may_be_a_name(store, logins):
    kept = passwords.hashed(PASSWORD)
    await store.write(users.add, "jo@example.com", kept, administrator=False)
    for name in ("jo@example.com", "jo@example.com@internal"):
        assert (await logins.by_password(name, PASSWORD, HERE)).name == "jo@example.com"


async def test_who_fails_too_often_waits_even_with_the_right_password(logins, clock):
    for _ in range(3):
        await failed(logins)
    assert await failed(logins, password=PASSWORD.reveal()) == (
        "Too many logins have failed; try again in 1 s."
    )
    clock.ms += 1000
    await logins.by_password("admin", PASSWORD, HERE)


async def test_with_and_without_profile_it_is_the_same_user_that_failed(logins):
    for name in ("admin", "admin@internal", "admin@internal-authz"):
        await failed(logins, name, address=HERE)
    assert "Too many" in await failed(logins, address=THERE)


async def test_who_shows_the_right_password_with_each_request_is_not_shut_out(logins):
    await logins.by_password("admin", PASSWORD, HERE)
    for _ in range(9):
        await failed(logins, address=HERE)
    await logins.by_password("admin", PASSWORD, HERE)


async def test_a_password_is_looked_at_again_after_some_time(logins, clock, mocker):
    await logins.by_password("admin", PASSWORD, HERE)
    looked = mocker.spy(passwords, "matches")
    await logins.by_password("admin", PASSWORD, HERE)
    assert looked.call_count == 0
    clock.ms += int(TRUSTED_S * 1000)
    await logins.by_password("admin", PASSWORD, HERE)
    assert looked.call_count == 1


async def test_a_password_that_was_changed_is_of_no_use_at_once(store, logins):
    await logins.by_password("admin", PASSWORD, HERE)
    await store.write(users.set_password, "admin", passwords.hashed(Secret("another one")))
    await failed(logins, password=PASSWORD.reveal())
    await logins.by_password("admin", Secret("another one"), HERE)


async def test_a_password_kept_with_old_parameters_is_kept_anew(store, logins, monkeypatch):
    monkeypatch.setattr(passwords, "N", 32)
    await logins.by_password("admin", PASSWORD, HERE)
    user = await store.read(users.named, "admin")
    assert user.password_hash.startswith("scrypt$32$")
    await logins.by_password("admin", PASSWORD, HERE)


async def test_a_failure_is_in_the_log_without_the_password(logins, caplog):
    caplog.set_level(logging.INFO)
    await failed(logins, "x\ny", "s3cret-s3cret")
    assert r"login of 'x\ny@internal' from 192.0.2.1 failed" in caplog.text
    assert "s3cret" not in caplog.text


async def test_a_token_is_good_while_it_is_used_and_not_for_ever(logins, clock):
    user = await logins.by_password("admin", PASSWORD, HERE)
    text = (await logins.open(user, "ovirt-app-api")).text
    for _ in range(47):
        clock.ms += HOUR_MS // 2
        token, found = await logins.by_token(text)
        assert (token.scope, found.principal) == ("ovirt-app-api", "admin@internal")
    clock.ms += HOUR_MS // 2
    with pytest.raises(Unauthenticated):
        await logins.by_token(text)


async def test_a_token_that_is_not_used_ends(logins, clock):
    user = await logins.by_password("admin", PASSWORD, HERE)
    text = (await logins.open(user, "")).text
    clock.ms += HOUR_MS // 2 + USED_EVERY_MS - 1
    await logins.by_token(text)
    clock.ms += HOUR_MS // 2 + USED_EVERY_MS
    with pytest.raises(Unauthenticated, match="log in again"):
        await logins.by_token(text)


async def test_use_is_written_down_once_a_minute(store, logins, clock, mocker):
    user = await logins.by_password("admin", PASSWORD, HERE)
    text = (await logins.open(user, "")).text
    writes = mocker.spy(store, "write")
    for _ in range(59):
        clock.ms += 1000
        await logins.by_token(text)
    assert writes.call_count == 0
    clock.ms += 1000
    await logins.by_token(text)
    assert writes.call_count == 1


async def test_the_database_does_not_have_what_is_shown(store, logins):
    user = await logins.by_password("admin", PASSWORD, HERE)
    text = (await logins.open(user, "")).text.reveal()
    (kept,) = await store.read(tokens.all)
    assert len(text) >= 43
    assert text not in repr(kept)
    with pytest.raises(Unauthenticated):
        await logins.by_token(Secret(kept.id))


async def test_who_logs_out_is_out_and_may_do_so_twice(logins):
    user = await logins.by_password("admin", PASSWORD, HERE)
    text = (await logins.open(user, "")).text
    await logins.close(text)
    await logins.close(text)
    with pytest.raises(Unauthenticated):
        await logins.by_token(text)


async def test_what_is_of_no_use_is_removed(store, logins, clock):
    user = await logins.by_password("admin", PASSWORD, HERE)
    await logins.open(user, "old")
    clock.ms += HOUR_MS
    await logins.open(user, "new")
    await logins.sweep()
    assert [token.scope for token in await store.read(tokens.all)] == ["new"]


@pytest.mark.parametrize("change", ["password", "disabled", "removed"])
async def test_logins_end_with_what_they_rest_on(store, logins, change):
    await store.write(users.add, "other", passwords.hashed(PASSWORD), administrator=True)
    user = await logins.by_password("other", PASSWORD, HERE)
    text = (await logins.open(user, "")).text
    if change == "password":
        await store.write(users.set_password, "other", passwords.hashed(PASSWORD))
    elif change == "disabled":
        await store.write(users.set_enabled, "other", False)
        await failed(logins, "other", PASSWORD.reveal())
        await store.write(users.set_enabled, "other", True)
    else:
        await store.write(users.remove, "other")
    with pytest.raises(Unauthenticated):
        await logins.by_token(text)


async def test_there_is_always_an_administrator_who_can_log_in(store, logins):
    with pytest.raises(Conflict, match="admin@internal cannot be disabled, because no other"):
        await store.write(users.set_enabled, "admin", False)
    await store.write(users.add, "other", passwords.hashed(PASSWORD), administrator=True)
    await store.write(users.set_enabled, "other", False)
    with pytest.raises(Conflict, match="admin@internal cannot be removed"):
        await store.write(users.remove, "admin")
    await store.write(users.set_enabled, "other", True)
    await store.write(users.remove, "admin")


async def test_mistakes_with_users_are_told(store, logins):
    with pytest.raises(Conflict, match="user admin@internal exists already"):
        await store.write(users.add, "admin", "", administrator=False)
    with pytest.raises(NotFound, match="user x does not exist; cinder-engine user list"):
        await store.write(users.remove, "x")
    with pytest.raises(Invalid, match="cannot be a user's name"):
        await store.write(users.add, "a b", "", administrator=False)


@pytest.mark.parametrize("password", ["", "1234567", "x" * 1025])
def test_passwords_that_are_too_short_or_too_long_are_refused(password):
    with pytest.raises(Invalid, match=f"a password of {len(password)} characters is not taken"):
        users.check_password(Secret(password))
