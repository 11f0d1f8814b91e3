# SPDX-License-Identifier: GPL-2.0-or-later
"""NICs of a running VM: plugged, changed, unplugged, as the guest and the host's bridges see it."""

from __future__ import annotations

import json
import time

import pytest

from lab.base import LabError
from lab.engine import new_id
from tests.functional.helpers import eventually, refused

pytestmark = pytest.mark.asyncio(loop_scope="session")

MAC = "52:54:00:77:00:01"
BRIDGES = ("vms0", "vms1")


@pytest.fixture(scope="module", autouse=True)
def bridges(host):
    """Two networks for VMs on the host, as an engine would have set them up."""
    for name in BRIDGES:
        host.run(["ip", "link", "add", name, "type", "bridge"])
        host.run(["ip", "link", "set", name, "up"])
    yield
    for name in BRIDGES:
        host.run(["ip", "link", "del", name])


def nic(**changes):
    described = {
        "type": "interface",
        "device": "bridge",
        "network": BRIDGES[0],
        "macAddr": MAC,
        "nicModel": "pv",
        "deviceId": new_id(),
        **changes,
    }
    return {name: value for name, value in described.items() if value is not None}


def ports(host, bridge):
    """The devices that are on a bridge."""
    links = json.loads(host.run(["ip", "-json", "link", "show", "master", bridge]) or "[]")
    return [link["ifname"] for link in links]


async def carrier(guest):
    return await guest.shell("cat /sys/class/net/eth0/carrier")


async def network(guest):
    """The NIC's statistics, from the first sample that has it."""

    async def sampled():
        return (await guest.stats())["network"]

    found = await eventually(sampled, "a sample that has the NIC")
    (only,) = found.values()
    return only


async def test_a_nic_is_plugged_changed_and_unplugged(guest, host):
    described = nic()
    before = (await guest.stats())["hash"]
    info = await guest.call("hotplugNic", params={"vmId": guest.id, "nic": described})
    assert info["vmId"] == guest.id
    assert await guest.says(r"^nic eth0 added (\S+)") == MAC
    (device,) = ports(host, BRIDGES[0])
    stats = await guest.stats()
    assert stats["hash"] != before
    told = await network(guest)
    assert (told["name"], told["macAddr"], told["state"]) == (device, MAC, "up")
    assert await carrier(guest) == "1"

    alias = f"ua-{described['deviceId']}"
    await guest.call(
        "updateDevice", params={"deviceType": "interface", "alias": alias, "linkActive": False}
    )
    assert await carrier(guest) == "0"
    assert (await network(guest))["state"] == "down"
    change = {
        "deviceType": "interface",
        "alias": alias,
        "linkActive": "true",
        "network": BRIDGES[1],
    }
    await guest.call("updateDevice", params=change)
    assert await carrier(guest) == "1"
    assert (ports(host, BRIDGES[0]), ports(host, BRIDGES[1])) == ([], [device])
    await guest.call(
        "updateDevice", params={"deviceType": "interface", "alias": alias, "network": ""}
    )
    assert await carrier(guest) == "0"

    await guest.call("hotunplugNic", params={"vmId": guest.id, "nic": {"alias": alias}})
    await guest.says("^nic eth0 removed")
    assert ports(host, BRIDGES[1]) == []
    assert (await guest.stats())["hash"] == before


async def test_a_nic_as_xml(guest, host):
    xml = f"""<hotplug><devices><interface type='bridge'><mac address='{MAC}'/>
        <source bridge='{BRIDGES[1]}'/><model type='virtio'/><link state='down'/>
        <alias name='ua-{new_id()}'/></interface></devices></hotplug>"""
    await guest.call("hotplugNic", params={"vmId": guest.id, "xml": xml})
    await guest.says("^nic eth0 added")
    assert await carrier(guest) == "0"
    change = f"""<devices><interface type='bridge'><mac address='{MAC}'/>
        <source bridge='{BRIDGES[0]}'/><link state='up'/></interface></devices>"""
    await guest.call("updateDevice", params={"deviceType": "interface", "xml": change})
    assert await carrier(guest) == "1"
    assert len(ports(host, BRIDGES[0])) == 1
    await guest.call("hotunplugNic", params={"vmId": guest.id, "xml": xml})
    await guest.says("^nic eth0 removed")


