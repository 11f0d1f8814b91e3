# SPDX-License-Identifier: GPL-2.0-or-later
"""Does the lab do what the other functional tests rely on, from its start to its end?

Run in the lab: `python -m lab exec -- .venv/bin/pytest tests/functional/test_lab.py`.
"""

from __future__ import annotations

import base64
import os
import shutil
import signal
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import libvirt
import pytest

import lab
from lab import GuestConsole, Lab, LabError, console_of, disk_xml, domain_xml, wait_until
from lab.base import lab_dir, run
from lab.ceph.cluster import Ceph
from lab.guest.records import Comparison, compare
from lab.host.hypervisor import KINDS, Host, connect, start_first_process
from lab.namespace import Namespace, children, kill_and_wait

SECOND_LAB = Path(f"{lab_dir()}-test")


@pytest.fixture(scope="module")
def running() -> Lab:
    return Lab.attach()


@pytest.fixture
def connection(running: Lab) -> Iterator[libvirt.virConnect]:
    """libvirt of host1, reached from the engine's side."""
    with closing(libvirt.open(running.hosts["host1"].uri)) as conn:
        yield conn


def register_key(running: Lab, connection: libvirt.virConnect) -> libvirt.virSecret:
    """A libvirt secret with the key of client.cinder."""
    registered = connection.secretDefineXML(lab.secret_xml(str(uuid.uuid4())))
    registered.setValue(base64.b64decode(running.ceph.key))
    return registered


@pytest.fixture
def secret(running: Lab, connection: libvirt.virConnect) -> Iterator[str]:
    registered = register_key(running, connection)
    yield registered.UUIDString()
    registered.undefine()


@pytest.fixture
def image(running: Lab) -> Iterator[str]:
    with new_image(running, 32) as name:
        yield name


@contextmanager
def new_image(running: Lab, size_mib: int, source: Path | None = None) -> Iterator[str]:
    name = f"volume-{uuid.uuid4()}"
    running.ceph.create_image(name, size_mib, source)
    try:
        yield name
    finally:
        running.ceph.remove_image(name)


@contextmanager
def new_vm(
    running: Lab, host: Host, connection: libvirt.virConnect, disks: list[str]
) -> Iterator[tuple[libvirt.virDomain, GuestConsole]]:
    """A VM that runs the guest's kernel and is ready for commands."""
    name = f"vm-{uuid.uuid4()}"
    xml = domain_xml(host, name, str(uuid.uuid4()), disks, running.guest)
    domain = connection.createXML(xml)
    try:
        with console_of(host, name) as console:
            console.wait_for("^ready")
            yield domain, console
    finally:
        # Not with `domain`: a test may have restarted libvirtd since.
        if name in host.virsh("list", "--name"):
            host.virsh("destroy", name)


def wait_off(running: Lab, domain: libvirt.virDomain) -> None:
    host, name = running.hosts["host1"], domain.name()
    wait_until(lambda: name not in host.virsh("list", "--name"), "the VM to be off", 30)


@pytest.fixture
def vm(
    running: Lab, connection: libvirt.virConnect, secret: str, image: str
) -> Iterator[tuple[libvirt.virDomain, GuestConsole]]:
    """A VM whose disk vda is `image`."""
    disk = disk_xml(running.ceph, image, "vda", secret)
    with new_vm(running, running.hosts["host1"], connection, [disk]) as both:
        yield both


class TestCeph:
    def test_three_monitors_are_in_quorum_and_the_cluster_is_healthy(self, running: Lab) -> None:
        assert running.ceph.quorum() == ["a", "b", "c"]
        assert running.ceph.health() == "HEALTH_OK"

    def test_cinder_may_use_its_pool_and_no_other(self, running: Lab) -> None:
        as_cinder = ["rbd", "--conf", running.ceph.conf, "--id", running.ceph.user, "ls"]
        running.namespace.run([*as_cinder, running.ceph.pool])
        with pytest.raises(LabError, match="access denied"):
            running.ceph.ceph("--id", running.ceph.user, "osd", "pool", "create", "elsewhere")
        with pytest.raises(LabError, match="Operation not permitted"):
            running.namespace.run([*as_cinder, "device_health_metrics"])

    def test_an_image_comes_back_as_it_was_stored(self, running: Lab, tmp_path: Path) -> None:
        source = tmp_path / "source"
        source.write_bytes(lab.pattern(2, "stored"))
        with new_image(running, 4, source) as name:
            assert running.ceph.image_size(name) == 4 * 1024 * 1024
            assert running.ceph.read_image(name, 0, 2) == lab.pattern(2, "stored")
            assert running.ceph.read_image(name, 2, 2) == bytes(2 * 1024 * 1024)
            with pytest.raises(LabError, match="has no 2 MiB at 3 MiB"):
                running.ceph.read_image(name, 3, 2)

    @pytest.mark.parametrize("end", [Ceph.stop_osd, Ceph.kill_osd], ids=["stopped", "killed"])
    def test_data_survives_the_osds_end(
        self, running: Lab, tmp_path: Path, end: Callable[[Ceph], None]
    ) -> None:
        source = tmp_path / "source"
        source.write_bytes(lab.pattern(1, "kept"))
        with new_image(running, 1, source) as name:
            end(running.ceph)
            running.ceph.start_osd()
            assert running.ceph.checksum(name, 0, 1) == lab.pattern_checksum(1, "kept")


