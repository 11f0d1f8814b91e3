# SPDX-License-Identifier: GPL-2.0-or-later
"""What a UUID is: one check, whoever asks."""

from __future__ import annotations

import re

import pytest

from tests.pages import REPOSITORY
from vdsmcinder import uuids
from vdsmcinder.config import ConfigError
from vdsmcinder.config import parse as parse_config
from vdsmcinder.errors import InvalidParameter, SecretMalformed
from vdsmcinder.fields import UUID, Fields
from vdsmcinder.rpc.schema.types import BUILTIN, Mismatch
from vdsmcinder.virt.secrets.secret import parse_uuid

GOOD = "148eb4bc-c47c-4ffe-b14e-3a0fb6c76833"
NONE = (
    "",
    "x",
    GOOD.replace("-", ""),
    f"{{{GOOD}}}",
    f"urn:uuid:{GOOD}",
    f"{GOOD}\n",
    f" {GOOD}",
    GOOD[:-1],
    GOOD.replace("8", "٨"),
)


def test_it_is_canonical_in_lower_case():
    assert uuids.parse(GOOD.upper()) == uuids.parse(GOOD) == GOOD


@pytest.mark.parametrize("value", [*NONE, None, 7, True, GOOD.encode()])
def test_what_is_none(value):
    assert not uuids.is_uuid(value)
    with pytest.raises(ValueError):
        uuids.parse(value)


@pytest.mark.parametrize("text", [text for text in NONE if text])
def test_all_who_ask_agree(text):
    with pytest.raises(InvalidParameter):
        Fields({"id": text}, "it").get("id", UUID)
    with pytest.raises(SecretMalformed):
        parse_uuid(text, "uuid")
    with pytest.raises(Mismatch):
        BUILTIN["UUID"].read(text, "it")
    with pytest.raises(ConfigError):
        parse_config(f"vms: {{cinder_secret_uuid: {text!r}}}", "f")


def test_no_other_file_has_a_check_of_its_own():
    own = re.compile(r"uuid\w*\.UUID\((?!bytes|int)|0-9a-f\]\{8\}|A-F\]\{8\}")
    # The firmware's UUID is read in whatever form it is written.
    allowed = {"vdsmcinder/uuids.py", "vdsmcinder/host/machine.py"}
    files = {
        str(path.relative_to(REPOSITORY))
        for path in (REPOSITORY / "vdsmcinder").rglob("*.py")
        if own.search(path.read_text(encoding="utf-8"))
    }
    assert files == allowed
