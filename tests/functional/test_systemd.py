# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon as a part of the system: installed, run by systemd, upgraded and removed.

On a host of its own that boots systemd: once from the RPMs that `make rpm` builds of this tree,
once by `make install`, as on Debian. packaging/install puts the same files in place for both. What
differs is where below PREFIX and /etc they lie, and what is done besides at an installation, an
upgrade and a removal: tests of that are for both. The others are marked `alike`.
"""

from __future__ import annotations

import asyncio
import json
import re
import signal
import ssl
import time
from collections import Counter
from contextlib import asynccontextmanager, suppress

import pytest
import pytest_asyncio
from lxml import etree

from lab.base import LabError, wait_until
from lab.engine import Engine, client_context, new_id, secret_params
from lab.guest.domains import console_of, disk_xml
from lab.systemd.installed import CONFIG, SERVICE, UNITS, MadeDaemon, RpmDaemon
from tests.functional.helpers import booted, destroyed_at_last, eventually, refused, running
from tests.functional.installed import installed
from tests.functional.leaks import files_changed, new_key, processes, shown
from vdsmcinder.errors import RemoteError
from vdsmcinder.stomp import client as stomp

# What the issue promises.
WATCHDOG_S = 30
STOP_S = 5
# The same as before the unit had limits of memory and things to prepare.
SCORE = 1.5

UNAVAILABLE = 40
HOTPLUG_FAILED = 45
RECOVERING = 99

# What the daemon, systemd and libvirt do is the same however the files came to the host.
alike = pytest.mark.alike


@pytest.fixture(scope="module", params=[RpmDaemon, MadeDaemon], ids=["rpm", "make"])
def daemon(request, lab):
    """The daemon, installed, configured and started on a host that has just booted."""
    with installed(lab, request.param) as daemon:
        yield daemon


@pytest.fixture
def active(daemon):
    """The daemon, which runs, whatever the test before did to it."""
    daemon.host.systemctl("start", SERVICE)
    daemon.wait_ready()
    return daemon


@pytest_asyncio.fixture
async def engine(lab, active):
    async with Engine(lab, active) as engine:
        await engine.register_key()
        yield engine


@asynccontextmanager
async def running_vm(engine, image):
    """A VM that writes to its disk all the time, and in the end must be the same and go on."""
    daemon, vm_id = engine.daemon, new_id()
    disk = disk_xml(engine.lab.ceph, image, "vda", engine.secret_id)
    await engine.run(engine.document(vm_id, disk))
    try:
        daemon.wait_status("VMs: 1 running")
        pid = qemu_pid(daemon, vm_id)
        with console_of(daemon.host, f"vm-{vm_id}") as console:
            console.wait_ready()
            written = int(console.ask("hammer vda", r"^hammer vda (\d+)$")[1])
            yield vm_id
            assert qemu_pid(daemon, vm_id) == pid
            assert int(console.ask("stop", r"^hammered vda (\d+)$")[1]) > written
    finally:
        # Not through the daemon: it may be gone.
        daemon.host.virsh("destroy", f"vm-{vm_id}")
        daemon.host.virsh("undefine", f"vm-{vm_id}")


def qemu_pid(daemon, vm_id):
    return daemon.host.run(["cat", f"/run/libvirt/qemu/vm-{vm_id}.pid"]).strip()


def ceph_workers(daemon):
    """The processes by which the daemon talks to Ceph; a cluster with running VMs has one."""
    group = f"/sys/fs/cgroup/systemd/system.slice/{SERVICE}/cgroup.procs"
    return {*daemon.host.run(["cat", group]).split()} - {str(daemon.pid)}


class Traffic:
    """Clients that connect, call a verb and hang up, one after the other, as fast as it goes.

    outcomes: how often a call was answered, told that the VMs are not known yet (recovering),
    refused (nobody listened) or lost (cut off under way). longest_s: the longest wait.
    """

    def __init__(self, engine):
        self.outcomes = Counter()
        self.longest_s = 0.0
        self._context = client_context(engine.lab.pki, engine.lab.pki.engine)
        self._address = engine.daemon.host.address, engine.daemon.port
        self._stop = asyncio.Event()

    async def __aenter__(self):
        self._task = asyncio.create_task(self._run())
        await self.answered(20)
        return self

    async def __aexit__(self, *_):
        self._stop.set()
        await self._task

    async def answered(self, count):
        """Return when so many more calls have been answered."""
        wanted = self.outcomes["answered"] + count
        while self.outcomes["answered"] < wanted:
            assert not self._task.done()
            await asyncio.sleep(0.01)

    async def refused(self):
        """Return when a call has been refused."""
        while not self.outcomes["refused"]:
            assert not self._task.done()
            await asyncio.sleep(0.01)

    async def _run(self):
        while not self._stop.is_set():
            began = time.monotonic()
            outcome = await self._call()
            self.outcomes[outcome] += 1
            if outcome in ("answered", "recovering"):
                self.longest_s = max(self.longest_s, time.monotonic() - began)

    async def _call(self):
        try:
            session = await stomp.connect(*self._address, self._context, 0)
            await session.call("Host.getVMList")
            await session.close()
        except RemoteError as e:
            assert e.code == RECOVERING
            return "recovering"
        except ConnectionRefusedError:
            return "refused"
        except (stomp.SessionLost, OSError):
            return "lost"
        return "answered"


def restarted(daemon, pid):
    """Wait until another process than pid serves, and knows the VMs."""
    wait_until(lambda: daemon.pid not in (0, pid), "systemd to start the daemon anew", WATCHDOG_S)
    wait_until(lambda: daemon.state == "active", "the daemon to be ready", 30)


def test_runs_as_a_user_of_its_own_and_only_root_reaches_its_socket(active):
    host = active.host
    assert host.run(["stat", "--format=%U", f"/proc/{active.pid}"]) == "vdsm-cinder\n"
    capabilities = host.run(["grep", "CapEff", f"/proc/{active.pid}/status"])
    assert capabilities.split() == ["CapEff:", "0" * 16]
    assert host.run(["stat", "--format=%U %a", "/run/vdsm-cinder/vdsm-cinder.sock"]) == "root 600\n"
    assert host.run(["stat", "--format=%U:%G %a", CONFIG]) == "root:vdsm-cinder 640\n"
    assert active.command("vms", "--json") == "[]\n"
    wait_until(lambda: active.status == "VMs: 0 running, 0 down", "a status without trouble", 30)


def test_the_pages_for_monitoring_need_nothing_that_is_not_installed(active):
    curl = ["curl", "--silent", "--fail", "--unix-socket", "/run/vdsm-cinder/vdsm-cinder.sock"]
    health = active.host.run([*curl, "http://localhost/health"])
    metrics = active.host.run([*curl, "http://localhost/metrics"])
    assert '"ready":true' in health
    assert "\nvdsm_cinder_ready 1.0\n" in metrics


BROKEN = (
    ("systemctl stop vdsm-cinderd", "daemon", "it does not run"),
    ("chmod 400 {key}; chgrp root {key}", "certificates", "may not read {key}: Permission denied"),
    # As an oVirt engine leaves it.
    ("chgrp kvm {key}", "certificates", "QEMU's user libvirt-qemu may read {key}"),
    ("systemctl stop libvirtd libvirtd.socket", "libvirt", "cannot be reached"),
    (
        "rm -r {channels}; ip link del ';vdsmdummy;'; virsh nwfilter-undefine {filter}",
        "preparation",
        "whose documents name directory {channels}, bridge ;vdsmdummy;, filter {filter}",
    ),
)
# Where these are depends on how they were installed.
WITHOUT_RULES = (
    ("rm --force {rules}; systemctl restart polkit", "libvirt", "refuses the daemon's user"),
)
FILES = {
    "key": "/etc/pki/vdsm/keys/vdsmkey.pem",
    "rules": "/usr/share/polkit-1/rules.d/50-vdsm-* /etc/polkit-1/rules.d/50-vdsm-*",
    "channels": "/var/lib/libvirt/qemu/channels",
    "filter": "vdsm-no-mac-spoofing",
}


@pytest.mark.parametrize(
    "broken", [pytest.param(BROKEN, marks=alike), WITHOUT_RULES], ids=["host", "rules"]
)
def test_the_doctor_names_what_was_broken_and_the_command_that_mends_it(active, broken):
    # What libvirt is to have comes after the daemon is ready.
    wait_until(lambda: examined(active) == {}, "the doctor to find nothing", 30)
    for breaking, check, message in broken:
        active.host.run(["sh", "-c", breaking.format(**FILES)])
        found = examined(active)[check]
        assert message.format(**FILES) in found["message"]
        if "{rules}" in breaking:
            assert found["remedy"] == "make install"
            active.upgrade()
        else:
            active.host.run(["sh", "-c", found["remedy"]])
        wait_until(lambda: examined(active) == {}, "the doctor to find nothing any more", 30)


ENGINES_DEVICES = """
  <interface type='network'>
    <mac address='52:54:00:77:02:01'/><source network='vdsm-ovirtmgmt'/><model type='virtio'/>
    <filterref filter='vdsm-no-mac-spoofing'/>
  </interface>
  <interface type='bridge'>
    <mac address='52:54:00:77:02:02'/><source bridge=';vdsmdummy;'/><model type='virtio'/>
    <link state='down'/>
  </interface>
  <channel type='unix'>
    <source mode='bind' path='/var/lib/libvirt/qemu/channels/{vm_id}.org.qemu.guest_agent.0'/>
    <target type='virtio' name='org.qemu.guest_agent.0'/>
  </channel>
