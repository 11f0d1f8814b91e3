# SPDX-License-Identifier: GPL-2.0-or-later
"""Hosts and clients have authorities of their own: whom libvirt lets in, and how hosts get there.

The lab's hosts have them, so that every other test of migration runs by them too. host2 is set up
here as it once was documented, and then as it is now.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.base import LabError
from lab.host.daemon import CLIENT
from lab.host.hypervisor import LIBVIRT_PKI, MIGRATION_PKI, Host, certify
from lab.migrating_vm import Traveller
from lab.pki import DAEMON, LIBVIRT, QEMU
from lab.running import Lab
from tests.functional.guests import display
from tests.functional.helpers import OPTIONS, session_fixture, status
from tests.functional.two_hosts import host2, idle

pytestmark = pytest.mark.asyncio(loop_scope="session")

# Whoever is not named may do nothing; no host is.
ACCESS = {"default_role": "none", "roles": {"CN=engine,O=lab": "admin"}}
AUTHORITY = "/root/authority"
OWN = "/root/own"
CONFIGURATION = "/etc/libvirt/libvirtd.conf"


@session_fixture("module")
async def elsewhere(lab, engine):
    async with host2(lab, engine, "authorities", migration={}, access=ACCESS) as other:
        yield other


@session_fixture("module")
async def traveller(engine, elsewhere):
    """A VM that is at home on host1 between the tests."""
    async with Traveller((engine, elsewhere), display(engine)) as vm:
        yield vm


class Caller:
    """Somebody on host1 who asks libvirt of host2 for its VMs, as one of the lab's names."""

    def __init__(self, lab: Lab, name: str, trusts: Path) -> None:
        self._host, self._directory = lab.hosts["host1"], lab.directory / "caller"
        self._directory.mkdir(exist_ok=True)
        mine = lab.pki.identity(name)
        for link, target in (
            ("cacert.pem", trusts),
            ("clientcert.pem", mine.cert),
            ("clientkey.pem", mine.key),
        ):
            (self._directory / link).unlink(missing_ok=True)
            (self._directory / link).symlink_to(target)

    def vms(self) -> list[str]:
        """Their ids. Raises LabError, with what virsh says."""
        uri = f"qemu+tls://host2/system?pkipath={self._directory}"
        listing = ("list", "--all", "--uuid")
        return self._host.run(["virsh", "--quiet", "--connect", uri, *listing]).split()


async def test_of_all_certificates_libvirt_takes_those_of_hosts_libvirt_alone(lab, elsewhere):
    for name in (f"host1-{QEMU}", f"host1-{DAEMON}", "host1", "engine", "foreign"):
        with pytest.raises(LabError, match=r"certificate|end of file|connection|TLS"):
            Caller(lab, name, lab.pki.hosts_ca).vms()
    assert Caller(lab, f"host1-{LIBVIRT}", lab.pki.hosts_ca).vms() == []


async def test_a_vm_migrates_to_a_host_on_which_no_host_has_a_role(traveller, elsewhere):
    await traveller.go()
    assert "role host" in elsewhere.daemon.log.read_text()
    assert await status(elsewhere, traveller.id) == "Up"
    await traveller.go()


# --- hosts that were set up before ---------------------------------------------------------------


def set_up_as_before(lab: Lab, host: Host) -> None:
    """As the documentation once had it: one authority, one certificate, one key for all."""
    mine = lab.pki.identity(host.name)
    links = {"/etc/pki/CA/cacert.pem": lab.pki.ca}
    for end in ("server", "client"):
        links[f"{LIBVIRT_PKI}/{end}cert.pem"] = mine.cert
        links[f"{LIBVIRT_PKI}/private/{end}key.pem"] = mine.key
    for link, target in links.items():
        host.run(["ln", "--symbolic", "--force", target, link])
    host.run(["install", "--mode", "0644", lab.pki.ca, f"{MIGRATION_PKI}/ca-cert.pem"])
    for end in ("server", "client"):
        host.run(["install", "--mode", "0644", mine.cert, f"{MIGRATION_PKI}/{end}-cert.pem"])
        key = f"{MIGRATION_PKI}/{end}-key.pem"
        host.run(["install", "--mode", "0440", "--group", "kvm", mine.key, key])
    conf = host.path(CONFIGURATION)
    lines = conf.read_text().splitlines(keepends=True)
    conf.write_text("".join(line for line in lines if not line.startswith("tls_allowed_dn_list")))


