# SPDX-License-Identifier: GPL-2.0-or-later
from __future__ import annotations

import pytest

from cinderengine.errors import Invalid
from cinderengine.volumes.addresses import CinderAddress, PoolAddress, keystone_v3


@pytest.mark.parametrize(
    ("url", "root", "project"),
    [
        ("http://c:8776", "http://c:8776", ""),
        (" http://c:8776/ ", "http://c:8776", ""),
        ("http://c:8776/v3", "http://c:8776", ""),
        ("http://c:8776/v3/", "http://c:8776", ""),
        ("http://c:8776/v3/abc", "http://c:8776", "abc"),
        ("https://cloud/volume", "https://cloud/volume", ""),
        ("https://cloud/volume/v3/abc/", "https://cloud/volume", "abc"),
        ("https://[fd00::1]:8776/v3.0", "https://[fd00::1]:8776", ""),
    ],
)
def test_where_a_cinder_is(url, root, project):
    address = CinderAddress.of(url)
    assert (address.root, address.project, address.v3) == (root, project, f"{root}/v3")


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("", "not the URL of an HTTP server"),
        ("c:8776", "not the URL of an HTTP server"),
        ("ftp://c", "not the URL of an HTTP server"),
        ("http://", "not the URL of an HTTP server"),
        ("http://c\n:port", "not the URL of an HTTP server"),
        ("http://c:99999", "not the URL of an HTTP server"),
        ("http://c:8776/v2", "version 2"),
        ("http://c:8776/v1/abc", "version 1"),
        ("http://c:8776/v3/abc/volumes", "after the project"),
        ("http://c:8776?a=b", "more than a path"),
        ("http://c:8776/#a", "more than a path"),
        ("http://user:secret@c:8776", "has a user in it"),
        ("ftp://user:secret@c:8776", "not the URL of an HTTP server"),
    ],
)
def test_where_no_cinder_is(url, words):
    with pytest.raises(Invalid) as caught:
        CinderAddress.of(url)
    assert words in caught.value.detail
    assert "secret" not in caught.value.detail
    assert "\n" not in caught.value.detail


@pytest.mark.parametrize(
    ("url", "v3"),
    [
        ("http://k:5000", "http://k:5000/v3"),
        ("http://k:5000/v3/", "http://k:5000/v3"),
        ("https://cloud/identity", "https://cloud/identity/v3"),
    ],
)
def test_where_keystone_is(url, v3):
    assert keystone_v3(url) == v3


def test_a_keystone_of_old():
    with pytest.raises(Invalid, match=r"version 2\.0 .* with /v3"):
        keystone_v3("http://k:5000/v2.0")


@pytest.mark.parametrize(
    ("url", "mon_host", "pool"),
    [
        ("rbd://mon1,mon2:6789,[::1]:3300/pool", "mon1,mon2:6789,[::1]:3300", "pool"),
        ("RBD://10.0.0.1/my.pool-1/", "10.0.0.1", "my.pool-1"),
        ("rbd://mon1, mon2/pool", "mon1,mon2", "pool"),
        ("rbd://[fd00::1]/pool", "[fd00::1]", "pool"),
    ],
)
def test_where_a_pool_is(url, mon_host, pool):
    address = PoolAddress.of(url)
    assert (address.mon_host, address.pool) == (mon_host, pool)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("rbd:mon/pool", "not the URL of a Ceph pool"),
        ("rbd://mon", "not the URL of a Ceph pool"),
        ("rbd://mon/", "not the URL of a Ceph pool"),
        ("rbd:///pool", "not the URL of a Ceph pool"),
        ("rbd://mon/pool/image", "name of a pool"),
        ("rbd://mon/my pool", "name of a pool"),
        ("rbd://user:secret@mon/pool", "has a user in it"),
        ("rbd://mon1,,mon2/pool", "''"),
        ("rbd://mon1:/pool", "'mon1:'"),
        ("rbd://mon1:0/pool", "'mon1:0'"),
        ("rbd://mon1:65536/pool", "'mon1:65536'"),
        ("rbd://mon1:port/pool", "'mon1:port'"),
        ("rbd://1.2.3/pool", "'1.2.3'"),
        ("rbd://fd00::1/pool", "'fd00::1'"),
        ("rbd://[10.0.0.1]/pool", "'[10.0.0.1]'"),
        ("rbd://[fe80::1%eth0]/pool", "'[fe80::1%eth0]'"),
        ("rbd://-mon/pool", "'-mon'"),
        ("rbd://mon=x/pool", "'mon=x'"),
        ("rbd://mon\nkeyring=x/pool", "'mon\\nkeyring=x'"),
        ("rbd://mon/po\nol", "rbd://mon/po?ol"),
    ],
)
def test_where_no_pool_is(url, words):
    with pytest.raises(Invalid) as caught:
        PoolAddress.of(url)
    assert words in caught.value.detail
    assert "secret" not in caught.value.detail
    assert "\n" not in caught.value.detail
