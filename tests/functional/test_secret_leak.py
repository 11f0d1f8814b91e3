# SPDX-License-Identifier: GPL-2.0-or-later
"""No key shows anywhere: a daemon goes through its verbs and errors, and all it left is searched.

Run in the lab: `python -m lab exec -- .venv/bin/pytest tests/functional/test_secret_leak.py`.
test_systemd.py does the same for keys that systemd keeps while the daemon restarts,
test_migration.py for those that one host hands to another.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import subprocess
from contextlib import suppress
from pathlib import Path
from urllib.parse import quote

import pytest

from lab.base import wait_until
from lab.engine import Engine, new_id, secret_params
from lab.host.daemon import HostDaemon
from lab.namespace import CLEAN_ENVIRONMENT
from tests.functional import misuse
from tests.functional.guests import DISK_MIB, new_guest
from tests.functional.helpers import CONTRACT, absent_disk, destroyed_at_last, new_image, refused
from tests.functional.leaks import (
    HEADER_TEXT,
    Directory,
    Journal,
    files_changed,
    forms,
    new_key,
    processes,
    read,
    shown,
)
from vdsmcinder.errors import RemoteError
from vdsmcinder.stomp.client import StompSession

MAX_FRAME_BYTES = 65536
MIB = 1024 * 1024
GROWN_MIB = DISK_MIB + 16
LOGGERS = ("", "jsonrpcserver", "asyncio", "vdsmcinder")
# How others than the search would write a key.
ENCODERS = {
    "base64": lambda key: key,
    "base64 for URLs": lambda key: base64.urlsafe_b64encode(base64.b64decode(key)),
    "URL-encoded": lambda key: quote(key, safe=""),
    "with escaped slashes": lambda key: json.dumps(key).replace("/", "\\/"),
    "base64 of base64": lambda key: base64.b64encode(key.encode()),
    "raw": base64.b64decode,
    "hexadecimal": lambda key: base64.b64decode(key).hex(),
    "upper-case hexadecimal": lambda key: base64.b64decode(key).hex().upper(),
    "a bytes literal": lambda key: repr(base64.b64decode(key)),
    "numbers": lambda key: str(list(base64.b64decode(key))),
}


@pytest.mark.parametrize("form", list(forms(new_key())))
@pytest.mark.parametrize("cut", [0, 4], ids=["whole", "cut"])
def test_the_search_finds_a_key_in_each_form(form, cut, tmp_path):
    key = new_key()
    written = ENCODERS[form](key)
    written = written.encode() if isinstance(written, str) else written
    directory = Directory(tmp_path)
    (tmp_path / "state").write_bytes(b"key=" + written[: len(written) - cut])
    assert f"{tmp_path}/state holds it as" in "".join(shown(key, directory.content()))
    assert shown(new_key(), directory.content()) == []


class Search:
    """A daemon on host2 that sees keys, and every place that could hold them afterwards."""

    def __init__(self, lab, target, wire):
        self.host = lab.hosts["host2"]
        self.journal = Journal()
        self.places = {}
        options = {
            "log": {"level": "DEBUG", "target": target},
            "listen": {"max_frame_bytes": MAX_FRAME_BYTES},
            "rpc": {"validate_results": True},
        }
        self.daemon = HostDaemon(self.host, lab.pki, options, f"leak-{target}")
        self.log = "the journal" if target == "journal" else str(self.daemon.log)
        self._wire = wire
        self._logs = Directory(self.daemon.directory), Directory(self.host.log)
        self._began = self.daemon.directory / "began"
        self._began.touch()

    def add(self, places):
        """Keep what stands in places now."""
        for name, content in places.items():
            self.places[name] = self.places.get(name, b"") + content

    def add_processes(self):
        """Keep the command lines and environments of all that runs on the host now."""
        self.add(processes(self.host.path("/proc")))

    def finish(self):
        """All places, with what is left in them at the end."""
        self.add({"the journal": self.journal.content})
        self.add({"what engines received": bytes(self._wire)})
        for directory in self._logs:
            self.add(directory.content())
        self.add(files_changed(self.host, self._began))
        return self.places


@pytest.fixture
def wire(monkeypatch):
    """All that engines receive: replies and events, as they come off the wire."""
    received = bytearray()
    take = StompSession.data_received

    def tapped(session, data):
        received.extend(data)
        take(session, data)

    monkeypatch.setattr(StompSession, "data_received", tapped)
    return received


@pytest.mark.asyncio(loop_scope="session")
@pytest.mark.parametrize("target", ["stderr", "journal"])
async def test_no_key_shows_anywhere(lab, wire, target):
    search = Search(lab, target, wire)
    real, wrong, leaked = lab.ceph.key, new_key(), key_in_letters()
    with search.journal.listening(search.host), search.daemon:
        async with Engine(lab, search.daemon) as engine:
            await engine.register_key()
            await log_everything(engine)
            async with new_guest(engine, maxMemSize=1024, maxMemSlots=1) as vm:
                await plug_and_unplug(engine, search, vm)
                await go_through_the_guest(vm)
                await go_through_the_verbs(engine, search, vm, wrong)
                await misuse.misplace_in_secrets(engine, real)
                await misuse.misplace_in_disks(engine, vm, real)
                await misuse.misplace_in_every_verb(engine, real)
                search.add({"HTTP": await misuse.send_malformed_bodies(engine, real)})
                answers = await misuse.break_the_protocol(engine, real, MAX_FRAME_BYTES)
                search.add({"STOMP": answers})
                await register_without_libvirt(engine, search.host, real)
                await leak(engine, vm, leaked)
        pages = {path: search.daemon.page(path) for path in ("/metrics", "/health")}
    search.add(pages)
    places = search.finish()
    assert not served() - succeeded(pages["/metrics"].decode())

    assert any(b"qemu-system" in content for name, content in places.items() if "cmdline" in name)
    for key in (real, wrong):
        found = shown(key, places)
        assert not found, "\n".join(found)
    where = "\n".join(shown(leaked, places))
    assert f"{search.log} holds it as base64" in where
    assert "what engines received holds it as base64" in where


def key_in_letters():
    """A key whose secret could stand in the name of an image."""
    return next(key for key in iter(new_key, None) if not set("+/") & set(key))


async def log_everything(engine):
    for logger in LOGGERS:
        with suppress(RemoteError):  # those of libraries that are not in use yet
            await engine.call("Host.setLogLevel", level="DEBUG", name=logger)


async def leak(engine, vm, key):
    """Have the daemon show a key, by the name of a disk: without its header it could be one.

    If the search does not find this one, it would not find another.
    """
    path = f"volumes/{key[HEADER_TEXT:].rstrip('=')}"
    with refused(46, path):
        await engine.call("VM.hotunplugDisk", vmID=vm.id, params={"drive": {"path": path}})


async def plug_and_unplug(engine, search, vm):
    with new_image(engine) as image:
        disk = {"vmId": vm.id, "drive": engine.disk(image)}
        await engine.call("VM.hotplugDisk", vmID=vm.id, params=disk)
        search.add_processes()
        await engine.call("VM.hotunplugDisk", vmID=vm.id, params=disk)
        with refused(46):
            await engine.call("VM.hotunplugDisk", vmID=vm.id, params=disk)


async def go_through_the_verbs(engine, search, vm, wrong):
    """Every verb as it should be called, and VMs that cannot start."""
    for verb in ("ping", "ping2", "getCapabilities", "getHardwareInfo", "getStats"):
        await engine.call(f"Host.{verb}")
    for verb in ("getSecrets", "getVMList", "getVMFullList", "getAllVmStats", "dumpxmls"):
        await engine.call(f"Host.{verb}")
    await engine.call("Host.echo", message="hello")
    await engine.call("Host.hostdevListByCaps")
    await engine.call("Host.setMOMPolicyParameters", key_value_store={})
    await engine.call("Host.setSafeNetworkConfig")
    await engine.call("Host.checkDisk", drive=engine.disk(vm.image))
    await engine.call("VM.checkDisks", vmID=vm.id)
    for verb in ("getInfo", "getStats", "pause", "cont", "reset"):
        await engine.call(f"VM.{verb}", vmID=vm.id)
    with refused(4):
        await engine.create(engine.flat(vm.id, engine.disk(vm.image)))

    secret = secret_params(new_id(), wrong)
    auth = {"type": "ceph", "username": "cinder", "uuid": secret["uuid"]}
    with refused(9, secret["uuid"], "Host.registerSecrets"):
        await engine.create(engine.flat(new_id(), engine.disk(vm.image, auth=auth)))
    await engine.call("Host.registerSecrets", secrets=[secret])
    with refused(9, "Ceph knows no user cinder, or that user has another key"):
        await engine.create(engine.flat(new_id(), engine.disk(vm.image, auth=auth)))
    with refused(13, "no-such-image"):
        await engine.create(engine.flat(new_id(), engine.disk("no-such-image")))
    await fails_to_start(engine, absent_disk())
    await engine.call("Host.registerSecrets", secrets=[{**secret, "usageID": "ovirt/renamed"}])
    await engine.call("Host.unregisterSecrets", uuids=[secret["uuid"]])
    await engine.call("Host.registerSecrets", secrets=[secret])
    await engine.call("VM.setDestroyOnReboot", vmID=vm.id)
    search.add_processes()


async def go_through_the_guest(vm):
    """Every verb that needs a guest or changes what a VM has."""
    host, ceph, nic = vm.engine.daemon.host, vm.engine.lab.ceph, "52:54:00:77:00:09"
    ticket = {"password": "ticket", "ttl": 60, "existingConnAction": "keep"}
    limits = [{"name": "vda", "ioTune": {"total_iops_sec": 100_000}}]
    for verb in ("freeze", "thaw", "screenshot", "getIoTune", "getIoTunePolicy"):
        await vm.call(verb)
    await vm.call("snapshot", snapDrives=[])
    await vm.call("thaw")
    await vm.call("setIoTune", tunables=limits)
    await vm.engine.call("Host.getAllVmIoTunePolicies")
    await vm.call("setTicket", **ticket)
    await vm.call("updateDevice", params={"graphicsType": "vnc", **ticket})
    await vm.call("changeCD", driveSpec="")
    await vm.call(
        "updateVmPolicy", params={"ioTune": [{"name": "vda", "maximum": limits[0]["ioTune"]}]}
    )
    await vm.call("getExternalData", kind="tpm")
    memory = {"type": "memory", "device": "memory", "size": 256, "node": 0, "deviceId": new_id()}
    for verb in ("hotplugMemory", "hotunplugMemory"):
        await vm.call(verb, params={"memory": memory})
    await vm.call("setNumberOfCpus", numberOfCpus=2)
    await vm.call("setBalloonTarget", target=200 * 1024)
    ceph.resize_image(vm.image, GROWN_MIB)
    await vm.call("diskSizeExtend", driveSpecs={"name": "vda"}, newSize=GROWN_MIB * MIB)
    host.run(["ip", "link", "add", "leaks", "type", "bridge"])
    plugged = {"type": "interface", "device": "bridge", "network": "leaks", "macAddr": nic}
    for verb in ("hotplugNic", "hotunplugNic"):
        await vm.call(verb, params={"vmId": vm.id, "nic": plugged})
    host.run(["ip", "link", "del", "leaks"])
    await vm.call("shutdown", reboot=True, timeout=30)
    await vm.engine.wait_status(vm.id, "RebootInProgress")
    await vm.engine.wait_status(vm.id, "Up")


def served():
    """The verbs that the schema says are served, but for those of test_migration.py."""
    names = {name for name, verb in CONTRACT.verbs.items() if verb.served}
    return {name for name in names if "migrat" not in name.lower()}


def succeeded(metrics):
    """The verbs that the daemon's metrics count as having succeeded."""
    return set(re.findall(r'requests_total{outcome="ok",verb="([^"]+)"}', metrics))