@pytest.fixture
def as_before(lab: Lab) -> Iterator[Host]:
    """host2, which is as the lab made it at the end, and so is host1."""
    host = lab.hosts["host2"]
    before = host.path(CONFIGURATION).read_text()
    set_up_as_before(lab, host)
    host.restart_libvirtd()
    yield host
    host.path(CONFIGURATION).write_text(before)
    for one in lab.hosts.values():
        certify(one, lab.pki)
    host.restart_libvirtd()


def make_certificates(lab: Lab, host: Host, *more: str) -> None:
    """Have the command make them on a host, by the authority that the lab's hosts have."""
    for source, name in (
        ("hosts-ca.pem", "certs/hostscacert"),
        ("hosts-ca.key", "keys/hostscakey"),
    ):
        to = f"{AUTHORITY}/{name}.pem"
        host.run(["install", "-D", "--mode", "0600", lab.pki.directory / source, to])
    names = ("--name", host.name, "--name", host.address)
    host.run([CLIENT, "pki", "hosts", "--dir", OWN, "--ca-from", AUTHORITY, *names, *more])


def examined(daemon) -> list[dict[str, str]]:
    """What the doctor says of certificates."""
    words = [CLIENT, "doctor", "--json", "--config", daemon.config]
    said = daemon.host.run(["sh", "-c", '"$@" || true', "sh", *words])
    return [found for found in json.loads(said)["checks"] if found["check"] == "certificates"]


async def test_hosts_of_one_authority_are_given_another_while_vms_run(
    lab, traveller, elsewhere, as_before, image
):
    daemon = elsewhere.daemon
    with pytest.raises(LabError):
        Caller(lab, f"host1-{LIBVIRT}", lab.pki.ca).vms()
    # Any client is root there.
    assert Caller(lab, "engine", lab.pki.ca).vms() == []
    found = await asyncio.to_thread(examined, daemon)
    assert {one["state"] for one in found} == {"wrong"}
    assert "libvirt trusts the CA that clients have" in found[0]["message"]
    assert "the daemon takes QEMU's certificate" in found[1]["message"]
    (command,) = {one["remedy"] for one in found}
    assert command == "vdsm-cinder pki hosts --install"

    async with idle(elsewhere, image()) as vm_id:
        make_certificates(lab, as_before, "--install")
        as_before.restart_libvirtd()
        daemon.stop()
        own = {"certificate": f"{OWN}/certs/hostcert.pem", "key": f"{OWN}/keys/hostkey.pem"}
        daemon.configure({**OPTIONS, "access": ACCESS, "migration": own})
        daemon.start()
        await elsewhere.connect()
        await elsewhere.register_key()
        assert await status(elsewhere, vm_id) == "Up"
        assert {one["state"] for one in await asyncio.to_thread(examined, daemon)} == {"ok"}
    for name in ("engine", f"host1-{QEMU}"):
        with pytest.raises(LabError):
            Caller(lab, name, lab.pki.hosts_ca).vms()
    # host1's, too, is to be one that the command made: its list has no others.
    host1 = lab.hosts["host1"]
    make_certificates(lab, host1)
    for link, target in (
        ("clientcert", "certs/libvirtcert"),
        ("private/clientkey", "keys/libvirtkey"),
    ):
        there = f"{LIBVIRT_PKI}/{link}.pem"
        host1.run(["ln", "--symbolic", "--force", f"{OWN}/{target}.pem", there])
    listing = [
        "virsh",
        "--quiet",
        "--connect",
        "qemu+tls://host2/system",
        "list",
        "--all",
        "--uuid",
    ]
    assert host1.run(listing).split() == []
    await traveller.go()
    await traveller.go()
