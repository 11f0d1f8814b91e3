# SPDX-License-Identifier: GPL-2.0-or-later
"""The doctor's check of what documents of oVirt's engine take for granted of a host.

The service prepares it when it starts, and libvirt's networks also when bridges come.
"""

from __future__ import annotations

from pathlib import Path

from vdsmcinder.ceph.findings import Check, Finding
from vdsmcinder.client import system
from vdsmcinder.client.doctor.host import SERVICE, Host
from vdsmcinder.host import netinfo, network

PREPARATION = Check("preparation")
# Where the sockets of guest agents are.
CHANNELS = Path("/var/lib/libvirt/qemu/channels")


async def preparation(host: Host) -> list[Finding]:
    """Whether VMs as oVirt's engine describes them find what they name."""
    told = await host.libvirt()
    networks, filters = told.get("networks"), told.get("filters")
    if not isinstance(networks, list) or not isinstance(filters, list):
        return [PREPARATION.unknown("libvirt does not tell which networks and filters it has")]
    net, has_channels = await system.in_thread(lambda: (network.read(), CHANNELS.is_dir()))
    wanted = [netinfo.LIBVIRT_PREFIX + bridge.name for bridge in netinfo.bridges(net)]
    lacking = [
        *([] if has_channels else [f"directory {CHANNELS}"]),
        *([] if netinfo.DUMMY_BRIDGE in net.links else [f"bridge {netinfo.DUMMY_BRIDGE}"]),
        *([] if netinfo.LIBVIRT_FILTER in filters else [f"filter {netinfo.LIBVIRT_FILTER}"]),
        *(f"network {name}" for name in wanted if name not in networks),
    ]
    if not lacking:
        return [PREPARATION.ok("all is here that documents of oVirt's engine name")]
    message = f"VMs do not start whose documents name {', '.join(lacking)}: it is not here"
    return [PREPARATION.wrong(message, f"systemctl restart {SERVICE}")]
