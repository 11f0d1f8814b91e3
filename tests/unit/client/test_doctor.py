# SPDX-License-Identifier: GPL-2.0-or-later
"""The doctor's words: commands for each kind of system, what libvirt's refusals mean, how it ends.

What it finds on real hosts is in tests/functional/test_doctor.py and test_systemd.py.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import time
from typing import Any

import pytest

from tests.unit.host.test_capabilities import net
from vdsmcinder.ceph.findings import Check
from vdsmcinder.client import cli, system
from vdsmcinder.client.doctor import autostart, preparation
from vdsmcinder.client.doctor import host as doctor_host
from vdsmcinder.client.doctor import libvirt as doctor_libvirt
from vdsmcinder.client.doctor import run as doctor
from vdsmcinder.client.doctor.run import Examination
from vdsmcinder.config import Config, Listen
from vdsmcinder.host import netinfo, network
from vdsmcinder.transport.certificates import Held, Owner

assert net  # a fixture

CENTOS = 'ID="centos"\nID_LIKE="rhel fedora"\n'
DEBIAN = "ID=debian\n"
UBUNTU = "ID=ubuntu\nID_LIKE=debian\n"
DRIVER = ("qemu-kvm-block-rbd", "qemu-block-extra")


@pytest.fixture
def os_release(tmp_path, monkeypatch):
    monkeypatch.setattr(system, "OS_RELEASE", tmp_path / "os-release")
    return tmp_path / "os-release"


@pytest.mark.parametrize(
    ("text", "command"),
    [
        (CENTOS, "dnf install qemu-kvm-block-rbd"),
        (DEBIAN, "apt-get install qemu-block-extra"),
        (UBUNTU, "apt-get install qemu-block-extra"),
    ],
)
def test_packages_have_the_names_of_the_system(os_release, text, command):
    os_release.write_text(text)
    assert system.install(*DRIVER) == command


def test_libvirt_is_the_one_that_the_host_has(tmp_path, monkeypatch):
    etc, usr = tmp_path / "etc", tmp_path / "usr"
    monkeypatch.setattr(system, "_UNITS", (etc, usr))
    modular = "virtqemud virtsecretd virtstoraged virtnetworkd virtnwfilterd"
    assert system.libvirt_units() == modular
    usr.mkdir()
    (usr / "libvirtd.service").touch()
    assert system.libvirt_units() == "libvirtd"
    # EL has both, and enables the modular one.
    (etc / "sockets.target.wants").mkdir(parents=True)
    (etc / "sockets.target.wants/virtqemud.socket").touch()
    assert system.libvirt_units() == modular


@pytest.mark.parametrize(
    "said",
    [
        "authentication unavailable: no polkit agent available to authenticate action",
        "authentication failed: access denied by policy",
        "Failed to connect socket to '/run/libvirt/virtqemud-sock': Permission denied",
    ],
)
def test_a_user_whom_libvirt_does_not_let_in(os_release, tmp_path, monkeypatch, said):
    os_release.write_text(CENTOS)
    monkeypatch.setattr(doctor_libvirt, "POLKIT_RULES", (tmp_path / "rule",))
    (found,) = asyncio.run(doctor_libvirt.libvirt(host(error=said)))
    assert "refuses the daemon's user" in found.message
    assert found.remedy == "dnf reinstall vdsm-cinder"
    (tmp_path / "rule").touch()
    (found,) = asyncio.run(doctor_libvirt.libvirt(host(error=said)))
    assert found.remedy == "systemctl restart polkit"


def host(**told):
    """A host whose libvirt tells this."""

    class Told(doctor_host.Host):
        async def libvirt(self):
            return told

    daemon: Any = None
    return Told(Config(), "", "", "", daemon)


def test_a_libvirt_of_which_a_part_does_not_answer():
    told = {"version": 9_000_000, "kvm": "", "secrets": {"error": "no virtsecretd-sock"}}
    (found,) = asyncio.run(doctor_libvirt.libvirt(host(**told)))
    assert (found.state.value, "no virtsecretd-sock" in found.message) == ("wrong", True)
    (found,) = asyncio.run(doctor_libvirt.secrets(host(**told)))
    assert found.state.value == "not checked"


@pytest.fixture
def bridge(net, monkeypatch):
    """A host with a bridge ovirtmgmt and the one for NICs on no network."""
    dummy = dataclasses.replace(net.links["ovirtmgmt"], name=netinfo.DUMMY_BRIDGE)
    links = {**net.links, dummy.name: dummy}
    monkeypatch.setattr(network, "read", lambda: dataclasses.replace(net, links=links))


@pytest.mark.parametrize(
    ("has", "lacks"),
    [
        (("vdsm-ovirtmgmt", "vdsm-no-mac-spoofing"), ""),
        (("default", "vdsm-no-mac-spoofing"), "network vdsm-ovirtmgmt"),
        (("vdsm-ovirtmgmt", "no-mac-spoofing"), "filter vdsm-no-mac-spoofing"),
    ],
)
def test_what_ovirts_documents_name(bridge, tmp_path, monkeypatch, has, lacks):
    told = {"networks": [has[0]], "filters": [has[1]]}
    monkeypatch.setattr(preparation, "CHANNELS", tmp_path)
    (found,) = asyncio.run(preparation.preparation(host(**told)))
    assert (found.state.value == "ok", lacks in found.message) == (not lacks, True)
    monkeypatch.setattr(preparation, "CHANNELS", tmp_path / "none")
    (found,) = asyncio.run(preparation.preparation(host(**told)))
    assert found.message.startswith(f"VMs do not start whose documents name directory {tmp_path}")
    assert lacks in found.message
    assert found.remedy == "systemctl restart vdsm-cinderd.service"


@pytest.fixture
def quiet(tmp_path, monkeypatch, os_release):
    """A Debian with libvirt-guests, which our drop-in holds, and nothing in libvirt's files."""
    os_release.write_text(DEBIAN)
    monkeypatch.setattr(autostart, "QEMU_CONF", tmp_path / "qemu.conf")
    shown = {
        "LoadState": "loaded",
        "UnitFileState": "enabled",
        "ActiveState": "inactive",
        "DropInPaths": "/usr/lib/systemd/system/libvirt-guests.service.d/50-vdsm-cinder.conf",
    }

    async def unit(name, *_):
        return shown if name == "libvirt-guests.service" else {}

    monkeypatch.setattr(system, "unit", unit)
    return shown