async def fails_to_start(engine, disk):
    async with destroyed_at_last(engine, new_id()) as vm_id:
        await engine.create(engine.flat(vm_id, disk))
        assert (await engine.wait_status(vm_id, "Down"))["exitReason"] == 3


async def register_without_libvirt(engine, host, key):
    host.stop_libvirtd()
    with refused(40, "libvirt"):
        await engine.call("Host.registerSecrets", secrets=[secret_params(new_id(), key)])
    host.start_libvirtd()
    ready = engine.daemon.health
    await asyncio.to_thread(wait_until, lambda: ready()["status"] == "ready", "libvirt again", 30)


def test_the_command_shows_no_key(lab, wire, tmp_path):
    """It is given one in each way that there is, and as an argument, which it refuses."""
    search, key = Search(lab, "stderr", wire), new_key()
    home, keyring = tmp_path / "home", tmp_path / "keyring"
    home.mkdir()
    written = Directory(home)
    keyring.write_text(f"[client.cinder]\n\tkey = {key}\n")
    secret = json.dumps([secret_params(new_id(), key)])
    (tmp_path / "secrets.json").write_text(secret)
    (tmp_path / "broken.json").write_text(secret[:-3])
    register = "call", "Host.registerSecrets"
    with search.daemon:
        for code, stdin, *words in (
            (0, key, "register-secret", new_id()),
            (0, "", "register-secret", new_id(), keyring),
            (1, f"{key}!", "register-secret", new_id()),
            (1, key, "register-secret", key[:16]),
            (0, "", *register, f"secrets=@{tmp_path}/secrets.json"),
            (1, "", *register, f"secrets=@{tmp_path}/broken.json"),
            (0, secret, *register, "secrets=@-"),
            (2, "", *register, f"secrets={secret}"),
            (0, "", "secrets"),
            (0, "", *register, "secrets=@-", "clear=true"),
        ):
            command = search.daemon.command(*words)
            process, said, ended = run_command(command, home, stdin or "[]")
            search.add({"the command's output": said})
            if key not in "".join(command):
                search.add(process)
            assert ended == code, said
    search.add(written.content())
    places = search.finish()
    assert b"register-secret" in places["the command's line"]
    found = shown(key, places)
    assert not found, "\n".join(found)


def run_command(command, home, stdin):
    """What a command's /proc shows while it runs, what it says, and its exit code."""
    environment = {**CLEAN_ENVIRONMENT, "HOME": str(home)}
    pipe, out = subprocess.PIPE, subprocess.STDOUT
    with subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=out) as process:
        proc = Path(f"/proc/{process.pid}")
        # Popen returns a moment before the kernel has them.
        wait_until(lambda: read(proc / "cmdline") or process.poll() is not None, "its line", 30)
        places = {
            f"the command's {what}": read(proc / file)
            for what, file in (("line", "cmdline"), ("environment", "environ"))
        }
        said, _ = process.communicate(stdin.encode(), 30)
    return places, said, process.returncode
