# SPDX-License-Identifier: GPL-2.0-or-later
"""The daemon as a package puts it on a host: installed, configured, run by systemd.

lab.engine.Engine takes it as it takes a daemon that was started from the source tree
(lab/host/daemon.py).
"""

from __future__ import annotations

import abc
import fcntl
import itertools
from pathlib import Path

from lab.base import REPOSITORY, run, wait_until
from lab.host.daemon import PORT
from lab.host.pages import health
from lab.pki import Pki
from lab.systemd.host import SystemdHost
from vdsmcinder import __version__

SERVICE = "vdsm-cinderd.service"
UNITS = (SERVICE, "vdsm-cinderd.socket", "vdsm-cinderd-local.socket")
CONFIG = "/etc/vdsm-cinder/vdsm-cinder.yaml"
PKI = "/etc/pki/vdsm"
PACKAGES = ("vdsm-cinder", "vdsm-cinder-common", "vdsm-cinder-client", "vdsm-cinder-docs")
OURS = ["(", "-name", "*vdsm-cinder*", "-o", "-name", "*vdsmcinder*", ")"]


class InstalledDaemon(abc.ABC):
    """The daemon of a host, by systemd's name for it.

    traces_before: what the host had of ours before. kept: what stays when it is removed.
    """

    HOST: str
    kept: frozenset[str]

    def __init__(self, host: SystemdHost, pki: Pki) -> None:
        self.host = host
        self.pki = pki
        self.port = PORT
        self.traces_before = self.traces()

    def traces(self) -> frozenset[str]:
        """The files of the host that are named after us."""
        find = ["find", "/etc", "/opt", "/run", "/usr", "/var/lib", "-xdev", *OURS, "-print"]
        return frozenset(self.host.run(find).splitlines())

    @abc.abstractmethod
    def install(self) -> None:
        """Install it for the first time."""

    @abc.abstractmethod
    def upgrade(self) -> None:
        """Install it once more, over itself, while it runs."""

    @abc.abstractmethod
    def remove(self) -> None:
        """Remove it, while it runs."""

    def configure(self) -> None:
        """Do what an administrator does: certificates, and the options that the lab needs."""
        identity = self.pki.identity(self.host.name)
        self.host.run(["install", "-d", f"{PKI}/certs", f"{PKI}/keys"])
        self.host.run(["install", "-m", "644", identity.cert, f"{PKI}/certs/vdsmcert.pem"])
        self.host.run(["install", "-m", "644", self.pki.ca, f"{PKI}/certs/cacert.pem"])
        key = ["install", "-m", "440", "-g", "vdsm-cinder", identity.key, f"{PKI}/keys/vdsmkey.pem"]
        self.host.run(key)
        self.set_option("allow_emulation: false", "allow_emulation: true")
        self.set_option("sample_interval_s: 5.0", "sample_interval_s: 1.0")

    def set_option(self, old: str, new: str) -> None:
        """Edit the configuration file that the package brought."""
        self.host.run(["sed", "--in-place", f"s/{old}/{new}/", CONFIG])
        self.host.run(["grep", "--quiet", new, CONFIG])

    @property
    def address(self) -> tuple[str, int]:
        """Where clients reach it."""
        return self.host.address, self.port

    @property
    def pid(self) -> int:
        """Its main process, 0 if there is none."""
        return int(self.host.show(SERVICE, "MainPID"))

    @property
    def state(self) -> str:
        """'active', 'inactive', 'failed', and so on."""
        return self.host.show(SERVICE, "ActiveState")

    @property
    def status(self) -> str:
        """The line that it shows in systemctl status."""
        return self.host.show(SERVICE, "StatusText")

    def wait_status(self, text: str, timeout_s: float = 30) -> None:
        """Return when its status line begins with text."""
        wait_until(lambda: self.status.startswith(text), f"the status line '{text}'", timeout_s)

    def wait_ready(self, timeout_s: float = 30) -> None:
        """Return when it has reached libvirt and knows its VMs."""
        socket = self.host.path("/run/vdsm-cinder/vdsm-cinder.sock")
        wait_until(lambda: health(socket)["ready"], "the daemon to know its VMs", timeout_s)

    def command(self, *args: object) -> str:
        """What the operator's command prints on the host."""
        return self.host.run(["vdsm-cinder", *args])


class RpmDaemon(InstalledDaemon):
    """Installed from the packages that are built of this tree, on a Debian whose rpm knows of none
    of their dependencies."""

    HOST = "host8"
    # An administrator's file that was edited.
    kept = frozenset({"/etc/vdsm-cinder", f"{CONFIG}.rpmsave"})
    _releases = itertools.cycle([".1", ".2"])

    def install(self) -> None:
        self._rpm("--install", *packages(next(self._releases)))

    def upgrade(self) -> None:
        # After the newer release comes the older one again; to the scriptlets it is the same.
        self._rpm("--upgrade", "--oldpackage", *packages(next(self._releases)))

    def remove(self) -> None:
        self._rpm("--erase", *PACKAGES)

    def _rpm(self, *arguments: object) -> None:
        self.host.run(["rpm", "--nodeps", *arguments], timeout_s=120)


class MadeDaemon(InstalledDaemon):
    """Installed with make below /usr/local, as on Debian."""

    HOST = "host9"
    kept = frozenset({"/etc/vdsm-cinder", CONFIG})

    def install(self) -> None:
        self._make("install")

    def upgrade(self) -> None:
        self._make("install")
        self.host.systemctl("restart", SERVICE)

    def remove(self) -> None:
        self._make("uninstall")

    def _make(self, target: str) -> None:
        self.host.run(["make", "--directory", REPOSITORY, target], timeout_s=120)


def packages(release: str) -> list[Path]:
    """The binary packages of this tree with release behind their release number: ".1" or ".2"."""
    REPOSITORY.joinpath("build").mkdir(exist_ok=True)
    # Tests of several labs ask for them at once; they are built once.
    with (REPOSITORY / "build/releases.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        run(["make", "--directory", REPOSITORY, "build/releases"], timeout_s=600)
    return sorted((REPOSITORY / "dist").glob(f"vdsm-cinder*-{__version__}-1{release}.noarch.rpm"))
