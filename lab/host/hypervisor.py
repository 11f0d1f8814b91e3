# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's hypervisors: each with an overlay root, an address and a libvirtd of its own.

`Lab.attach().hosts["host1"]` is one.
"""

from __future__ import annotations

import shlex
import signal
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab.base import PREFIX, REPOSITORY, LabError, wait_until
from lab.namespace import Namespace, NamespacedProcess, children, first_of, pid_inside
from lab.pki import LIBVIRT, QEMU, Pki

BRIDGE = "lab0"
BRIDGE_MAC = "02:00:0a:4d:00:01"
KINDS = ("mount", "net", "pid", "uts", "ipc")
NEW_NAMESPACES = ("--mount", "--propagation=unchanged", "--net", "--pid", "--uts", "--ipc")
ROOT_SCRIPT = Path(__file__).with_name("host-root.sh")

LIBVIRTD_CONF = """\
host_uuid = "{uuid}"
auth_unix_ro = "none"
auth_unix_rw = "none"
listen_tls = 1
listen_tcp = 0
listen_addr = "{address}"
tls_allowed_dn_list = ["O=*,OU=libvirt,CN=*", "CN=*,OU=libvirt,O=*"]
log_outputs = "3:file:/var/log/libvirt/libvirtd.log"
"""

QEMU_CONF = """\
security_driver = "none"
cgroup_controllers = []
"""

# Where libvirt looks for its own certificates, and for those of QEMU's data (docs/operator.md).
LIBVIRT_PKI = "/etc/pki/libvirt"
MIGRATION_PKI = "/etc/pki/libvirt-migrate"


def address_of(name: str) -> str:
    """The address of a host by its name: host1 has 10.77.0.101."""
    return f"{PREFIX}.{100 + int(name[len('host') :])}"


def uuid_of(name: str) -> str:
    """The UUID of a host by its name."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"{name}.lab"))


@dataclass(frozen=True)
class Host:
    """One hypervisor. Files below `lab_dir` have the same path inside and on the engine's side."""

    name: str
    namespace: Namespace
    lab_dir: Path

    @property
    def address(self) -> str:
        """Its IP address on the lab's network."""
        return address_of(self.name)

    @property
    def uuid(self) -> str:
        """What its libvirt reports as the host's UUID."""
        return uuid_of(self.name)

    @property
    def libvirt_socket(self) -> Path:
        """libvirtd's socket."""
        return self.lab_dir / "hosts" / self.name / "libvirt" / "libvirt-sock"

    @property
    def uri(self) -> str:
        """The libvirt URI that works inside and on the engine's side."""
        return f"qemu+unix:///system?socket={self.libvirt_socket}"

    @property
    def log(self) -> Path:
        """The directory of libvirtd.log and of QEMU's logs (qemu/NAME.log)."""
        return self.lab_dir / "log" / self.name

    def run(self, argv: Sequence[object], timeout_s: float = 60, **options: Any) -> str:
        """Run a command on this host to its end; its stdout, or LabError with its stderr."""
        return self.namespace.run(argv, timeout_s, **options)

    def popen(self, argv: Sequence[object], **options: Any) -> NamespacedProcess:
        """Start a command on this host (options of subprocess.Popen); the caller ends it."""
        return self.namespace.popen(argv, **options)

    def virsh(self, *args: object, timeout_s: float = 60) -> str:
        """Run `virsh …` on this host; its stdout without the blank lines around it."""
        return self.run(["virsh", "--quiet", "--connect", self.uri, *args], timeout_s).strip()

    def path(self, inside: str) -> Path:
        """An absolute path of this host as the engine's side opens it, a pty for instance."""
        return self.namespace.root / inside.lstrip("/")

    def start_libvirtd(self) -> None:
        """Start libvirtd; returns when it answers. Secrets that it held before are gone."""
        if self._libvirtd_runs():
            raise LabError(f"libvirtd of {self.name} runs already: stop it before starting it")
        self.run(["libvirtd", "--daemon", "--listen"])
        self.virsh("version")

    def stop_libvirtd(self) -> None:
        """Stop libvirtd in good order; VMs go on running."""
        self._end_libvirtd(signal.SIGTERM)

    def kill_libvirtd(self) -> None:
        """End libvirtd as a crash would; VMs go on running."""
        self._end_libvirtd(signal.SIGKILL)

    def restart_libvirtd(self) -> None:
        """Stop libvirtd and start it again."""
        self.stop_libvirtd()
        self.start_libvirtd()

    @property
    def libvirtd_pid(self) -> int:
        """The pid of its libvirtd as the host counts it, 0 if it has none."""
        file = self.path("/run/libvirtd.pid")
        return int(file.read_text() or 0) if file.exists() else 0

    def _libvirtd_runs(self) -> bool:
        pid = self.libvirtd_pid
        return pid > 0 and self.namespace.has(pid)

    def _end_libvirtd(self, sig: signal.Signals) -> None:
        if not self._libvirtd_runs():
            raise LabError(f"libvirtd of {self.name} does not run")
        self.namespace.end(self.libvirtd_pid, sig)
        self.path("/run/libvirtd.pid").unlink(missing_ok=True)