class TestHost:
    def test_is_reached_from_the_engines_side(
        self, running: Lab, connection: libvirt.virConnect, tmp_path: Path
    ) -> None:
        host, pki = running.hosts["host1"], running.pki
        assert connection.getHostname() == host.name
        assert f"<uuid>{host.uuid}</uuid>" in connection.getCapabilities()
        # As another host would: nobody else is let in.
        peer = pki.identity("host2-libvirt")
        files = {"cacert.pem": pki.hosts_ca, "clientcert.pem": peer.cert}
        for name, target in {**files, "clientkey.pem": peer.key}.items():
            (tmp_path / name).symlink_to(target)
        uri = f"qemu+tls://{host.address}/system?pkipath={tmp_path}"
        with closing(libvirt.open(uri)) as over_its_address:
            assert over_its_address.getHostname() == host.name

    def test_is_a_place_of_its_own(self, running: Lab) -> None:
        host = running.hosts["host1"]
        assert host.run(["hostname"]) == "host1\n"
        assert f"{host.address} host1\n" in host.run(["cat", "/etc/hosts"])
        host.run(["touch", "/etc/only-here"])
        assert not Path("/etc/only-here").exists()
        for absent in ("/dev/kvm", "/etc/ceph", running.ceph.conf):
            host.run(["test", "!", "-e", absent])

    def test_reaps_orphans(self, running: Lab) -> None:
        host = running.hosts["host1"]
        orphan = int(host.run(["sh", "-c", "sleep 0.1 >/dev/null 2>&1 & echo $!"]))
        wait_until(lambda: not host.path(f"/proc/{orphan}").exists(), "the orphan to go", 10)

    def test_a_signal_reaches_the_process_and_not_its_nsenter(self, running: Lab) -> None:
        script = "trap 'exit 3' TERM; echo set; while :; do sleep 0.05; done"
        command = running.hosts["host1"].popen(["sh", "-c", script], stdout=subprocess.PIPE)
        with command as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"set\n"
            process.terminate()
            assert process.wait(10) == 3

    def test_hosts_reach_the_monitors_whoever_ends(self, running: Lab) -> None:
        """A bridge without an address of its own has that of its lowest port, and loses it."""
        host, monitor = running.hosts["host1"], running.ceph.monitors[0]
        with first_on_the_bridge(running):
            call = ["bash", "-c", f"exec 3<>/dev/tcp/{monitor.address}/{monitor.v2_port}"]
            host.run(call)
        host.run(call, timeout_s=10)

    def test_libvirtd_restarts_below_a_running_vm(self, running: Lab, image: str) -> None:
        host = running.hosts["host2"]  # other tests' VMs and daemon are on host1
        with closing(libvirt.open(host.uri)) as conn:
            secret = register_key(running, conn).UUIDString()
            disk = disk_xml(running.ceph, image, "vda", secret)
            with new_vm(running, host, conn, [disk]) as (domain, console):
                host.restart_libvirtd()
                assert domain.name() in host.virsh("list", "--name")
                assert secret not in host.virsh("secret-list"), "ephemeral secrets go with libvirtd"
                assert console.ask("ping", "^pong$")


@contextmanager
def first_on_the_bridge(running: Lab) -> Iterator[None]:
    """A further host, whose port has the lowest address of all, until it ends with the block."""
    name = "host5"
    pid = start_first_process(running.namespace, running.directory, name)
    try:
        connect(running.namespace, Host(name, Namespace(pid, KINDS), running.directory))
        port = ["ip", "link", "set", name, "address", "00:00:00:00:00:01"]
        Namespace(running.namespace.pid, ("net",)).run(port)
        yield
    finally:
        kill_and_wait([pid])
        for made in ("hosts", "log"):
            shutil.rmtree(running.directory / made / name)


