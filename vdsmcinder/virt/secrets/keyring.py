# SPDX-License-Identifier: GPL-2.0-or-later
"""The keys that engines registered, kept beside libvirt, which forgets them and gives none back.

After libvirtd was restarted they are registered anew from here. They outlive this process where the
memory that they are kept in does (system/fdstore.py).
"""

from __future__ import annotations

import base64
import json
import logging
from typing import Any, Protocol

from vdsmcinder.errors import SecretMalformed
from vdsmcinder.virt.secrets.secret import Secret, SecretSpec

log = logging.getLogger(__name__)

# Of the layout of what is kept. A reader takes what it knows and leaves the rest.
VERSION = 1


class Memory(Protocol):
    """Where the keys are kept between two runs of the daemon."""

    def read(self) -> bytes | None:
        """What the run before left; None for nothing."""

    async def write(self, content: bytes) -> str:
        """Keep this from now on; no bytes: keep nothing. Why that is not so, empty if it is."""


class Keyring:
    """The secrets with their values, by uuid; each usage of a key is there once, as in libvirt."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._specs = {spec.uuid: spec for spec in _decode(memory.read())}

    def specs(self) -> list[SecretSpec]:
        """All secrets, in the order in which they were registered."""
        return list(self._specs.values())

    def value(self, uuid: str) -> Secret | None:
        """The value of a secret, or None."""
        spec = self._specs.get(uuid.lower())
        return None if spec is None else spec.value

    def add(self, spec: SecretSpec) -> None:
        """Take in a secret in place of that of its uuid and of that of its usage."""
        for known in self.specs():
            if (known.usage_type, known.usage_id) == (spec.usage_type, spec.usage_id):
                self.remove(known.uuid)
        self._specs[spec.uuid] = spec

    def remove(self, uuid: str) -> None:
        """Forget a secret; one that is not there is no error."""
        self._specs.pop(uuid, None)

    async def save(self) -> str:
        """Return when what is in it now outlives this process, and no more, where that is possible.

        Why it does not, or something else does; empty if all is well.
        """
        return await self._memory.write(_encode(self.specs()))


def _encode(specs: list[SecretSpec]) -> bytes:
    """For the memory alone: this holds the keys."""
    if not specs:
        return b""
    secrets = [
        {
            "uuid": spec.uuid,
            "usageType": spec.usage_type.wire_name,
            "usageID": spec.usage_id,
            "description": spec.description,
            "password": base64.b64encode(spec.value.reveal()).decode(),
        }
        for spec in specs
    ]
    return json.dumps({"version": VERSION, "secrets": secrets}).encode()


def _decode(content: bytes | None) -> list[SecretSpec]:
    if not content:
        return []
    specs = []
    for position, params in enumerate(_listed(content)):
        try:
            specs.append(SecretSpec.from_params(params, position))
        except SecretMalformed as e:
            log.error("a secret of an earlier run is of no use: %s", e.message)
    log.info("%d secrets were kept since the run before", len(specs))
    return specs


def _listed(content: bytes) -> list[Any]:
    try:
        return list(json.loads(content)["secrets"])
    except (ValueError, LookupError, TypeError) as e:
        # Not the error's text, which may quote a key.
        log.error("the secrets of an earlier run cannot be read: %s", type(e).__name__)
        return []
