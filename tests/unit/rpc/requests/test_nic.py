# SPDX-License-Identifier: GPL-2.0-or-later
"""The parameters of the NIC verbs in both forms, and finding the NIC that they mean."""

from __future__ import annotations

import pytest
from lxml import etree

from vdsmcinder.errors import InvalidParameter, MissingParameter, UnsupportedOperation
from vdsmcinder.rpc.requests.nic import read_change, read_plug, read_unplug
from vdsmcinder.virt.live.nic_query import NicQuery

MAC = "52:54:00:77:00:0A"
ID = "6d5b02f4-55d6-4b4a-8a53-4b1a7ac44f01"
LIVE = f"""
<interface type='bridge'><mac address='{MAC.lower()}'/>
  <source network='old' portid='1' bridge='br0'/><target dev='vnet0'/><model type='virtio'/>
  <filterref filter='clean'/><link state='up'/><alias name='ua-{ID}'/></interface>
"""
NIC = f"<interface type='bridge'><mac address='{MAC}'/><source bridge='br1'/></interface>"


def changed(**params):
    """What VM.updateDevice makes of a NIC that runs."""
    interface = etree.fromstring(LIVE)
    read_change({"alias": f"ua-{ID}", **params}).apply(interface)
    return interface


def test_a_description_to_plug():
    nic = {
        "network": "br1",
        "macAddr": MAC,
        "nicModel": "pv",
        "linkActive": "false",
        "deviceId": ID,
    }
    interface = read_plug({"vmId": "x", "nic": nic})
    assert interface.find("source").attrib == {"bridge": "br1"}
    assert interface.find("mac").get("address") == MAC
    assert interface.find("model").get("type") == "virtio"
    assert interface.find("link").get("state") == "down"
    assert interface.find("alias").get("name") == f"ua-{ID}"


@pytest.mark.parametrize("xml", [NIC, f"<hotplug><devices>{NIC}</devices></hotplug>"])
def test_a_document_to_plug(xml):
    assert read_plug({"vmId": "x", "xml": xml}).find("mac").get("address") == MAC
    assert read_unplug({"vmId": "x", "xml": xml}) == NicQuery(mac=MAC)


@pytest.mark.parametrize(
    ("query", "found"),
    [
        (NicQuery(alias=f"ua-{ID}"), True),
        (NicQuery(mac=MAC), True),
        (NicQuery(alias="ua-other", mac=MAC), True),
        (NicQuery(alias="ua-other"), False),
        (NicQuery(mac=MAC.replace("77", "78")), False),
    ],
)
def test_which_nic_is_meant(query, found):
    interfaces = [etree.fromstring("<interface/>"), etree.fromstring(LIVE)]
    assert query.find(interfaces) is (interfaces[1] if found else None)


def test_an_alias_counts_more_than_an_address():
    other = etree.fromstring(LIVE.replace(ID, "other"))
    meant = etree.fromstring(LIVE)
    assert NicQuery(f"ua-{ID}", MAC).find([other, meant]) is meant


def test_a_change_of_the_network():
    interface = changed(network="br7")
    assert interface.find("source").attrib == {"bridge": "br7"}
    assert interface.find("link").get("state") == "up"
    assert interface.find("target").get("dev") == "vnet0"


def test_a_change_of_the_link_alone():
    interface = changed(linkActive=False)
    assert interface.find("link").get("state") == "down"
    assert interface.find("source").get("portid") == "1"


@pytest.mark.parametrize("network", ["", None])
def test_no_network_is_no_link(network):
    assert changed(network=network, linkActive=True).find("link").get("state") == "down"


def test_a_filter_takes_the_place_of_another():
    parameters = [{"name": "IP", "value": "192.0.2.1"}]
    (filterref,) = changed(filter="clean-traffic", filterParameters=parameters).findall("filterref")
    assert filterref.get("filter") == "clean-traffic"
    assert filterref.find("parameter").attrib == {"name": "IP", "value": "192.0.2.1"}


def test_a_change_as_a_document():
    xml = NIC.replace("</interface>", "<link state='down'/></interface>")
    interface = etree.fromstring(LIVE)
    change = read_change({"deviceType": "interface", "xml": xml})
    change.apply(interface)
    assert change.query == NicQuery(mac=MAC)
    assert interface.find("source").attrib == {"bridge": "br1"}
    assert interface.find("link").get("state") == "down"
    assert interface.find("filterref").get("filter") == "clean"


@pytest.mark.parametrize(
    ("read", "params", "error", "words"),
    [
        (read_plug, {}, MissingParameter, "xml is missing; expected the description of one NIC"),
        (read_plug, {"nic": {}}, MissingParameter, "network is missing"),
        (read_plug, {"nic": {"network": "a/b"}}, InvalidParameter, "the name of a bridge"),
        (read_plug, {"xml": "<devices/>"}, InvalidParameter, "holds 0 interfaces"),
        (read_plug, {"xml": f"<d>{NIC}{NIC}</d>"}, InvalidParameter, "holds 2 interfaces"),
        (read_unplug, {"nic": {"network": "br0"}}, MissingParameter, "an alias, a deviceId"),
        (read_change, {"linkActive": True}, MissingParameter, "alias is missing"),
        (read_change, {"alias": "a", "linkActive": "up"}, InvalidParameter, "true or false"),
        (read_change, {"alias": "a", "portMirroring": ["n"]}, UnsupportedOperation, "mirroring"),
        (
            read_change,
            {"alias": "a", "filter": "f", "filterParameters": [{"name": "IP"}]},
            MissingParameter,
            "filterParameters[0].value is missing",
        ),
    ],
)
def test_refused(read, params, error, words):
    with pytest.raises(error) as caught:
        read(params)
    assert words in caught.value.message
