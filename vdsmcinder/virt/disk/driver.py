# SPDX-License-Identifier: GPL-2.0-or-later
"""How QEMU reads and writes a disk: libvirt's <driver>.

Follows https://libvirt.org/formatdomain.html, `driver` of disks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from lxml import etree

from vdsmcinder.errors import UnsupportedDrive
from vdsmcinder.fields import BOOLEAN, Fields, Kind, choice, number, power_of_2, word
from vdsmcinder.hypervisor.xmldoc import check_text, refuse_children
from vdsmcinder.virt.disk.source import BlockSource, NetworkSource, Source

CACHE = choice("none", "writeback", "writethrough", "directsync", "unsafe", "default")
FORMATS = {"raw": "raw", "cow": "qcow2"}
# Others that QEMU has, which are known to be no secret.
_FORMATS_OF_QEMU = ("luks", "parallels", "qcow", "qed", "vdi", "vhdx", "vmdk", "vpc")

_NAME = "qemu"
# What runs may have been made by others.
_NUMBER = number(1, 2**31 - 1)
# More than a VM has processors to run them; libvirt would make as many as it is told.
MOST_IO_THREADS = 1024
IOTHREAD = number(1, MOST_IO_THREADS)
# virtio's own limits.
QUEUES = number(1, 1024)
QUEUE_SIZE = power_of_2(4, 1024)
DETECT_ZEROES = choice("off", "on", "unmap")
IO = choice("native", "threads", "io_uring")
ERROR_POLICY = choice("stop", "report", "ignore", "enospace")
DISCARD = choice("unmap", "ignore")
# Asynchronous I/O needs the host's page cache out of the way: libvirt refuses it otherwise.
_DIRECT = ("none", "directsync")


@dataclass(frozen=True)
class Driver:
    """Format, caching and error handling; None leaves a choice to libvirt.

    format: raw or qcow2. discard: unmap or ignore. iothread: number of the I/O thread, from 1.
    options: pairs of further attributes (queues, detect_zeroes, ...), carried as they came.
    """

    format: str = "raw"
    cache: str | None = None
    io: str | None = None
    error_policy: str | None = None
    discard: str | None = None
    iothread: int | None = None
    options: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        check_text("driver", self.format, self.cache, self.io, self.error_policy, self.discard)
        check_text("driver", *(value for _, value in self.options))

    @property
    def caches(self) -> bool:
        """Whether this host may answer reads out of a cache of its own."""
        return self.cache is not None and self.cache not in _DIRECT

    def write(self, disk: etree._Element) -> None:
        """Append <driver>."""
        attributes = {"name": _NAME, "type": self.format}
        if self.cache is not None:
            attributes["cache"] = self.cache
        if self.io is not None:
            attributes["io"] = self.io
        if self.error_policy is not None:
            attributes["error_policy"] = self.error_policy
        if self.discard is not None:
            attributes["discard"] = self.discard
        if self.iothread is not None:
            attributes["iothread"] = str(self.iothread)
        if self.options:
            attributes.update(self.options)
        etree.SubElement(disk, "driver", attributes)

    @classmethod
    def read(cls, driver: etree._Element, thing: str) -> Driver:
        """Read <driver>.

        Raises UnsupportedDrive for a format and for children that are not known here,
        InvalidParameter for an iothread that is no number.
        """
        refuse_children(driver, (), thing)
        attributes = {str(name): str(value) for name, value in driver.attrib.items()}
        attributes.pop("name", None)
        iothread = Fields({"iothread": attributes.pop("iothread", None)}, thing, "driver")
        format = attributes.pop("type", "raw")
        if format not in FORMATS.values():
            expected = f"one of {', '.join(FORMATS.values())}"
            raise UnsupportedDrive(
                f"{thing}: driver.type is {word(format, _FORMATS_OF_QEMU)}; expected {expected}",
                field="driver.type",
                expected=expected,
            )
        return cls(
            format=format,
            cache=attributes.pop("cache", None),
            io=attributes.pop("io", None),
            error_policy=attributes.pop("error_policy", None),
            discard=attributes.pop("discard", None),
            iothread=iothread.get("iothread", _NUMBER),
            options=tuple(attributes.items()),
        )

    @classmethod
    def for_disk(cls, fields: Fields, source: Source) -> Driver:
        """Read what a device description says of a disk's or lun's driver.

        Fields: format, cache, propagateErrors, discard, detectZeroes; specParams.pinToIoThread,
        queues and queueSize.
        """
        cache = fields.get("cache", CACHE) or "none"
        tuning = fields.section("specParams")
        native = isinstance(source, BlockSource) and cache in _DIRECT
        return cls(
            format=FORMATS[fields.get("format", choice(*FORMATS)) or "raw"],
            cache=cache,
            io="native" if native else "threads",
            error_policy=_error_policy(fields, source),
            discard=_discard(fields),
            iothread=tuning.get("pinToIoThread", IOTHREAD),
            options=_options(
                detect_zeroes=fields.get("detectZeroes", DETECT_ZEROES),
                queues=tuning.get("queues", QUEUES),
                queue_size=tuning.get("queueSize", QUEUE_SIZE),
            ),
        )

    @classmethod
    def for_removable(cls, fields: Fields, source: Source) -> Driver:
        """Read what a device description says of a cdrom's or floppy's driver: no caching."""
        return cls(error_policy=_error_policy(fields, source), discard=_discard(fields))


def _propagate_errors(value: Any) -> str:
    if value == "report":
        return "report"
    return "on" if BOOLEAN.convert(value) else "off"


_PROPAGATE = Kind(_propagate_errors, "one of on, report, off")


def _error_policy(fields: Fields, source: Source) -> str:
    propagate = fields.get("propagateErrors", _PROPAGATE) or "off"
    if propagate == "on":
        # A network disk has no device that could run full: every error is the guest's to know.
        return "report" if isinstance(source, NetworkSource) else "enospace"
    return "report" if propagate == "report" else "stop"


def _options(**values: str | int | None) -> tuple[tuple[str, str], ...]:
    return tuple((name, str(value)) for name, value in values.items() if value is not None)


def _discard(fields: Fields) -> str | None:
    return "unmap" if fields.get("discard", BOOLEAN) else None
