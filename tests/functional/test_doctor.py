# SPDX-License-Identifier: GPL-2.0-or-later
"""vdsm-cinder doctor on a host of the lab: that all is well, and each thing that can be wrong.

On host2, where things are broken one by one; test_systemd.py runs it as a package installed it.
"""

from __future__ import annotations

import asyncio
import json
import signal
import time
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from lab.base import wait_until
from lab.engine import Engine, new_id, secret_params
from lab.host.daemon import CLIENT, HostDaemon
from tests.functional.helpers import (
    OPTIONS,
    SILENT_MONITOR,
    absent_disk,
    ask,
    booted,
    eventually,
    new_image,
    refused,
    session_fixture,
    silent_monitor,
)
from tests.functional.test_ceph_faults import RBD_DRIVER

pytestmark = pytest.mark.asyncio(loop_scope="session")

OK, UNSURE, UNWELL = 0, 6, 7
CHECKS = (
    *("configuration", "daemon", "port 54321", "certificates", "libvirt", "KVM", "QEMU"),
    *("librbd", "secrets", "preparation", "autostart"),
)
STEPS = ("secret", "monitors", "user", "pool", "image", "features", "use")


@dataclass(frozen=True)
class Outcome:
    """How the doctor ended, and what it printed."""

    code: int
    out: str
    err: str

    def finding(self, check):
        """What it tells of a check, of which there is one."""
        (found,) = [f for f in json.loads(self.out)["checks"] if f["check"] == check]
        return found

    def states(self):
        """The state of each check."""
        return {f["check"]: f["state"] for f in json.loads(self.out)["checks"]}

    def bad(self):
        """The checks that are not ok."""
        return [check for check, state in self.states().items() if state != "ok"]

    def tells(self, check, state, message, remedy):
        """That a check ended so, in these words."""
        found = self.finding(check)
        assert found["state"] == state, found
        assert message in found["message"], found
        assert remedy in found["remedy"], found


class Patient:
    """host2, its daemon and its engine, and the doctor who looks at them."""

    def __init__(self, lab, daemon, engine):
        self.lab, self.daemon, self.engine = lab, daemon, engine
        self.host = daemon.host

    async def doctor(self, *words, stdin="", as_json=True):
        process = self.host.popen(
            [CLIENT, "doctor", "--config", self.daemon.config, *(["--json"] * as_json), *words],
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            text=True,
        )
        out, err = await asyncio.to_thread(process.communicate, stdin, 60)
        assert self.lab.ceph.key not in out + err
        return Outcome(process.returncode, out, err)

    async def of_disk(self, *words, **changes):
        """What it tells of an engine's disk, described by stdin; of 'volume-x' unless said."""
        disk = self.engine.disk(changes.pop("image", "volume-x"), **changes)
        return await self.doctor("--disk", "-", *words, stdin=json.dumps(disk))


# What the unit does before it starts the daemon.
PREPARE = (
    "mkdir -p /var/lib/libvirt/qemu/channels; "
    "test -e '/sys/class/net/;vdsmdummy;' || ip link add ';vdsmdummy;' type bridge"
)


@session_fixture("module")
async def patient(lab):
    lab.hosts["host2"].run(["sh", "-c", PREPARE])
    with HostDaemon(lab.hosts["host2"], lab.pki, OPTIONS, "doctor") as daemon:
        async with Engine(lab, daemon) as engine:
            await engine.register_key()
            yield Patient(lab, daemon, engine)
            await engine.call("Host.registerSecrets", secrets=[], clear=True)


@session_fixture("module")
async def vm(patient):
    """A VM that runs; no test here changes it."""
    async with booted(patient.engine) as machine:
        yield machine


@pytest.fixture
def keyring(lab, patient):
    """A file with the key of the lab's Ceph user."""
    file = patient.daemon.directory / "keyring"
    file.write_text(f"[client.cinder]\n\tkey = {lab.ceph.key}\n")
    yield file
    file.unlink()


@contextmanager
def stopped(daemon):
    daemon.stop()
    try:
        yield
    finally:
        daemon.start()


@asynccontextmanager
async def without_daemon(patient):
    """The daemon is stopped; in the end it has its engine and its key again."""
    with stopped(patient.daemon):
        yield
    await patient.engine.connect()
    await patient.engine.register_key()


