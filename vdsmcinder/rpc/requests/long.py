# SPDX-License-Identifier: GPL-2.0-or-later
"""Reading long requests without keeping the event loop waiting."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Callable, TypeVar

from vdsmcinder.hypervisor.long_xml import LONG, MANY_DEVICES, apart

T = TypeVar("T")


async def read_aside(params: Mapping[str, Any], read: Callable[..., T], *args: Any) -> T:
    """What read(*args) gives, which reads params: in a thread, if they take long to read."""
    return await apart(_is_long(params), read, *args)


def _is_long(params: Mapping[str, Any]) -> bool:
    """Whether they hold a long document, or describe many devices."""
    xml, devices = params.get("xml"), params.get("devices")
    return (isinstance(xml, str) and len(xml) >= LONG) or (
        isinstance(devices, list) and len(devices) > MANY_DEVICES
    )