def starts(**vm):
    return asyncio.run(autostart.autostart(host(domains=[{"name": "web", "xml": "", **vm}])))


def test_nobody_else_starts_vms(quiet):
    (found,) = starts(autostart=False, saved=False)
    assert found.state.value == "ok"
    quiet.update(LoadState="not-found", DropInPaths="")
    assert starts()[0].state.value == "ok"
    quiet.update(LoadState="loaded", UnitFileState="disabled")
    assert starts()[0].state.value == "ok"


@pytest.mark.parametrize(
    ("vm", "remedy"),
    [
        ({"autostart": True}, "virsh autostart --disable web"),
        ({"saved": True}, "virsh managedsave-remove web"),
    ],
)
def test_a_vm_that_libvirt_starts(quiet, vm, remedy):
    (found,) = starts(**vm)
    assert (found.state.value, found.remedy) == ("wrong", remedy)


@pytest.mark.parametrize("state", [{"UnitFileState": "disabled"}, {"ActiveState": "inactive"}])
def test_a_service_that_starts_vms(quiet, state):
    quiet.update({"DropInPaths": "/etc/systemd/system/x.conf", "ActiveState": "active", **state})
    (found,) = starts()
    assert (found.state.value, found.remedy) == ("wrong", "make install")


def test_a_libvirt_that_ends_vms_with_the_host(quiet, tmp_path):
    options = '#auto_shutdown_try_save = "all"\nauto_shutdown_poweroff = "none"\n'
    (tmp_path / "qemu.conf").write_text(options)
    assert starts()[0].state.value == "ok"
    (tmp_path / "qemu.conf").write_text(options + 'auto_shutdown_try_save = "persistent"\n')
    (found,) = starts()
    assert found.message.startswith("libvirt's auto_shutdown_try_save in ")
    assert found.remedy.startswith("set auto_shutdown_try_save to none")


