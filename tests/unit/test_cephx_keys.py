# SPDX-License-Identifier: GPL-2.0-or-later
"""What a CEPHX key looks like in text: found in whatever form it was pasted, and nothing else."""

from __future__ import annotations

import base64
import logging
import struct
import time
import uuid

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsmcinder import cephx_keys, logs
from vdsmcinder.errors import VdsmCinderError
from vdsmcinder.stomp.frames import ProtocolError

KEY = "AQANLY7YAAAAEBAAfroPNfBE1vyVnkIviCklMQ=="
AES_256 = "AgD5GCh1AAAAECAAkIFJMcAibBgEEoLBH/mQW0nlFJGeBnuX2uCkaMeirmE="
SECRET = KEY[16:-2]
MASKED = cephx_keys.MASK


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (KEY, MASKED),
        (f"key={KEY}", f"key={MASKED}"),
        (f"{KEY}.", f"{MASKED}."),
        (f"'{KEY}' and \"{KEY}\"", f"'{MASKED}' and \"{MASKED}\""),
        (f"disk 'volumes/{KEY}'", f"disk 'volumes/{MASKED}'"),
        (KEY.rstrip("="), MASKED),
        (KEY[:30], MASKED),
        (KEY.replace("=", "%3D"), MASKED),
        (base64.b64encode(KEY.encode()).decode(), MASKED),
        (AES_256, MASKED),
    ],
)
def test_masked(text: str, shown: str) -> None:
    assert cephx_keys.masked(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "",
        "AQ",
        "volumes/volume-0a1b2c3d-0000-4000-8000-000000000001",
        "/var/lib/libvirt/qemu/channels/AQuiteLongNameOfAFileThatIsNoKey",
        "AQUARIUSAQUARIUSAQUARIUSAQUARIUSAQUARIUS",
        base64.b64encode(b"\x01\x00" + bytes(8) + b"\x11\x00" + bytes(17)).decode(),
    ],
)
def test_what_is_no_key_stays(text: str) -> None:
    assert cephx_keys.masked(text) == text
    assert not cephx_keys.holds_key(text)


@given(st.uuids(), st.text(), st.binary(min_size=16, max_size=16), st.integers(0, 2**32 - 1))
def test_whatever_stands_around_a_key(
    name: uuid.UUID, around: str, secret: bytes, made_s: int
) -> None:
    assert not cephx_keys.holds_key(str(name))
    key = base64.b64encode(struct.pack("<HIIH", 1, made_s, 7, 16) + secret).decode()
    text = f"{around}{key} {around}"
    assert cephx_keys.holds_key(text)
    assert key[16:-2] not in cephx_keys.masked(text)


@pytest.mark.parametrize("mark", ["\u200b", "\u00ad", "\ufeff", "\u00a0", "\n\t", " \u2060"])
def test_a_key_that_was_copied_with_what_cannot_be_seen(mark: str) -> None:
    assert cephx_keys.holds_key(f"{KEY[:8]}{mark}{KEY[8:20]}{mark}{KEY[20:]}")


@pytest.mark.parametrize("kind", cephx_keys._LENGTHS)
@given(made_s=st.integers(0, 2**32 - 1), made_ns=st.integers(0, 999_999_999))
def test_keys_of_all_times(kind: int, made_s: int, made_ns: int) -> None:
    length = cephx_keys._LENGTHS[kind]
    key = base64.b64encode(struct.pack("<HIIH", kind, made_s, made_ns, length) + bytes(length))
    for text in (key, base64.urlsafe_b64encode(base64.b64decode(key)), base64.b64encode(key)):
        assert cephx_keys.masked(text.decode()) == MASKED


@pytest.mark.parametrize("text", ["AQ", "AgAQ", "AQAA", "A Q", "%41%51", "QVF", "QVFB", "QWdBAQA"])
def test_what_only_looks_like_a_beginning_costs_nothing(
    monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    """A client can send a million of them in one request."""
    looked: list[str] = []
    monkeypatch.setattr(cephx_keys, "_is_header", looked.append)
    assert not cephx_keys.holds_key(text * 1000)
    assert cephx_keys.masked(text * 1000) == text * 1000
    assert looked == []


def test_masking_many_keys_takes_time_for_each_alone() -> None:
    def cost_s(count: int) -> float:
        began = time.process_time()
        assert cephx_keys.masked(f"{KEY} " * count) == f"{MASKED} " * count
        return time.process_time() - began

    # Sixteen times as many took 256 times as long.
    assert cost_s(16_000) < 64 * max(cost_s(1000), 1e-3)


def test_where_a_key_is_misplaced() -> None:
    assert cephx_keys.misplaced({"a": [{"b": "x"}, {"c": f"key={KEY}"}]}) == "a[1].c"
    assert cephx_keys.misplaced({"a": {KEY: 1}}) == "the name of a member of a"
    assert cephx_keys.misplaced({"a": [{}, {KEY: 1}]}) == "the name of a member of a[1]"
    assert cephx_keys.misplaced({KEY: 1}) == "the name of a member of the request"
    assert cephx_keys.misplaced({"a": {"b": [[1, KEY]]}, "c": KEY}) == "a.b[0][1]"
    assert cephx_keys.misplaced({"secrets": [{"password": KEY, "uuid": "x"}]}) is None
    assert cephx_keys.misplaced({"data": {"keyring": f"[client.x]\nkey = {KEY}"}}) is None
    assert cephx_keys.misplaced({"note": f"{KEY[:20]}\n{KEY[20:]}"}) == "note"


def test_errors_and_the_log_hold_none(caplog: pytest.LogCaptureFixture) -> None:
    error = VdsmCinderError(f"no {KEY}", found=KEY)
    assert SECRET not in f"{error} {error.message} {error.data}"
    assert SECRET not in str(ProtocolError(f"header {KEY}"))
    record = logging.LogRecord("x", logging.INFO, "", 0, "%s is %d", (KEY, 1), None)
    mark = logs.flow_id.set(KEY)
    try:
        assert logs.Masks().filter(record) and logs.Marks().filter(record)
    finally:
        logs.flow_id.reset(mark)
    assert record.getMessage() == f"{MASKED} is 1"
    assert SECRET not in f"{vars(record)}"