</devices>"""
ENGINES_SYSINFO = """<sysinfo type='smbios'><system>
    <entry name='manufacturer'>oVirt</entry><entry name='product'>OS-NAME:</entry>
    <entry name='version'>OS-VERSION:</entry><entry name='serial'>HOST-SERIAL:</entry>
  </system></sysinfo>
  <os><smbios mode='sysinfo'/>"""


async def test_a_document_as_ovirts_engine_writes_it(engine, image):
    """All that it takes for granted of a host is there, on one that has just been installed."""
    vm_id, host = new_id(), engine.daemon.host
    host.run(["ip", "link", "add", "ovirtmgmt", "type", "bridge"])

    async def known():
        return "vdsm-ovirtmgmt" in host.virsh("net-list", "--name")

    try:
        await eventually(known, "libvirt to know the network")
        params = engine.document(vm_id, disk_xml(engine.lab.ceph, image(), "vda", engine.secret_id))
        xml = params["xml"].replace("</devices>", ENGINES_DEVICES.format(vm_id=vm_id))
        await engine.run({**params, "xml": xml.replace("<os>", ENGINES_SYSINFO, 1)})
        living = etree.fromstring((await engine.call("Host.dumpxmls", vmList=[vm_id]))[vm_id])
        entries = {entry.get("name"): entry.text for entry in living.iterfind("sysinfo/system/*")}
        told = await engine.call("Host.getCapabilities")
        about = told["operatingSystem"]
        assert entries == {
            "manufacturer": "oVirt",
            "product": about["name"],
            "version": "-".join(filter(None, (about["version"], about["release"]))),
            "serial": told["uuid"],
        }
        agent = f"/var/lib/libvirt/qemu/channels/{vm_id}.org.qemu.guest_agent.0"
        host.run(["test", "-S", agent])
        ports = {
            bridge: host.run(["ls", f"/sys/class/net/{bridge}/brif"]).split()
            for bridge in ("ovirtmgmt", ";vdsmdummy;")
        }
        taps = [target.get("dev") for target in living.iterfind("devices/interface/target")]
        assert [ports["ovirtmgmt"], ports[";vdsmdummy;"]] == [[tap] for tap in taps]
        assert ";vdsmdummy;" not in told["networks"]
        await engine.destroy(vm_id)
    finally:
        host.run(["ip", "link", "del", "ovirtmgmt"])


def examined(daemon):
    """What the doctor finds that is not ok, by the check's name; his exit code has to fit."""
    told = daemon.host.run(["sh", "-c", "vdsm-cinder doctor --json; echo $?"])
    report, code = told.splitlines()
    found = json.loads(report)["checks"]
    assert len(found) >= 11
    bad = {finding["check"]: finding for finding in found if finding["state"] != "ok"}
    assert (code == "0") is (not bad), told
    return bad