class TestGuest:
    def test_writes_what_the_host_reads(
        self, running: Lab, vm: tuple[libvirt.virDomain, GuestConsole], image: str
    ) -> None:
        _, console = vm
        assert console.disks() == {"vda": 32 * 1024 * 1024}
        written = console.write("vda", 3, 4, "seed1")
        assert written == lab.pattern_checksum(4, "seed1")
        assert written == running.ceph.checksum(image, 3, 4)
        assert written == console.checksum("vda", 3, 4)
        assert running.ceph.watchers(image)

    def test_says_what_it_cannot_do(self, vm: tuple[libvirt.virDomain, GuestConsole]) -> None:
        _, console = vm
        with pytest.raises(LabError, match="no such disk"):
            console.write("vdz", 0, 1, "x")
        with pytest.raises(LabError, match="failed sum vda 31 2"):
            console.checksum("vda", 31, 2)
        with pytest.raises(LabError, match="no such command"):
            console.ask("dance", "^danced$")

    def test_sees_disks_come_and_go(
        self,
        running: Lab,
        vm: tuple[libvirt.virDomain, GuestConsole],
        secret: str,
    ) -> None:
        domain, console = vm
        with new_image(running, 16) as second:
            disk = disk_xml(running.ceph, second, "vdb", secret)
            domain.attachDevice(disk)
            assert int(console.wait_for(r"^disk vdb added (\d+)$")[1]) == 16 * 1024 * 1024
            written = console.write("vdb", 0, 2, "hot")
            domain.detachDevice(disk)
            console.wait_for("^disk vdb removed$")
            wait_until(lambda: not running.ceph.watchers(second), "QEMU to close the image", 30)
            assert written == running.ceph.checksum(second, 0, 2)

    def test_a_deaf_guest_keeps_its_disk_until_it_hears(
        self,
        running: Lab,
        vm: tuple[libvirt.virDomain, GuestConsole],
        secret: str,
    ) -> None:
        domain, console = vm
        with new_image(running, 16) as second:
            disk = disk_xml(running.ceph, second, "vdb", secret)
            domain.attachDevice(disk)
            console.wait_for("^disk vdb added")
            console.ask("deaf", "^deaf$")
            domain.detachDevice(disk)
            assert "vdb" in console.disks()
            assert "vdb" in domain.XMLDesc()
            console.ask("hear", "^hearing$")
            console.wait_for("^disk vdb removed$")
            wait_until(lambda: not running.ceph.watchers(second), "QEMU to close the image", 30)

    def test_goes_on_writing_while_a_monitor_dies(
        self, running: Lab, vm: tuple[libvirt.virDomain, GuestConsole], image: str
    ) -> None:
        _, console = vm
        console.ask("hammer vda 7", "^hammer vda 5$")
        running.ceph.kill_mon("b")
        try:
            assert running.ceph.running_mons() == ["a", "c"]
            before = int(console.wait_for(r"^hammer vda (\d+)$")[1])
            running.ceph.wait_quorum(2)
            console.wait_for(f"^hammer vda {before + 100}$")
        finally:
            running.ceph.start_mon("b")
            running.ceph.wait_quorum(3)
        records = int(console.ask("stop", r"^hammered vda (\d+)$")[1])
        assert compare(running.ceph, image, 7, records) == Comparison(records, (), ())

    def test_the_power_button_turns_it_off(
        self, running: Lab, vm: tuple[libvirt.virDomain, GuestConsole]
    ) -> None:
        domain, console = vm
        domain.shutdown()
        console.wait_for("^power button$")
        wait_off(running, domain)

    def test_boots_from_an_image_of_the_pool(
        self, running: Lab, connection: libvirt.virConnect, secret: str
    ) -> None:
        host, name = running.hosts["host1"], f"vm-{uuid.uuid4()}"
        with new_image(running, 80, running.guest.boot_image) as boot:
            disk = disk_xml(running.ceph, boot, "vda", secret)
            xml = domain_xml(host, name, str(uuid.uuid4()), [disk], kernel=None)
            domain = connection.createXML(xml)
            try:
                with console_of(host, name) as console:
                    console.wait_for(f"^ready vda={80 * 1024 * 1024}$", 60)
            finally:
                domain.destroy()

    def test_its_pty_is_reached_from_the_engines_side(
        self, running: Lab, connection: libvirt.virConnect
    ) -> None:
        host, name = running.hosts["host1"], f"vm-{uuid.uuid4()}"
        xml = domain_xml(host, name, str(uuid.uuid4()), [], running.guest)
        before, _, rest = xml.partition("<serial")
        domain = connection.createXML(
            f"{before}<serial type='pty'/>{rest.partition('</serial>')[2]}"
        )
        with lab.pty_console(host, host.virsh("ttyconsole", name)) as console:
            console.wait_ready()
            assert console.disks() == {}
            console.send("poweroff")
        wait_off(running, domain)


