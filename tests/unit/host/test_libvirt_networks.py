# SPDX-License-Identifier: GPL-2.0-or-later
"""The networks and the filter that libvirt is given: with libvirt's test driver, which knows no
filters, so that these stand here."""

from __future__ import annotations

import logging
from types import SimpleNamespace
from typing import Any

import libvirt
import pytest
from lxml import etree

from tests.unit.host.test_capabilities import conn, net
from vdsmcinder.host import libvirt_networks, netinfo
from vdsmcinder.host.network import Network
from vdsmcinder.hypervisor.connection import Connection

assert conn and net  # fixtures


@pytest.fixture
def filters(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The documents of libvirt's filters."""
    known: list[str] = []

    def list_all(_handle: Any) -> list[Any]:
        names = [str(etree.fromstring(xml).get("name")) for xml in known]
        return [SimpleNamespace(name=lambda name=name: name) for name in names]

    monkeypatch.setattr(libvirt.virConnect, "listAllNWFilters", list_all)
    monkeypatch.setattr(
        libvirt.virConnect, "nwfilterDefineXML", lambda _handle, xml: known.append(xml)
    )
    return known


async def test_each_bridge_is_a_network_and_there_is_the_filter(
    conn: Connection, net: Network, filters: list[str]
) -> None:
    for _ in range(2):
        await libvirt_networks.prepare(conn, lambda: net)
    network = conn.handle.networkLookupByName("vdsm-ovirtmgmt")
    root = etree.fromstring(network.XMLDesc())
    assert root.find("forward").get("mode") == "bridge"
    assert root.find("bridge").get("name") == "ovirtmgmt"
    assert (network.isActive(), network.autostart()) == (1, 1)
    (filter_xml,) = filters
    parts = [part.get("filter") for part in etree.fromstring(filter_xml)]
    assert parts == ["no-mac-spoofing", "no-arp-mac-spoofing"]


async def test_one_that_does_not_run_is_started(
    conn: Connection, net: Network, filters: list[str]
) -> None:
    await libvirt_networks.prepare(conn, lambda: net)
    network = conn.handle.networkLookupByName("vdsm-ovirtmgmt")
    network.destroy()
    await libvirt_networks.prepare(conn, lambda: net)
    assert network.isActive()


async def test_a_libvirt_without_filters_is_logged(
    conn: Connection, net: Network, caplog: pytest.LogCaptureFixture
) -> None:
    await libvirt_networks.prepare(conn, lambda: net)
    (record,) = [r for r in caplog.records if r.levelno == logging.WARNING]
    assert "may not start" in record.getMessage()


def test_engines_are_not_told_of_the_bridge_of_no_network(net: Network) -> None:
    dummy = {**vars(net.links["ovirtmgmt"]), "name": netinfo.DUMMY_BRIDGE}
    links = {**net.links, netinfo.DUMMY_BRIDGE: type(net.links["ovirtmgmt"])(**dummy)}
    told = netinfo.as_dict(Network(links, "", (), ipv6=True))
    assert told["bridges"].keys() == told["networks"].keys() == {"ovirtmgmt"}