def test_systemd_finds_little_that_it_could_still_do(active):
    rated = active.host.run(["systemd-analyze", "security", "--no-pager", SERVICE])
    score = float(rated.partition("exposure level for vdsm-cinderd.service: ")[2].split()[0])
    assert score <= SCORE


@alike
async def test_tells_how_many_vms_run_and_since_when(engine, image):
    daemon = engine.daemon
    async with running_vm(engine, image()) as vm_id:
        assert "vm-" in daemon.command("vms")
        daemon.host.systemctl("restart", SERVICE)
        daemon.wait_status("VMs: 1 running")
        (*_, found) = daemon.host.journal(f"VM_ID={vm_id}")
        told = rf"vm-{vm_id} was found as it is in libvirt: Up, running for [0-9.]+ s"
        assert re.fullmatch(told, found["MESSAGE"])
        await engine.connect()
        (stats,) = await engine.call("VM.getStats", vmID=vm_id)
        age = daemon.host.run(["ps", "-o", "etimes=", "-p", qemu_pid(daemon, vm_id)])
        assert abs(int(stats["elapsedTime"]) - int(age)) <= 2
        assert stats["pid"] == qemu_pid(daemon, vm_id)
    daemon.wait_status("VMs: 0 running, 0 down")


GUESTS = "libvirt-guests.service"
# What it does on EL unless told otherwise: guests are suspended with the host, and started with it.
SUSPENDING = "ON_BOOT=start\\nON_SHUTDOWN=suspend\\nSTART_DELAY=0\\n"