# All is well


async def test_says_that_all_is_well(patient, vm):
    async def well():
        # A monitor may have been started by another test just now.
        found = await patient.doctor(vm.id[:8])
        return found if "vda monitors" not in found.bad() else None

    found = await eventually(well, "all monitors to answer")
    steps = tuple(f"vda {step}" for step in STEPS)
    assert (found.code, found.bad()) == (OK, []), found
    assert tuple(found.states()) == (*CHECKS, *steps)
    assert json.loads(found.out)["state"] == "ok"
    found.tells("KVM", "ok", "there is no /dev/kvm", "")
    found.tells("vda monitors", "ok", "all answer: 10.77.0.11, 10.77.0.12, 10.77.0.13", "")
    found.tells("vda image", "ok", f"volumes/{vm.image} exists, 64 MiB", "")
    found.tells("vda features", "ok", "layering", "")
    found.tells("vda use", "ok", f" at {patient.host.address}, as it is while the VM runs", "")


async def test_prints_a_line_for_each_check(patient):
    found = await patient.doctor(as_json=False)
    assert (found.code, found.err) == (OK, "")
    words = [line.split(maxsplit=1) for line in found.out.splitlines()]
    assert [state for state, _ in words] == ["ok"] * len(CHECKS)
    assert all(rest.startswith(check) for (_, rest), check in zip(words, CHECKS))


async def test_a_disk_that_was_looked_at_can_be_used_at_once(patient, vm):
    with new_image(patient.engine) as image:
        assert (await check(patient.engine, patient.engine.disk(image)))["use"]["state"] == "ok"
        disk = patient.engine.disk(image)
        params = {"vmId": vm.id, "drive": disk}
        await patient.engine.call("VM.hotplugDisk", vmID=vm.id, params=params)
        await patient.engine.call("VM.hotunplugDisk", vmID=vm.id, params=params)


# Disks


async def test_names_what_is_wrong_with_a_disk(patient):
    found = await patient.of_disk()
    assert (found.code, found.err) == (UNWELL, "vdsm-cinder: wrong: vda image\n")
    found.tells("vda image", "wrong", "the image does not exist in its pool", "'rbd info'")
    states = found.states()
    assert [states[f"vda {step}"] for step in STEPS[:4]] == ["ok"] * 4
    assert [states[f"vda {step}"] for step in STEPS[5:]] == ["not checked"] * 2


async def test_the_verb_names_each_cause(patient, vm, lab):
    engine, ceph = patient.engine, lab.ceph
    caps = ("mon", "profile rbd", "osd", "profile rbd-read-only pool=volumes")
    keys = {
        "reader": ceph.ceph("auth", "get-or-create-key", "client.reader", *caps).strip(),
        "cinder": ceph.key_of("client.admin"),
    }
    secrets = {user: new_id() for user in keys}
    params = [secret_params(secrets[user], key) for user, key in keys.items()]
    await engine.call("Host.registerSecrets", secrets=params)
    unknown = new_id()
    dead = {"name": "10.77.0.11", "port": "9", "transport": "tcp"}
    register = "ceph auth get-key client.cinder | vdsm-cinder register-secret "

    def auth(user, uuid=None):
        return {"type": "ceph", "username": user, "uuid": uuid or secrets[user]}

    with new_image(engine) as image, new_image(engine) as locked, silent_monitor():
        ceph.rbd("lock", "add", locked, "backup")
        hosts = engine.disk(image)["hosts"]
        for changes, step, state, message, remedy in (
            ({"path": "nowhere/x"}, "pool", "wrong", "the pool does not exist", "ceph osd pool ls"),
            ({"path": "volumes/no/x"}, "pool", "wrong", "namespace does not", "rbd namespace ls"),
            ({"path": "volumes/x"}, "image", "wrong", "the image does not exist", "'rbd info'"),
            ({"path": "volumes/x", "auth": None}, "user", "wrong", "wants a user", "its auth"),
            ({"auth": auth("cinder")}, "user", "wrong", "that user has another key", register),
            ({"auth": auth("reader")}, "image", "wrong", "may not write to", "auth get client.re"),
            ({"auth": auth("cinder", unknown)}, "secret", "wrong", "not registered", register),
            ({"auth": auth("cinder", unknown)}, "user", "not checked", "not at hand", unknown),
            ({"path": f"volumes/{vm.image}"}, "use", "wrong", "elsewhere (client.", "end the VM"),
            ({"path": f"volumes/{locked}"}, "use", "wrong", "locked by hand ('backup'", "lock rm"),
            ({"hosts": [*hosts, dead]}, "monitors", "warning", "11 (connection refused)", "others"),
            ({"hosts": [SILENT_MONITOR, dead]}, "monitors", "wrong", "1 (no answer", "network"),
            ({}, "use", "ok", "nobody has it open", ""),
        ):
            steps = await check(engine, engine.disk(image, **changes))
            found = steps[step]
            assert found["state"] == state, found
            assert message in found["message"], found
            assert remedy in found.get("remedy", ""), found
            if state == "wrong" and step not in ("secret", "use"):
                behind = STEPS[STEPS.index(step) + 1 :]
                assert {steps[name]["state"] for name in behind} == {"not checked"}
        (lock,) = json.loads(ceph.rbd("lock", "ls", "--format", "json", locked))
        ceph.rbd("lock", "rm", locked, "backup", lock["locker"])
    await engine.call("Host.unregisterSecrets", uuids=list(secrets.values()))
    with refused(36, "is not on Ceph"):
        await engine.call("Host.checkDisk", drive=absent_disk())


