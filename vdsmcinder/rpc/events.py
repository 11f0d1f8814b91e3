# SPDX-License-Identifier: GPL-2.0-or-later
"""What engines are told without asking: events, and who wants to hear them.

Who tells of something needs not know who listens.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Callable

from vdsmcinder.rpc import envelope
from vdsmcinder.rpc.wire.clock import monotonic_ms
from vdsmcinder.rpc.wire.common import state
from vdsmcinder.virt.vm.parts.freeze_state import LateThaw
from vdsmcinder.virt.vm.vm import VM

log = logging.getLogger(__name__)

Sink = Callable[[bytes], None]
Told = tuple[str, Mapping[str, Any]]  # name and params of an event


class Events:
    """Passes events on to all subscribers, in the order in which they were published.

    published: how many there were so far, heard by anybody or not.
    """

    def __init__(self) -> None:
        self.published = 0
        # A dict for its order; a sink is a key of its own, even if it subscribes twice.
        self._sinks: dict[object, Sink] = {}
        self._greetings: list[Callable[[], Iterable[Told]]] = []

    def publish(self, name: str, params: Mapping[str, Any]) -> None:
        """Send an event to all subscribers, stamped with notify_time.

        name: as contract/wire.md writes it, such as |virt|VM_status|<vmId>. Never raises for what
        a subscriber does: its failure is logged, and the others get the event.
        """
        self.published += 1
        if not self._sinks:
            return
        body = _encoded(name, params)
        for sink in tuple(self._sinks.values()):
            try:
                sink(body)
            except Exception:
                log.exception("event %s could not be passed on to a subscriber", name)

    def greet_with(self, greeting: Callable[[], Iterable[Told]]) -> None:
        """Have clients that subscribe told first what greeting gives, too: events that hold on."""
        if greeting not in self._greetings:
            self._greetings.append(greeting)

    def greeting(self) -> list[bytes]:
        """What a client that has subscribed just now is to be told, encoded; transports ask."""
        told = (event for greeting in self._greetings for event in greeting())
        return [_encoded(name, params) for name, params in told]

    def subscribe(self, sink: Sink) -> Callable[[], None]:
        """Have sink called with each event from now on, encoded as a JSON-RPC notification.

        The sink must not block. Returns what ends the subscription; calling it twice does no harm.
        """
        key = object()
        self._sinks[key] = sink

        def unsubscribe() -> None:
            self._sinks.pop(key, None)

        return unsubscribe


def _encoded(name: str, params: Mapping[str, Any]) -> bytes:
    return envelope.notification(name, {**params, "notify_time": monotonic_ms()})


def vm_status(vm: VM) -> tuple[str, dict[str, Any]]:
    """Name and params of the event that tells how a VM is now."""
    return f"|virt|VM_status|{vm.id}", {vm.id: {**state(vm), "hash": vm.hash}}


def host_networks() -> tuple[str, dict[str, Any]]:
    """Name and params of the event that has engines read the host's capabilities again."""
    return "|net|host_conn|no_id", {}


def secrets_missing(uuids: Collection[str]) -> tuple[str, dict[str, Any]]:
    """Name and params of the event that asks for keys; with none once they are there again."""
    # oVirt's engine drops events whose names have less than three parts.
    return f"|host|secrets_missing|{platform.node()}", {"uuids": list(uuids)}


def vm_image_taken(vm: VM) -> tuple[str, dict[str, Any]]:
    """Name and params of the event that tells that another host has a paused VM's image."""
    return f"|virt|VM_image_taken|{vm.id}", {vm.id: {"reason": vm.taken}}


def vm_thawed(vm: VM, late: LateThaw) -> tuple[str, dict[str, Any]]:
    """Name and params of the event that tells that a guest was left frozen for too long."""
    told: dict[str, Any] = {"thawed": late.failure is None, "frozenSeconds": late.frozen_s}
    if late.failure is not None:
        told["reason"] = late.failure
    return f"|virt|VM_thawed|{vm.id}", {vm.id: told}
