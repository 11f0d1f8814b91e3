# SPDX-License-Identifier: GPL-2.0-or-later
"""Handing a key to the daemon from a file, stdin or a prompt, and never from an argument.

The forms that keys come in are those of ceph-authtool(8) and `ceph auth get-key`.
"""

from __future__ import annotations

import base64
import binascii
import getpass
import re
import sys
from typing import Any

from vdsmcinder.client import sources
from vdsmcinder.client.exit_codes import InputRefused

_KEYRING_KEY = re.compile(r"^\s*key\s*=\s*(\S+)\s*$", re.MULTILINE)


def read_key(path: str) -> str:
    """The text of the key in a file, on stdin ('-'), or typed without echo if stdin is a terminal.

    Raises InputRefused.
    """
    is_asked_for = path == "-" and sys.stdin.isatty()
    text = _asked() if is_asked_for else sources.read_text(path)
    if not text.strip():
        raise InputRefused("the key is empty; give a file that holds it")
    return text


def _asked() -> str:
    try:
        return getpass.getpass("Key: ")
    except EOFError:
        return ""


def secret_info(
    uuid: str, usage_type: str, usage_id: str | None, description: str | None, key: str
) -> dict[str, Any]:
    """The secret as Host.registerSecrets takes it (SecretInfo of contract/types.txt).

    key: for ceph a keyring file or the key alone, for the others the passphrase.
    Raises InputRefused; the error never holds the key.
    """
    info = {
        "uuid": uuid,
        "usageType": usage_type,
        "usageID": usage_id or f"ovirt/{uuid}",
        "password": ceph_key(key) if usage_type == "ceph" else _encoded(key),
    }
    return info if description is None else {**info, "description": description}


def ceph_key(text: str) -> str:
    """The key out of a keyring with one entry, or as it stands: it is base64 of the bytes that
    libvirt wants, which is what the verb takes."""
    keys = _KEYRING_KEY.findall(text)
    if len(keys) > 1:
        raise InputRefused("the keyring holds several keys; give a file with the one of the user")
    key = keys[0] if keys else text.strip()
    try:
        base64.b64decode(key, validate=True)
    except binascii.Error:
        raise InputRefused(
            "the key is not base64; give what ceph auth get-key prints, or a keyring file"
        ) from None
    return str(key)


def _encoded(passphrase: str) -> str:
    return base64.b64encode(passphrase.rstrip("\n").encode()).decode()