async def check(engine, disk):
    """The steps of Host.checkDisk by their names, which have to fit the schema."""
    found = await ask(engine, "Host.checkDisk", drive=disk)
    steps = {step["step"]: step for step in found["steps"]}
    assert tuple(steps) == STEPS
    return steps


async def test_takes_what_cinder_answers(patient, lab):
    info: dict[str, Any] = {
        "driver_volume_type": "rbd",
        "data": {
            "name": "volumes/volume-x",
            "hosts": [m.address for m in lab.ceph.monitors],
            "ports": ["6789"] * 3,
            "auth_enabled": True,
            "auth_username": "cinder",
            "secret_type": "ceph",
            "secret_uuid": patient.engine.secret_id,
        },
    }
    found = await patient.doctor("--disk", "-", stdin=json.dumps({"connection_info": info}))
    found.tells("vda image", "wrong", "the image does not exist in its pool", "")
    del info["data"]["secret_uuid"]
    found = await patient.doctor("--disk", "-", stdin=json.dumps(info))
    found.tells("disk", "wrong", "secret_uuid is missing", "vms.cinder_secret_uuid")


# Without the daemon


async def test_needs_no_daemon(patient, vm, keyring):
    async with without_daemon(patient):
        found = await patient.doctor(vm.name)
        assert (found.code, found.err) == (UNWELL, "vdsm-cinder: wrong: daemon\n")
        found.tells("daemon", "wrong", "", "start vdsm-cinderd")
        found.tells("port 54321", "ok", "free", "")
        found.tells("vda monitors", "ok", "all answer", "")
        found.tells("vda user", "not checked", "is not at hand", "give it by --keyring FILE")

        found = await patient.doctor(vm.name, "--keyring", keyring)
        assert found.bad() == ["daemon"], found
        found.tells("vda use", "ok", f" at {patient.host.address}, as it is while", "")
        with new_image(patient.engine) as image:
            file = patient.daemon.directory / "disk.json"
            file.write_text(json.dumps(patient.engine.disk(image)))
            with keyring.open() as key:
                words = ("--disk", file, "--keyring", "-")
                found = await patient.doctor(*words, stdin=key.read())
            assert found.bad() == ["daemon"], found
            found.tells("vda use", "ok", "nobody has it open", "")
            file.write_text(json.dumps(patient.engine.disk("volume-x")))
            found = await patient.doctor("--disk", file, "--keyring", keyring)
            found.tells("vda image", "wrong", "the image does not exist in its pool", "")


async def test_the_port_is_another_ones(patient):
    serve = "import socket, time; s = socket.create_server(('', 54321)); time.sleep(600)"
    async with without_daemon(patient):
        squatter = patient.host.popen(["python3", "-c", serve])
        try:
            listening = ("ss", "--listening", "--tcp", "--numeric", "--no-header")
            wait_until(lambda: ":54321" in patient.host.run(listening), "the port to be taken", 20)
            found = await patient.doctor()
        finally:
            squatter.kill()
            squatter.wait()
    assert found.code == UNWELL
    found.tells("port 54321", "wrong", "taken by python3 (pid ", "kill ")