async def test_libvirts_own_service_neither_suspends_nor_starts_our_vms(engine, image):
    daemon = engine.daemon
    host = daemon.host
    host.run(["sh", "-c", f"printf '{SUSPENDING}' >/etc/default/libvirt-guests"])
    (drop_in,) = host.show(GUESTS, "DropInPaths").split()
    async with running_vm(engine, image()):
        # The host boots.
        host.systemctl("start", GUESTS)
        assert host.show(GUESTS, "ActiveState") == "inactive"
        # It had booted before the daemon came.
        host.run(["mv", drop_in, "/root/kept"])
        host.systemctl("daemon-reload")
        host.systemctl("start", GUESTS)
        assert host.show(GUESTS, "ActiveState") == "active"
        found = examined(daemon)["autostart"]
        assert found["message"].startswith(f"{GUESTS} starts VMs with the host")
        assert found["remedy"] == "make install"
        host.run(["mv", "/root/kept", drop_in])
        host.systemctl("daemon-reload")
        assert "autostart" not in examined(daemon)
        # And goes down.
        host.systemctl("stop", GUESTS)
        assert host.show(GUESTS, "ActiveState") == "inactive"


@alike
async def test_libvirt_starts_no_vm_of_ours_by_itself(engine, image):
    daemon = engine.daemon
    host = daemon.host
    async with running_vm(engine, image()) as vm_id:
        name = f"vm-{vm_id}"
        host.virsh("autostart", name)
        found = examined(daemon)["autostart"]
        assert f"libvirt starts {name} by itself" in found["message"]
        host.run(["sh", "-c", found["remedy"]])
        assert "autostart" not in examined(daemon)
        host.virsh("autostart", name)
        restart_daemon(daemon)
        daemon.wait_status("VMs: 1 running")
        assert re.search(r"^Autostart: +disable$", host.virsh("dominfo", name), re.M)


@alike
async def test_what_was_suspended_through_libvirt_is_not_gone_on_with(engine):
    """Its saved image is told of, and a VM that is created anew boots, whatever lies about."""
    daemon = engine.daemon
    host = daemon.host
    async with booted(engine) as machine:
        name = f"vm-{machine.id}"
        saved, kept = f"/var/lib/libvirt/qemu/save/{name}.save", "/root/saved"
        host.virsh("managedsave", name)
        await engine.wait_status(machine.id, "Down")
        found = examined(daemon)["autostart"]
        assert f"libvirt has a saved image of {name}" in found["message"]
        assert found["remedy"] == f"virsh managedsave-remove {name}"
        host.run(["cp", saved, kept])
        await engine.destroy(machine.id)
        assert "autostart" not in examined(daemon)
        # As after somebody removed the domain's files alone.
        host.run(["mv", kept, saved])
        async with destroyed_at_last(engine, machine.id):
            disk = disk_xml(engine.lab.ceph, machine.image, "vda", engine.secret_id)
            await engine.run(engine.document(machine.id, disk))
            # What QEMU is started with to take in a saved image, as it does a migration.
            command = host.run(["cat", f"/proc/{qemu_pid(daemon, machine.id)}/cmdline"])
            assert "-incoming" not in command.split("\0")
            host.run(["test", "!", "-e", saved])


@alike
async def test_a_restart_refuses_nobody(engine, image, record_property):
    daemon = engine.daemon
    async with running_vm(engine, image()), Traffic(engine) as traffic:
        for _ in range(3):
            before = daemon.pid
            await asyncio.to_thread(daemon.host.systemctl, "restart", SERVICE)
            assert daemon.pid != before
            await traffic.answered(20)
    record_property("restart", f"{dict(traffic.outcomes)}, longest {traffic.longest_s:.2f} s")
    assert traffic.outcomes["refused"] == 0
    assert traffic.outcomes["lost"] <= 3


@alike
async def test_a_crash_refuses_nobody(engine, image, record_property):
    daemon = engine.daemon
    async with running_vm(engine, image()), Traffic(engine) as traffic:
        before, workers = daemon.pid, ceph_workers(daemon)
        assert workers
        daemon.host.namespace.kill(before, signal.SIGKILL)
        await asyncio.to_thread(restarted, daemon, before)
        await traffic.answered(20)
        assert not workers & ceph_workers(daemon)
    record_property("kill -9", f"{dict(traffic.outcomes)}, longest {traffic.longest_s:.2f} s")
    assert traffic.outcomes["refused"] == 0
    assert traffic.outcomes["lost"] <= 1


@alike
async def test_the_watchdog_restarts_a_daemon_that_hangs(engine, image, record_property):
    daemon = engine.daemon
    async with running_vm(engine, image()):
        before, began = daemon.pid, time.monotonic()
        daemon.host.namespace.kill(before, signal.SIGSTOP)
        await asyncio.to_thread(restarted, daemon, before)
        took_s = time.monotonic() - began
        daemon.wait_status("VMs: 1 running")
    record_property("watchdog", f"{took_s:.1f} s")
    assert took_s < WATCHDOG_S
    said = [entry["MESSAGE"] for entry in daemon.host.journal(f"--unit={SERVICE}")]
    assert any("Watchdog timeout" in line for line in said)


