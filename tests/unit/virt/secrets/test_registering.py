# SPDX-License-Identifier: GPL-2.0-or-later
"""Secrets in libvirt and in what is kept: never half there, never half gone without being said."""

from __future__ import annotations

import base64
from types import SimpleNamespace
from typing import Any, Callable

import libvirt
import pytest
from lxml import etree

from tests.refusals import libvirt_error
from vdsmcinder.errors import SecretRegistrationFailed, SecretUnregistrationFailed
from vdsmcinder.virt.secrets import secrets as secrets_module
from vdsmcinder.virt.secrets.keyring import Keyring
from vdsmcinder.virt.secrets.secret import NO_VALUE, SecretName, SecretSpec
from vdsmcinder.virt.secrets.secrets import Secrets

ONE = "12345678-1234-1234-1234-123456789abc"
NAME = SecretName(ONE)


class Killed(BaseException):
    """The daemon ends in the middle of it."""


class LibvirtSecret:
    """One of libvirt's. value: None until it is set."""

    def __init__(self, libvirtd: Libvirtd, xml: str) -> None:
        self._libvirtd = libvirtd
        self.xml = xml
        self.value: bytes | None = None

    def UUIDString(self) -> str:
        return etree.fromstring(self.xml).findtext("uuid") or ""

    def usageType(self) -> int:
        return int(libvirt.VIR_SECRET_USAGE_TYPE_CEPH)

    def usageID(self) -> str:
        return etree.fromstring(self.xml).findtext("usage/name") or ""

    def XMLDesc(self) -> str:
        return self.xml

    def setValue(self, value: bytes) -> None:
        if self._libvirtd.fault is not None:
            raise self._libvirtd.fault
        self.value = value

    def undefine(self) -> None:
        if isinstance(self._libvirtd.fault, Killed):
            raise self._libvirtd.fault
        self._libvirtd.secrets.remove(self)


class Libvirtd:
    """fault: what setting a value raises."""

    def __init__(self) -> None:
        self.secrets: list[LibvirtSecret] = []
        self.fault: BaseException | None = None
        self.handle = self

    def listAllSecrets(self) -> list[LibvirtSecret]:
        return list(self.secrets)

    def secretDefineXML(self, xml: str) -> LibvirtSecret:
        new = LibvirtSecret(self, xml)
        for known in self.secrets:
            if known.UUIDString() == new.UUIDString():
                known.xml = xml
                return known
        self.secrets.append(new)
        return new

    def secretLookupByUUIDString(self, uuid: str) -> LibvirtSecret:
        return next(secret for secret in self.secrets if secret.UUIDString() == uuid)

    async def call(self, func: Callable[..., Any], *args: Any) -> Any:
        return func(*args)


class Memory:
    """What systemd keeps. trouble: why it takes nothing else."""

    def __init__(self) -> None:
        self.content: bytes | None = None
        self.trouble = ""

    def read(self) -> bytes | None:
        return self.content

    async def write(self, content: bytes) -> str:
        if not self.trouble:
            self.content = content
        return self.trouble


def spec(key: bytes = b"key") -> SecretSpec:
    password = base64.b64encode(key).decode()
    params = {"uuid": ONE, "usageType": "ceph", "usageID": "ovirt/one", "password": password}
    return SecretSpec.from_params({**params, "description": "of the pool"}, 0)


def daemon(libvirtd: Libvirtd, memory: Memory) -> Secrets:
    connection: Any = libvirtd
    return Secrets(connection, Keyring(memory), lambda: None)


async def test_one_that_is_refused_its_value_is_not_there() -> None:
    libvirtd, memory = Libvirtd(), Memory()
    libvirtd.fault = libvirt_error("no memory")
    secrets = daemon(libvirtd, memory)
    with pytest.raises(SecretRegistrationFailed):
        await secrets.register([spec()])
    assert libvirtd.secrets == []
    assert await secrets.missing([NAME]) == [NAME]


async def test_one_whose_value_did_not_get_there_counts_as_missing() -> None:
    """A daemon that is killed in between leaves it defined, and libvirt does not tell."""
    libvirtd, memory = Libvirtd(), Memory()
    libvirtd.fault = Killed()
    with pytest.raises(Killed):
        await daemon(libvirtd, memory).register([spec()])
    (half,) = libvirtd.secrets
    assert half.value is None
    libvirtd.fault = None
    after = daemon(libvirtd, memory)
    assert await after.missing([NAME]) == [NAME]
    await after.register([spec()])
    assert await after.missing([NAME]) == []
    (whole,) = libvirtd.secrets
    assert (whole.value, whole.xml) == (b"key", spec().xml())


async def test_one_that_is_not_changed_keeps_what_it_had() -> None:
    libvirtd, memory = Libvirtd(), Memory()
    secrets = daemon(libvirtd, memory)
    await secrets.register([spec()])
    libvirtd.fault = libvirt_error("no memory")
    with pytest.raises(SecretRegistrationFailed):
        await secrets.register([spec(b"another")])
    (kept,) = libvirtd.secrets
    assert kept.value == b"key"
    assert await secrets.missing([NAME]) == []


async def test_one_that_systemd_keeps_is_said_to_be_kept() -> None:
    libvirtd, memory = Libvirtd(), Memory()
    secrets = daemon(libvirtd, memory)
    await secrets.register([spec()])
    memory.trouble = "systemd did not take them within 5 s"
    for _ in range(2):
        with pytest.raises(SecretUnregistrationFailed, match="within 5 s; call again"):
            await secrets.unregister([ONE])
    memory.trouble = ""
    await secrets.unregister([ONE])
    assert libvirtd.secrets == []
    assert daemon(libvirtd, memory).specs() == []


def test_what_others_define_has_what_they_gave_it() -> None:
    """Whatever they say of it."""
    other: Any = SimpleNamespace(
        usageID=lambda: "theirs",
        usageType=lambda: libvirt.VIR_SECRET_USAGE_TYPE_CEPH,
        XMLDesc=lambda: NO_VALUE,
    )
    assert secrets_module._has_value(other)