def make_host(lab: Namespace, lab_dir: Path, name: str, peers: Mapping[str, str]) -> Host:
    """Start a host inside the lab's namespaces: its root, its network, virtlogd and libvirtd.

    `peers` are the names and addresses of all hosts, for its /etc/hosts.
    """
    host = Host(name, Namespace(start_first_process(lab, lab_dir, name), KINDS), lab_dir)
    connect(lab, host)
    for path, content in settings(name, peers, LIBVIRTD_CONF).items():
        host.path(path).write_text(content)
    certify(host, Pki(lab_dir / "pki"))
    host.run(["virtlogd", "--daemon"])
    host.start_libvirtd()
    return host


def start_first_process(lab: Namespace, lab_dir: Path, name: str, init: str = "tini") -> int:
    """Make a host's namespaces and root; the pid of its first process, tini or systemd."""
    directory, log = lab_dir / "hosts" / name, lab_dir / "log" / name
    for path in (directory / "root", directory / "libvirt", log):
        path.mkdir(parents=True)
    unshare = ["unshare", *NEW_NAMESPACES, "--fork", "--kill-child"]
    command = shlex.join([*unshare, str(ROOT_SCRIPT), name, str(lab_dir), str(REPOSITORY), init])
    output = shlex.quote(str(log / "root.log"))
    # In the background of a shell that ends at once, so that the lab's PID 1 becomes the parent.
    background = f"setsid {command} >{output} 2>&1 </dev/null & echo $!"
    inside = int(lab.run(["sh", "-c", background]))

    def first() -> int | None:
        if not lab.has(inside):
            said = (log / "root.log").read_text().strip()
            raise LabError(f"the namespaces of {name} could not be made: {said}")
        ours = (pid for pid in children(lab.pid) if pid_inside(pid) == inside)
        return next((found for pid in ours if (found := first_of(pid, init))), None)

    return wait_until(first, f"the first process of {name}", 20)


def connect(lab: Namespace, host: Host) -> None:
    """Give a host its address on the lab's network."""
    # Outside the lab's pid namespace: the host's network namespace goes by its pid out here.
    bridge_side = Namespace(lab.pid, ("net",))
    peer = ["peer", "name", "eth0", "netns", host.namespace.pid]
    bridge_side.run(["ip", "link", "add", host.name, "type", "veth", *peer])
    bridge_side.run(["ip", "link", "set", host.name, "master", BRIDGE, "up"])
    host.run(["ip", "link", "set", "lo", "up"])
    host.run(["ip", "address", "add", f"{host.address}/24", "dev", "eth0"])
    host.run(["ip", "link", "set", "eth0", "up"])


def certify(host: Host, pki: Pki) -> None:
    """Give its libvirtd and its QEMU certificates of the hosts' CA, each its own."""
    mine = pki.identity(f"{host.name}-{LIBVIRT}")
    links = {"/etc/pki/CA/cacert.pem": pki.hosts_ca}
    for end in ("server", "client"):
        links[f"{LIBVIRT_PKI}/{end}cert.pem"] = mine.cert
        links[f"{LIBVIRT_PKI}/private/{end}key.pem"] = mine.key
    for link, target in links.items():
        host.path(link).parent.mkdir(parents=True, exist_ok=True)
        host.path(link).unlink(missing_ok=True)
        host.path(link).symlink_to(target)
    # QEMU runs as a user of its own, who reads no private key of the daemon's.
    mine = pki.identity(f"{host.name}-{QEMU}")
    host.path(MIGRATION_PKI).mkdir(exist_ok=True)
    host.run(["install", "--mode", "0644", pki.hosts_ca, f"{MIGRATION_PKI}/ca-cert.pem"])
    for end in ("server", "client"):
        host.run(["install", "--mode", "0644", mine.cert, f"{MIGRATION_PKI}/{end}-cert.pem"])
        key = f"{MIGRATION_PKI}/{end}-key.pem"
        host.run(["install", "--mode", "0440", "--group", "kvm", mine.key, key])


def settings(name: str, peers: Mapping[str, str], libvirtd_conf: str) -> dict[str, str]:
    """What a host's files hold that tell who it is, and its libvirtd how to be; by their paths."""
    names = "".join(f"{address} {peer}\n" for peer, address in peers.items())
    return {
        "/etc/hosts": f"127.0.0.1 localhost\n{names}",
        "/etc/hostname": f"{name}\n",
        "/etc/machine-id": f"{uuid_of(name).replace('-', '')}\n",
        "/etc/libvirt/libvirtd.conf": libvirtd_conf.format(
            uuid=uuid_of(name), address=address_of(name)
        ),
        "/etc/libvirt/qemu.conf": QEMU_CONF,
    }