@alike
async def test_stops_at_once_and_for_good(engine, image, record_property):
    daemon = engine.daemon
    # Clients go on knocking, and do not wake it up again.
    async with running_vm(engine, image()), Traffic(engine) as traffic:
        began = time.monotonic()
        await asyncio.to_thread(daemon.host.systemctl, "stop", SERVICE)
        took_s = time.monotonic() - began
        await traffic.refused()
        assert [daemon.host.show(unit, "ActiveState") for unit in UNITS] == ["inactive"] * 3
        assert daemon.host.show(SERVICE, "Result") == "success"
        daemon.host.systemctl("start", SERVICE)
        daemon.wait_status("VMs: 1 running")
        await traffic.answered(20)
    record_property("stop", f"{took_s:.1f} s")
    assert took_s < STOP_S


@pytest.fixture
def moment(active):
    """A file that is older than all that the test writes."""
    path = active.host.lab_dir / "began"
    path.touch()
    return path


def restart_daemon(daemon):
    daemon.host.systemctl("restart", SERVICE)


def kill_daemon(daemon):
    before = daemon.pid
    daemon.host.namespace.kill(before, signal.SIGKILL)
    restarted(daemon, before)


def restart_libvirtd(daemon):
    # So often is what systemd takes for a fault.
    daemon.host.systemctl("reset-failed", "libvirtd.service")
    daemon.host.systemctl("restart", "libvirtd.service")


def kill_both(daemon):
    before = daemon.pid
    daemon.host.kill_libvirtd()
    daemon.host.namespace.kill(before, signal.SIGKILL)
    restarted(daemon, before)


def upgrade(daemon):
    before = daemon.pid
    daemon.upgrade()
    restarted(daemon, before)


RUNNING = (restart_daemon, kill_daemon, restart_libvirtd, kill_both)


@pytest.mark.parametrize(
    "happens", [*(pytest.param(each, marks=alike) for each in RUNNING), upgrade]
)
async def test_keys_outlive_the_daemon_and_libvirtd(engine, image, happens):
    daemon = engine.daemon
    assert daemon.host.show(SERVICE, "NFileDescriptorStore") == "1"
    await asyncio.to_thread(happens, daemon)
    # What libvirtd itself remembers proves nothing.
    await asyncio.to_thread(restart_libvirtd, daemon)
    await asyncio.to_thread(wait_until, lambda: daemon.state == "active", "the daemon", 30)
    await engine.connect()
    await eventually(lambda: _secrets(engine), "the secrets to be there again")
    async with running(engine, engine.flat(new_id(), engine.disk(image()))):
        assert (await engine.call("Host.getCapabilities"))["missingSecrets"] == []
    assert daemon.host.show(SERVICE, "NFileDescriptorStore") == "1"


async def _secrets(engine):
    try:
        return await engine.call("Host.getSecrets")
    except RemoteError as e:
        assert e.code in (UNAVAILABLE, RECOVERING)
        return None


@alike
async def test_keys_that_were_removed_do_not_come_back(engine):
    daemon = engine.daemon
    await engine.call("Host.registerSecrets", secrets=[], clear=True)
    assert daemon.host.show(SERVICE, "NFileDescriptorStore") == "0"
    await asyncio.to_thread(kill_both, daemon)
    await engine.connect()
    await eventually(lambda: _is_ready(engine), "the daemon to be ready")
    assert await engine.call("Host.getSecrets") == []


async def _is_ready(engine):
    with suppress(RemoteError):
        return await engine.call("Host.getVMList") is not None
    return False


@alike
async def test_a_stop_forgets_the_keys_and_the_engine_is_asked_for_them(engine, image):
    daemon = engine.daemon
    async with running_vm(engine, image()):
        await asyncio.to_thread(daemon.host.systemctl, "stop", SERVICE)
        assert daemon.host.show(SERVICE, "NFileDescriptorStore") == "0"
        await asyncio.to_thread(restart_libvirtd, daemon)
        daemon.host.systemctl("start", SERVICE)
        daemon.wait_status("VMs: 1 running, 0 down; secret")
        await engine.connect()
        assert (await engine.call("Host.getCapabilities"))["missingSecrets"] == [engine.secret_id]
        await engine.register_key()
        assert (await engine.call("Host.getCapabilities"))["missingSecrets"] == []
        wait_until(lambda: daemon.status == "VMs: 1 running, 0 down", "a status without it", 30)