async def test_what_is_refused(guest):
    async def plug(**changes):
        await guest.call("hotplugNic", params={"vmId": guest.id, "nic": nic(**changes)})

    with refused(49, "nobridge", "which is as it was"):
        await plug(network="nobridge")
    with refused(11, "network is missing"):
        await plug(network=None)
    with refused(91, "macAddr is a string of 1 character", "a MAC address"):
        await plug(macAddr="x")
    with refused(50, MAC, "is not plugged"):
        await guest.call("hotunplugNic", params={"vmId": guest.id, "nic": {"macAddr": MAC}})
    with refused(56, "ua-none", "is not plugged"):
        params = {"deviceType": "interface", "alias": "ua-none", "linkActive": True}
        await guest.call("updateDevice", params=params)
    with refused(56, "neither interface nor graphics"):
        await guest.call("updateDevice", params={"deviceType": "sound", "alias": "ua-none"})
    with refused(75, "portMirroring"):
        params = {"deviceType": "interface", "alias": "ua-none", "portMirroring": ["net"]}
        await guest.call("updateDevice", params=params)

    await plug()
    await guest.says("^nic eth0 added")
    with refused(49, MAC, "plugged into VM", "already"):
        await plug()
    with refused(56, "nobridge"):
        other = f"<mac address='{MAC}'/><source bridge='nobridge'/>"
        xml = f"<interface type='bridge'>{other}</interface>"
        await guest.call("updateDevice", params={"deviceType": "interface", "xml": xml})
    await guest.call("hotunplugNic", params={"vmId": guest.id, "nic": {"macAddr": MAC.upper()}})
    await guest.says("^nic eth0 removed")


async def test_a_guest_that_keeps_its_nic(guest):
    await guest.call("hotplugNic", params={"vmId": guest.id, "nic": nic()})
    await guest.says("^nic eth0 added")
    guest.console.ask("deaf", "^deaf$")
    try:
        with refused(50, MAC, "is still plugged into", "did not let go of it within 6 s"):
            await guest.call("hotunplugNic", params={"vmId": guest.id, "nic": {"macAddr": MAC}})
        with pytest.raises(LabError):
            guest.console.wait_for("^nic eth0 removed", 0.1)
    finally:
        guest.console.ask("hear", "^hearing$")
    await guest.says("^nic eth0 removed")


async def test_a_network_of_the_host_that_comes_and_goes_is_told(engine, host):
    async def after(*command):
        """The host's networks when it was told that they changed, since the command was run."""
        began_ms = time.monotonic() * 1000
        host.run(["ip", "link", *command])

        def of_it(event):
            is_told = event["method"] == "|net|host_conn|no_id"
            return is_told and event["params"]["notify_time"] > began_ms

        await engine.session.wait_for_event(of_it, 60)
        return (await engine.call("Host.getCapabilities"))["networks"]

    assert "vms2" in await after("add", "vms2", "type", "bridge")
    assert "vms2" not in await after("del", "vms2")


async def test_a_nic_as_ovirts_engine_describes_it(engine, guest, host):
    """On libvirt's network for the bridge, with the filter against forged addresses."""

    async def prepared():
        return f"vdsm-{BRIDGES[0]}" in host.virsh("net-list", "--name")

    await eventually(prepared, "libvirt to know the network")
    xml = f"""<hotplug><devices><interface type='network'>
        <mac address='{MAC}'/><source network='vdsm-{BRIDGES[0]}'/><model type='virtio'/>
        <filterref filter='vdsm-no-mac-spoofing'/><alias name='ua-engine'/>
    </interface></devices></hotplug>"""
    await guest.call("hotplugNic", params={"vmId": guest.id, "xml": xml})
    assert (await guest.stats())["network"] is not None
    await guest.call("hotunplugNic", params={"vmId": guest.id, "xml": xml})
