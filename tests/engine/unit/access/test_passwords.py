# SPDX-License-Identifier: GPL-2.0-or-later
"""What is kept of passwords and of secrets."""

from __future__ import annotations

import stat

import pytest

from cinderengine.access import passwords
from cinderengine.access.sealing import NotSealed, Sealer
from cinderengine.model.secret import Secret


@pytest.fixture(scope="module")
def kept():
    return passwords.hashed(Secret("correct höÄrse"))


def test_the_password_matches_and_no_other(kept):
    assert passwords.matches(Secret("correct höÄrse"), kept)
    assert not passwords.matches(Secret("correct höärse"), kept)


def test_it_is_kept_with_its_parameters_and_another_salt_each_time(kept):
    assert kept.startswith("scrypt$16384$8$5$")
    assert passwords.hashed(Secret("correct höÄrse")) != kept
    assert passwords.is_current(kept)
    assert not passwords.is_current(kept.replace("16384", "1024"))


def test_one_that_was_kept_with_others_matches_still(monkeypatch):
    monkeypatch.setattr(passwords, "N", 1024)
    old = passwords.hashed(Secret("x"))
    monkeypatch.undo()
    assert passwords.matches(Secret("x"), old)
    assert not passwords.is_current(old)


@pytest.mark.parametrize(
    "kept",
    [
        "",
        "x",
        "scrypt$1$2$3$AA==$AA==",
        "scrypt$a$b$c$d$e",
        "bcrypt$2$8$1$AA==$AA==",
        "scrypt$1073741824$8$1$AA==$AA==",
    ],
)
def test_what_cannot_be_read_matches_nothing(kept):
    assert not passwords.matches(Secret("x"), kept)


def test_what_is_sealed_is_opened_again_and_does_not_show(tmp_path):
    assert Sealer.make(tmp_path / "key")
    sealed = Sealer.opened(tmp_path / "key").seal(Secret("QVFE+key=="))
    assert "QVFE" not in sealed
    assert Sealer.opened(tmp_path / "key").open(sealed).reveal() == "QVFE+key=="
    assert stat.S_IMODE((tmp_path / "key").stat().st_mode) == 0o400


def test_a_key_that_is_there_stays(tmp_path):
    Sealer.make(tmp_path / "key")
    before = (tmp_path / "key").read_bytes()
    assert not Sealer.make(tmp_path / "key")
    assert (tmp_path / "key").read_bytes() == before
    assert [path.name for path in tmp_path.iterdir()] == ["key"]


def test_another_key_opens_nothing_and_says_what_to_do(tmp_path):
    Sealer.make(tmp_path / "a")
    Sealer.make(tmp_path / "b")
    sealed = Sealer.opened(tmp_path / "a").seal(Secret("x"))
    with pytest.raises(NotSealed, match=r"was not sealed with the key in .*/b; restore the key"):
        Sealer.opened(tmp_path / "b").open(sealed)


@pytest.mark.parametrize("sealed", ["", "x", "ü"])
def test_what_was_never_sealed_is_not_opened(tmp_path, sealed):
    Sealer.make(tmp_path / "a")
    with pytest.raises(NotSealed):
        Sealer.opened(tmp_path / "a").open(sealed)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "does not exist; make it with cinder-engine init"),
        (b"x", "holds no sealing key"),
        (b"\xff", "cannot be read: it is not text"),
    ],
)
def test_a_key_that_is_none_is_told(tmp_path, content, told):
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    with pytest.raises(NotSealed, match=told):
        Sealer.opened(tmp_path / "key")