@alike
def test_a_key_that_is_kept_is_in_no_file_and_no_message(active, moment):
    """It stands in memory of systemd's alone, which nobody but root can look at."""
    host, key, secret_id = active.host, new_key(), new_id()
    secrets = json.dumps([secret_params(secret_id, key)])
    command = ["vdsm-cinder", "call", "Host.registerSecrets", "secrets=@-"]
    host.run(command, input=secrets)
    kept = host.run(["sh", "-c", "readlink /proc/1/fd/* | grep memfd:secrets-"])
    assert kept.count("memfd:secrets-") == 1
    kill_daemon(active)
    assert secret_id in active.command("secrets")
    places = {**files_changed(host, moment), **processes(host.path("/proc"))}
    places["the journal"] = host.journal_bytes()
    places["the unit"] = host.systemctl("show", SERVICE).encode()
    assert SERVICE.encode() in places["the journal"]
    found = shown(key, places)
    assert not found, "\n".join(found)
    content = host.run(["sh", "-c", "cat $(find /proc/1/fd -lname '*memfd:secrets-*')"])
    assert shown(key, {"the store": content.encode()})


@alike
def test_a_reload_is_taken_without_a_restart(active):
    before = active.pid
    active.host.systemctl("reload", SERVICE)
    wait_until(lambda: active.state == "active", "the reload to be over", 30)
    assert active.pid == before
    assert active.command("vms", "--json") == "[]\n"


@alike
async def test_a_wrong_configuration_is_told_and_not_tried_again(engine):
    daemon = engine.daemon
    daemon.set_option("level: INFO", "level: LOUD")
    try:
        # Nor do clients that go on knocking have it tried.
        async with Traffic(engine) as traffic:
            with pytest.raises(LabError):
                await asyncio.to_thread(daemon.host.systemctl, "restart", SERVICE)
            await traffic.refused()
        assert daemon.state == "failed"
        said = [entry["MESSAGE"] for entry in daemon.host.journal(*of_this_run(daemon))]
        assert len([line for line in said if "log.level is 'LOUD'" in line]) == 1
        tried = daemon.host.show(SERVICE, "InvocationID")
        with pytest.raises(LabError, match="there is no socket"):
            daemon.command("vms")
        assert daemon.host.show(SERVICE, "InvocationID") == tried
    finally:
        daemon.set_option("level: LOUD", "level: INFO")


def of_this_run(daemon):
    """What chooses the journal's entries since the unit was last started."""
    return [f"_SYSTEMD_INVOCATION_ID={daemon.host.show(SERVICE, 'InvocationID')}"]


@alike
def test_a_daemon_that_always_ends_is_tried_again_at_growing_pauses(active):
    host, unit = active.host, active.host.path(f"/run/systemd/system/{SERVICE}.d")
    unit.mkdir()
    (unit / "broken.conf").write_text("[Service]\nExecStart=\nExecStart=/bin/false\n")
    try:
        host.systemctl("daemon-reload")
        host.namespace.kill(active.pid, signal.SIGKILL)
        wait_until(lambda: int(host.show(SERVICE, "NRestarts")) >= 6, "the sixth try", 60)
        # Who connects does not have it tried any sooner.
        with pytest.raises(LabError, match="did not answer in time"):
            active.command("--timeout=0.5", "vms")
        assert active.state == "activating"
    finally:
        (unit / "broken.conf").unlink()
        unit.rmdir()
        host.systemctl("daemon-reload")
    tries = [
        int(entry["__REALTIME_TIMESTAMP"]) / 1e6
        for entry in host.journal(f"--unit={SERVICE}", "-n100")
        if "Scheduled restart job" in entry["MESSAGE"]
    ][-6:]
    pauses = [after - before for before, after in zip(tries, tries[1:])]
    assert pauses[3] >= 1
    assert pauses[4] >= 2
    host.systemctl("restart", SERVICE)
    active.wait_status("VMs:")


async def live_a_life(engine, image):
    """Have a VM created, changed, stopped from outside and destroyed; returns its id and images."""
    host, vm_id, boot, data = engine.daemon.host, new_id(), image(), image()
    name, disk = f"vm-{vm_id}", disk_xml(engine.lab.ceph, boot, "vda", engine.secret_id)
    params = {"vmID": vm_id, "vmParams": engine.document(vm_id, disk)}
    await engine.session.call("VM.create", params, flow_id="flow-of-create")
    try:
        await engine.wait_status(vm_id, "Up")
        with console_of(host, name) as console:
            console.wait_ready()
        drive = engine.disk(data)
        await engine.call("VM.hotplugDisk", vmID=vm_id, params={"vmId": vm_id, "drive": drive})
        with refused(HOTPLUG_FAILED, "plugged into VM"):
            await engine.call("VM.hotplugDisk", vmID=vm_id, params={"vmId": vm_id, "drive": drive})
        await engine.call("VM.hotunplugDisk", vmID=vm_id, params={"vmId": vm_id, "drive": drive})
        host.virsh("suspend", name)
        await engine.wait_status(vm_id, "Paused")
        host.virsh("resume", name)
        await engine.wait_status(vm_id, "Up")
        await engine.call("VM.pause", vmID=vm_id)
        await engine.call("VM.cont", vmID=vm_id)
        await engine.call("VM.getStats", vmID=vm_id)
    finally:
        await engine.call("VM.destroy", vmID=vm_id)
    return vm_id, boot, data


