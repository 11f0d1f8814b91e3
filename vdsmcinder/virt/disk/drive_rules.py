# SPDX-License-Identifier: GPL-2.0-or-later
"""What no VM is given, however a request describes the disk: in fields, in Cinder's answer, in XML
to be plugged or in a domain document.

Disks of running VMs are not measured by it: what libvirt runs is told as it is.
"""

from __future__ import annotations

from typing import Protocol

from vdsmcinder.fields import Fields, matching
from vdsmcinder.virt.disk import bus_rules
from vdsmcinder.virt.disk.disk_auth import Encryption
from vdsmcinder.virt.disk.driver import (
    CACHE,
    DETECT_ZEROES,
    DISCARD,
    ERROR_POLICY,
    IO,
    IOTHREAD,
    QUEUE_SIZE,
    QUEUES,
    Driver,
)
from vdsmcinder.virt.disk.source import NetworkSource, Source
from vdsmcinder.virt.disk.tuning import IoTune

# libvirt keeps aliases with this prefix and replaces all others by its own, and those with this
# prefix that hold other characters.
USER_ALIAS = "ua-"
ALIAS = matching(
    f"{USER_ALIAS}[A-Za-z0-9_-]+|(?!{USER_ALIAS})[A-Za-z0-9_.-]+",
    f"letters, digits, '_' and '-', and '.' only where it does not begin with {USER_ALIAS}",
)
# QEMU takes no others.
SERIAL = matching(r"(?=.*\S)[A-Za-z0-9_.+ -]+", "letters, digits, spaces, '_', '.', '+' and '-'")

_LIBRBDS_ALONE = ("luks2", "luks-any")


class Asked(bus_rules.OnBus, Protocol):
    """What rules look at of a disk."""

    @property
    def driver(self) -> Driver:
        """How QEMU reads and writes it."""

    @property
    def source(self) -> Source:
        """Where its data is."""

    @property
    def readonly(self) -> bool:
        """Whether the guest may only read it."""

    @property
    def shared(self) -> bool:
        """Whether several VMs write to it at once."""

    @property
    def serial(self) -> str | None:
        """What the guest sees as its serial number."""

    @property
    def alias(self) -> str | None:
        """Its name in libvirt."""

    @property
    def io_tune(self) -> IoTune | None:
        """The limits of its I/O."""


def check(asked: Asked, thing: str) -> None:
    """Raise InvalidParameter, by field, for a disk that no VM is given. thing: names the disk."""
    driver, source = asked.driver, asked.source
    options = dict(driver.options)
    fields = Fields(
        {
            # As requests have it: said, or not.
            "readonly": asked.readonly or None,
            "cache": driver.cache,
            "io": driver.io,
            "propagateErrors": driver.error_policy,
            "discard": driver.discard,
            "detectZeroes": options.get("detect_zeroes"),
            "serial": asked.serial,
            "alias": asked.alias,
            "queues": options.get("queues"),
            "queueSize": options.get("queue_size"),
            "pinToIoThread": driver.iothread,
        },
        thing,
    )
    fields.get("cache", CACHE)
    fields.get("io", IO)
    fields.get("propagateErrors", ERROR_POLICY)
    fields.get("discard", DISCARD)
    fields.get("serial", SERIAL)
    fields.get("alias", ALIAS)
    fields.get("queues", QUEUES)
    fields.get("queueSize", QUEUE_SIZE)
    fields.get("pinToIoThread", IOTHREAD)
    for name in ("queues", "queueSize", "pinToIoThread"):
        if asked.bus != "virtio" and name in fields:
            raise fields.invalid(name, f"none with iface {asked.bus}, as virtio alone has it")
    bus_rules.check(asked, thing)
    if isinstance(source, NetworkSource) and source.snapshot is not None and not asked.readonly:
        raise fields.invalid("readonly", "true, as path names a snapshot")
    if asked.shared and not asked.readonly and driver.caches:
        # Nobody tells a cache on this host of what another host wrote.
        raise fields.invalid("cache", "none or directsync, as the disk is shared")
    if fields.get("detectZeroes", DETECT_ZEROES) == "unmap" and driver.discard != "unmap":
        raise fields.invalid("detectZeroes", "on or off, or discard to be true as well")
    if source.encryption is not None:
        _check_encryption(source.encryption, source, thing)
    if asked.io_tune is not None:
        _check_limits(asked.io_tune, thing)


def _check_encryption(encryption: Encryption, source: Source, thing: str) -> None:
    given = {"format": encryption.format, "engine": encryption.engine}
    fields = Fields(given, thing, "encryption")
    librbd = encryption.engine == "librbd"
    if encryption.format in _LIBRBDS_ALONE and not librbd:
        expected = f"librbd for {encryption.format}, which QEMU itself does not read"
        raise fields.invalid("engine", expected)
    if librbd and not isinstance(source, NetworkSource):
        raise fields.invalid("engine", "qemu, as the disk is not on Ceph")


def _check_limits(limits: IoTune, thing: str) -> None:
    refusal = limits.refusal()
    if refusal is not None:
        fields = Fields(limits.values, thing, "iotune")
        raise fields.invalid(refusal.limit, refusal.expected)