def test_a_libvirt_that_does_not_tell_what_it_has():
    (found,) = asyncio.run(preparation.preparation(host(networks=[], filters={"error": "no"})))
    assert found.state.value == "not checked"


@pytest.mark.parametrize(
    ("days", "state", "words"),
    [(-1, "wrong", "has expired"), (29.6, "warning", "valid for 30 days"), (31, "ok", "31 days")],
)
def test_how_long_certificates_last(days, state, words):
    held = Held(Owner.HOST, "cert.pem", "", time.time() + days * 86400 + 10)
    found = doctor_host._of_held(held, Listen())
    assert (found.state.value, words in found.message) == (state, True)
    assert (found.remedy == "vdsm-cinder pki renew --reload") is (state != "ok")


# How it ends


def run(monkeypatch, capsys, *looks, words=()):
    """The doctor with these checks alone: its exit code and what it printed."""
    examinations = [Examination(f"check{n}", look, "slow") for n, look in enumerate(looks)]
    monkeypatch.setattr(doctor, "_examinations", lambda wanted: examinations)
    code = cli.main(["doctor", "--config", "/dev/null", *words])
    return code, capsys.readouterr()


def finds(how, *words):
    async def look(host):
        return [getattr(Check("thing"), how)(*words)]

    return look


@pytest.mark.parametrize(
    ("looks", "code", "err"),
    [
        ([finds("ok", "good")], 0, ""),
        ([finds("ok", "good"), finds("unknown", "dark")], 6, "not checked: thing"),
        ([finds("warning", "odd", "do"), finds("ok", "good")], 6, "warning: thing"),
        ([finds("warning", "odd", "do"), finds("wrong", "bad", "mend")], 7, "wrong: thing"),
    ],
)
def test_the_exit_code_tells(monkeypatch, capsys, looks, code, err):
    ended, printed = run(monkeypatch, capsys, *looks)
    assert (ended, printed.err) == (code, f"vdsm-cinder: {err}\n" if err else "")


def test_what_mends_it_stands_on_a_line_of_its_own(monkeypatch, capsys):
    _, printed = run(monkeypatch, capsys, finds("wrong", "bad\033[2J", "rm x"))
    first, second = printed.out.splitlines()
    assert first.split() == ["wrong", "thing", "bad?[2J"]
    assert second.strip() == "mend: rm x"


def test_a_check_that_never_ends_is_given_up(monkeypatch, capsys):
    async def hangs(host):
        await system.run("sleep", "1000")

    words = ("--timeout", "1.2", "--json")
    began = time.monotonic()
    code, printed = run(monkeypatch, capsys, hangs, finds("ok", "good"), words=words)
    assert time.monotonic() - began < 10
    first, second = json.loads(printed.out)["checks"]
    assert (code, first["message"], first["remedy"]) == (7, "no answer within 1.2 s", "slow")
    assert second["state"] == "ok"
    assert printed.err.startswith("… check0, for 1 s\n")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("web", "--disk", "-"), "not both"),
        (("--keyring", "-"), "name a VM, or give --disk"),
        (("--disk", "-", "--keyring", "-"), "can be stdin"),
        (("--host", "node7"), "without --host"),
    ],
)
def test_words_that_do_not_fit(capsys, words, told):
    assert cli.main(["doctor", *words]) == 2
    assert told in capsys.readouterr().err