@pytest.fixture
def certified(active, tmp_path):
    """Certificates that the host made for itself, which its daemon serves with meanwhile.

    What they replace comes back. Gives the directory to which its client's were brought.
    """
    host = active.host
    host.run(["cp", "--archive", "/etc/pki/vdsm", "/etc/pki/kept"])
    try:
        host.run(["rm", "-r", "/etc/pki/vdsm"])
        host.run(["vdsm-cinder", "pki", "init", f"--name={host.name}", f"--name={host.address}"])
        host.systemctl("restart", SERVICE)
        for name in ("certs/cacert.pem", "certs/clientcert.pem", "keys/clientkey.pem"):
            content = host.run(["cat", f"/etc/pki/vdsm/{name}"])
            (tmp_path / name.partition("/")[2]).write_text(content)
        yield tmp_path
    finally:
        host.run(["rm", "-r", "/etc/pki/vdsm"])
        host.run(["mv", "/etc/pki/kept", "/etc/pki/vdsm"])
        host.systemctl("restart", SERVICE)


def trusting(directory):
    """TLS of a client with the certificate that pki init made."""
    context = ssl.create_default_context(cafile=directory / "cacert.pem")
    context.load_cert_chain(directory / "clientcert.pem", directory / "clientkey.pem")
    return context


async def shown_serial(address, context):
    """The serial number of the certificate that a new client is shown."""
    _, writer = await asyncio.open_connection(*address, ssl=context)
    serial = writer.get_extra_info("peercert")["serialNumber"]
    writer.close()
    return serial


@alike
async def test_certificates_of_its_own_are_served_with_and_renewed(active, certified, lab):
    host, address, context = active.host, (active.host.address, active.port), trusting(certified)
    keys = "/etc/pki/vdsm/keys"
    assert host.run(["stat", "--format=%U:%G %a", f"{keys}/vdsmkey.pem", f"{keys}/cakey.pem"]) == (
        "vdsm-cinder:vdsm-cinder 600\nroot:root 600\n"
    )
    session = await stomp.connect(*address, context, 0)
    assert await session.call("Host.ping2") is True
    # That the host checks the client's, which the lab's CA signed, and the client the host's.
    strange = client_context(lab.pki, lab.pki.engine)
    strange.load_verify_locations(certified / "cacert.pem")
    with pytest.raises((ssl.SSLError, ConnectionError, stomp.SessionLost)):
        await stomp.connect(*address, strange, 0)
    with pytest.raises(ssl.SSLCertVerificationError):
        await stomp.connect(*address, client_context(lab.pki, lab.pki.engine), 0)

    pid, before = active.pid, await shown_serial(address, context)
    said = active.command("pki", "renew", "--days", "500", "--reload")
    assert "expires" in said and "in 500 days" in said
    wait_until(lambda: active.state == "active", "the reload to be over", 30)
    assert await shown_serial(address, context) != before
    assert active.pid == pid
    assert await session.call("Host.ping2") is True
    await session.close()

    shown = json.loads(active.command("pki", "show", "--json"))
    assert [(entry["of"], round(entry["daysLeft"])) for entry in shown] == [
        ("CA", 3650),
        ("host", 500),
        ("client", 500),
    ]
    assert shown[1]["names"] == [host.name, host.address]


@alike
async def test_a_restart_in_the_middle_of_a_renewal_does_not_end_the_unit(active, certified):
    host, keys = active.host, "/etc/pki/vdsm/keys"
    key, kept = f"{keys}/vdsmkey.pem", f"{keys}/vdsmkey.pem.kept"
    address, context = (host.address, active.port), trusting(certified)
    host.run(["cp", "--archive", key, kept])
    # Another's key, as that of the certificate before is when only the certificate is new.
    host.run(["cp", f"{keys}/cakey.pem", key])
    with pytest.raises(LabError):
        await asyncio.to_thread(host.systemctl, "restart", SERVICE)
    tries = int(host.show(SERVICE, "NRestarts"))
    wait_until(lambda: int(host.show(SERVICE, "NRestarts")) > tries, "another try", 60)
    assert active.state == "activating"
    host.run(["mv", kept, key])
    # Nobody has to start it, and who comes meanwhile waits.
    session = await stomp.connect(*address, context, 0)
    assert await session.call("Host.ping2") is True
    await session.close()
    assert active.state == "active"