# The host


async def test_qemus_rbd_driver_is_missing(patient):
    patient.host.run(["mv", RBD_DRIVER, f"{RBD_DRIVER}.away"])
    try:
        found = await patient.doctor()
    finally:
        patient.host.run(["mv", f"{RBD_DRIVER}.away", RBD_DRIVER])
    assert found.bad() == ["QEMU"]
    found.tells("QEMU", "wrong", "driver is not installed", "apt-get install qemu-block-extra")


@contextmanager
def configured(patient, **changes):
    """The doctor reads another configuration than the daemon did."""
    patient.daemon.configure({**OPTIONS, **changes})
    try:
        yield
    finally:
        patient.daemon.configure(OPTIONS)


async def test_no_hardware_virtualisation(patient):
    with configured(patient, vms={"allow_emulation": False}):
        found = await patient.doctor()
    assert found.bad() == ["KVM"]
    found.tells("KVM", "wrong", "there is no /dev/kvm", "")
    assert found.finding("KVM")["remedy"].startswith(("modprobe kvm", "enable VT-x or AMD-V in"))


async def test_certificates(patient):
    with configured(patient, listen={"expiry_warning_days": 100000}):
        found = await patient.doctor()
    assert (found.code, set(found.bad())) == (UNSURE, {"certificates"})
    remedies = {f["remedy"] for f in json.loads(found.out)["checks"] if f["state"] != "ok"}
    renew = "vdsm-cinder pki renew"
    among_hosts = "vdsm-cinder pki hosts --force --install"
    assert remedies == {f"{renew} --reload", f"{renew} --with-ca --reload", among_hosts}
    with configured(patient, listen={"key": "/nowhere/key.pem"}):
        found = await patient.doctor()
    assert found.bad() == ["certificates"]
    found.tells("certificates", "wrong", "/nowhere/key.pem", "vdsm-cinder pki init --name")


async def test_a_configuration_that_cannot_be_used(patient):
    patient.daemon.config.write_text("vms: {allow_emulation: maybe}\n")
    try:
        found = await patient.doctor("--socket", patient.daemon.unix_socket)
    finally:
        patient.daemon.configure(OPTIONS)
    assert found.code == UNWELL
    message = "vms.allow_emulation is 'maybe'; expected true or false"
    found.tells("configuration", "wrong", message, str(patient.daemon.config))


async def test_secrets_that_vms_need(patient, vm):
    secret = patient.engine.secret_id
    await patient.engine.call("Host.unregisterSecrets", uuids=[secret])
    found = await patient.doctor()
    assert {"secrets", "daemon"} == set(found.bad())
    mend = f"ceph auth get-key client.cinder | vdsm-cinder register-secret {secret}"
    found.tells("secrets", "wrong", f"{secret}, needed by {vm.name}, is not", mend)
    await patient.engine.register_key()


async def test_libvirt_that_hangs_or_is_gone(patient):
    """And the doctor ends nevertheless, with all that can be told without it."""
    host = patient.host
    host.namespace.freeze(host.libvirtd_pid)
    try:
        began = time.monotonic()
        found = await patient.doctor("--timeout", "3")
        assert time.monotonic() - began < 20
    finally:
        host.namespace.kill(host.libvirtd_pid, signal.SIGCONT)
    assert "… libvirt, for " in found.err
    message = "cannot be reached: it does not answer within 2.1 s"
    found.tells("libvirt", "wrong", message, "systemctl restart libvirtd")
    assert set(found.bad()) <= {"libvirt", "secrets", "daemon", "preparation", "autostart"}
    host.kill_libvirtd()
    try:
        found = await patient.doctor()
    finally:
        host.start_libvirtd()
    found.tells("libvirt", "wrong", "cannot be reached: Failed to connect", "systemctl restart")
    found.tells("QEMU", "ok", "has its rbd driver", "")
    wait_until(lambda: patient.daemon.health()["status"] == "ready", "the daemon to be well", 30)