class TestPki:
    def test_the_ca_vouches_for_engine_and_host_and_not_for_a_stranger(self, running: Lab) -> None:
        pki, host = running.pki, running.hosts["host1"]
        verify = ["openssl", "verify", "-x509_strict", "-CAfile", pki.ca]
        run([*verify, "-purpose", "sslclient", pki.engine.cert])
        server = pki.identity(host.name).cert
        for name in (["-verify_ip", host.address], ["-verify_hostname", host.name]):
            run([*verify, "-purpose", "sslserver", *name, server])
        with pytest.raises(LabError, match="unable to get local issuer certificate"):
            run([*verify, pki.foreign.cert])


class TestLifecycle:
    """With a second lab in a directory of its own, beside the one that runs."""

    @pytest.fixture(autouse=True)
    def cleanup(self) -> Iterator[None]:
        yield
        lab_command("down")

    def test_a_second_start_says_that_one_runs(self, running: Lab) -> None:
        result = subprocess.run(
            [sys.executable, "-m", "lab", "up"], capture_output=True, text=True, check=False
        )
        assert result.returncode == 1
        assert f"a lab runs already as process {running.first_pid}" in result.stderr
        assert len(result.stderr.splitlines()) == 1

    def test_an_interrupted_start_leaves_nothing(self) -> None:
        with half_started_lab() as (starting, family):
            starting.terminate()
            assert starting.wait(60) == 130
            assert not alive(family)
            assert not SECOND_LAB.exists()

    def test_a_killed_start_leaves_no_process(self) -> None:
        with half_started_lab() as (starting, family):
            starting.kill()
            wait_until(lambda: not alive(family), "all processes of the lab to end", 20)

    def test_a_failed_start_says_where_and_keeps_its_logs(self) -> None:
        with half_started_lab() as (starting, family):
            os.kill(family[0], signal.SIGKILL)
            assert starting.wait(60) == 1
            assert starting.stderr is not None
            (said,) = starting.stderr.read().splitlines()
        assert "the lab was not started, because 'Ceph" in said
        assert said.endswith(f"its logs are in {SECOND_LAB}.failed.")
        assert list(Path(f"{SECOND_LAB}.failed").iterdir())
        assert not SECOND_LAB.exists()

    def test_all_goes_with_its_first_process_and_the_next_start_works(self) -> None:
        assert lab_command("up").returncode == 0
        first = first_pid()
        family = descendants(first)
        assert len(family) > 8
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: not alive(family), "all processes of the lab to end", 20)

        assert lab_command("up").returncode == 0
        family = descendants(first_pid())
        assert lab_command("down").returncode == 0
        assert not alive(family)
        assert not SECOND_LAB.exists()
        assert str(SECOND_LAB) not in Path("/proc/self/mounts").read_text()
        assert lab_command("down").stdout == "No lab was running.\n"


def lab_process(*arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "VDSM_CINDER_LAB_DIR": str(SECOND_LAB)}
    command = [sys.executable, "-m", "lab", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, env=environment, text=True, stdout=pipe, stderr=pipe)


@contextmanager
def half_started_lab() -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A start of the second lab just past its namespaces, and the processes that it made."""
    with lab_process("up") as starting:
        out = starting.stdout
        assert out is not None
        assert any("namespaces" in line for line in out)
        family = [found for child in children(starting.pid) for found in descendants(child)]
        assert family
        try:
            yield starting, family
        finally:
            starting.kill()


def lab_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    with lab_process(*arguments) as process:
        out, err = process.communicate()
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def first_pid() -> int:
    return int((SECOND_LAB / "lock").read_text())


def descendants(pid: int) -> list[int]:
    return [pid, *(found for child in children(pid) for found in descendants(child))]


def alive(pids: list[int]) -> list[int]:
    """Those that run; a zombie does not."""

    def runs(pid: int) -> bool:
        try:
            stat = Path(f"/proc/{pid}/stat").read_text()
        except (FileNotFoundError, ProcessLookupError):
            return False
        return stat.rpartition(")")[2].split()[0] not in "ZX"

    return [pid for pid in pids if runs(pid)]