STORY = """\
VM.create: VM.create of VM ID called by CLIENT
VM.create: NAME is defined: 1 CPU, 256 MiB, disk vda (volumes/BOOT on Ceph)
VM.create: VM.create of VM ID ok in TIME
VM.create: NAME is Powering up, was WaitForLaunch for TIME
VM.create: NAME is Up, was Powering up for TIME
VM.hotplugDisk: VM.hotplugDisk of VM ID called by CLIENT
VM.hotplugDisk: NAME: disk vdb (volumes/DATA on Ceph) was plugged
VM.hotplugDisk: VM.hotplugDisk of VM ID ok in TIME
VM.hotplugDisk: VM.hotplugDisk of VM ID called by CLIENT
VM.hotplugDisk: VM.hotplugDisk of VM ID failed with code 45 in TIME: disk volumes/DATA is plugged \
into VM ID already, as vdb; nothing was changed
VM.hotunplugDisk: VM.hotunplugDisk of VM ID called by CLIENT
VM.hotunplugDisk: NAME: disk vdb (volumes/DATA on Ceph) was unplugged
VM.hotunplugDisk: VM.hotunplugDisk of VM ID ok in TIME
None: NAME is Paused, was Up for TIME: somebody did that through libvirt, not through this daemon
None: NAME is Up, was Paused for TIME: somebody did that through libvirt, not through this daemon
VM.pause: VM.pause of VM ID called by CLIENT
VM.pause: NAME is Paused, was Up for TIME
VM.pause: VM.pause of VM ID ok in TIME
VM.cont: VM.cont of VM ID called by CLIENT
VM.cont: NAME is Up, was Paused for TIME
VM.cont: VM.cont of VM ID ok in TIME
VM.destroy: VM.destroy of VM ID called by CLIENT
VM.destroy: NAME is Down, was Up for TIME: The VM was destroyed by an administrator.
VM.destroy: VM.destroy of VM ID ok in TIME
"""


@alike
async def test_the_journal_tells_a_vms_whole_story(engine, image):
    host = engine.daemon.host
    vm_id, boot, data = await live_a_life(engine, image)
    host.run(["journalctl", "--sync"])
    entries = host.journal(f"VM_ID={vm_id}")
    (client,) = {entry["CLIENT"] for entry in entries if "VERB" in entry}
    assert re.fullmatch(r"CN=engine,O=lab at [0-9.]+:\d+ \(stomp\)", client)
    names = {f"vm-{vm_id}": "NAME", vm_id: "ID", boot: "BOOT", data: "DATA", client: "CLIENT"}
    story = "".join(f"{entry.get('VERB')}: {entry['MESSAGE']}\n" for entry in entries)
    for known, name in names.items():
        story = story.replace(known, name)
    story = re.sub(r"\b[0-9.]+ m?s\b", "TIME", story)
    # Whether libvirt tells of that step before it is over is a matter of luck.
    story = re.sub(r".* is Powering down, .*\n", "", story)
    assert story.replace("was Powering down for", "was Up for") == STORY
    for entry in entries:
        ended = re.search(r" (?:ok|failed with code (\d+)) in ([0-9.]+) ms", entry["MESSAGE"])
        assert (entry.get("ERROR_CODE"), entry.get("DURATION_MS")) == (
            ended.groups() if ended else (None, None)
        )
        created = entry.get("VERB") == "VM.create"
        assert entry.get("FLOW_ID") == ("flow-of-create" if created else None)
        assert entry["PRIORITY"] == "6"
    everything = host.journal_bytes(f"--unit={SERVICE}")
    assert b"Host.registerSecrets ok in" in everything
    assert engine.lab.ceph.key.encode() not in everything


async def test_an_upgrade_refuses_nobody(engine, image, record_property):
    daemon = engine.daemon
    before = daemon.pid
    async with running_vm(engine, image()), Traffic(engine) as traffic:
        await asyncio.to_thread(daemon.upgrade)
        await asyncio.to_thread(restarted, daemon, before)
        await traffic.answered(20)
        daemon.wait_status("VMs: 1 running")
    record_property("upgrade", f"{dict(traffic.outcomes)}, longest {traffic.longest_s:.2f} s")
    assert traffic.outcomes["refused"] == 0
    assert traffic.outcomes["lost"] <= 1
    assert daemon.host.run(["grep", "allow_emulation", CONFIG]).strip() == "allow_emulation: true"


def test_nothing_went_wrong_that_nobody_thought_of(active):
    """In none of all this: no exception came as far as the event loop or the log."""
    said = [str(entry["MESSAGE"]) for entry in active.host.journal(f"--unit={SERVICE}")]
    assert [line for line in said if "Traceback" in line] == []


async def test_a_removal_leaves_the_vms_and_no_stray_files(engine, image):
    daemon = engine.daemon
    async with running_vm(engine, image()):
        await asyncio.to_thread(daemon.remove)
        assert [daemon.host.show(unit, "LoadState") for unit in UNITS] == ["not-found"] * 3
        assert daemon.traces() - daemon.traces_before == daemon.kept
