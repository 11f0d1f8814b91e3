# SPDX-License-Identifier: GPL-2.0-or-later
"""Walks through the documentation as its reader would: page by page, command by command.

On hosts that boot systemd, one like an EL system and one for what is said of Debian. `python -m
tests.functional.walk`, which is `make docs`, writes into the pages what is printed.
"""

from __future__ import annotations

import os
import re
import selectors
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lab.base import REPOSITORY, LabError
from lab.host.hypervisor import address_of
from lab.namespace import CLEAN_ENVIRONMENT
from lab.running import Lab
from lab.systemd.host import SystemdHost, boot
from lab.systemd.installed import packages
from tests import pages
from tests.pages import PAGES, Block, Command, Kind, Place

EL, DEBIAN = "host6", "host7"
COMMAND_TIMEOUT_S = 60
HOME = "/root"
# Neither system's package manager can be had here, so that these stand in for them: rpm installs
# without the dependencies, and those of Debian are installed already, or the lab would not run.
STAND_INS = {
    "dnf": """\
#!/bin/sh
verb=$1; shift
case $verb in
    install|upgrade) set -- --upgrade --replacepkgs "$@" ;;
    remove) set -- --erase "$@" ;;
    *) echo "dnf $verb: only install, upgrade and remove" >&2; exit 1 ;;
esac
said=$(rpm --nodeps "$@" 2>&1) || { echo "$said"; exit 1; }
""",
    "apt-get": """\
#!/bin/sh
[ "$1" = install ] || { echo "apt-get $1: only install" >&2; exit 1; }
shift
dpkg-query --show "$@" >/dev/null
""",
}
CLONE = f"{HOME}/vdsm-cinder"
# As the reader's own network would have them.
NAMES = {
    "host1.example.com": address_of(EL),
    "host2.example.com": address_of(DEBIAN),
    "engine.example.com": "10.77.0.1",
}
CEPH_CONF = """\
[global]
fsid = {fsid}
mon_host = {addresses}
keyring = /etc/ceph/$cluster.$name.keyring
"""
# What a page tells its reader to bring from the first host to the second.
BROUGHT = f"{HOME}/host2.tar"
MARK = "-- that was it --"


class Shell:
    """A reader's shell on a host, which keeps directory, functions and jobs between commands."""

    def __init__(self, host: SystemdHost) -> None:
        self._process = host.popen(
            ["bash", "--norc"],
            env={**CLEAN_ENVIRONMENT, "COLUMNS": "100", "PAGER": "cat", "SYSTEMD_COLORS": "0"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        assert self._process.stdout is not None
        self._output = self._process.stdout
        os.set_blocking(self._output.fileno(), False)
        self._type(f"cd {HOME}\n")

    def run(self, command: str, timeout_s: float = COMMAND_TIMEOUT_S) -> tuple[int, str]:
        """Run a command to its end; its exit code, and all that it printed."""
        self._type(f"{{ {command}\n}} </dev/null; printf '\\n{MARK} %d\\n' $?\n")
        end = re.compile(rf"\n{MARK} (\d+)\n$")
        printed, deadline = "", time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self._output, selectors.EVENT_READ)
            while not (found := end.search(printed)):
                if not selector.select(max(0, deadline - time.monotonic())):
                    raise LabError(f"'{command}' was not done after {timeout_s:g} s: {printed}")
                chunk = os.read(self._output.fileno(), 65536)
                if not chunk:
                    raise LabError(f"'{command}' ended the shell: {printed}")
                printed += chunk.decode()
        return int(found[1]), printed[: found.start()]

    def close(self) -> None:
        """End the shell and what still runs in it."""
        self._process.kill()
        self._process.wait()

    def _type(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(text.encode())
        self._process.stdin.flush()


class Walk:
    """The hosts that a reader has, and a shell on each."""

    def __init__(self, lab: Lab, packages: list[Path]) -> None:
        self._lab = lab
        self._packages = packages
        self._hosts: dict[str, SystemdHost] = {}
        self._shells: dict[str, Shell] = {}
        self._images_before = self._images()

    def start(self) -> None:
        """Boot the hosts, and put there what the pages take for granted."""
        for name in (EL, DEBIAN):
            host = self._hosts[name] = boot(self._lab, name)
            self._prepare(host)
            self._shells[name] = Shell(host)

    def close(self) -> None:
        """End the hosts and all that runs on them."""
        for shell in self._shells.values():
            shell.close()
        for host in self._hosts.values():
            host.end()
        for image in self._images() - self._images_before:
            self._lab.ceph.rbd("snap", "purge", image)
            self._lab.ceph.remove_image(image)

    def take(self, block: Block) -> Iterator[tuple[Command, int, str]]:
        """Do what a block tells: save a file, or run commands; each with its code and output."""
        if block.saved_as:
            self._save(self._hosts[EL], f"{HOME}/{block.saved_as}", block.text)
        elif block.kind is Kind.CONSOLE and block.place is not Place.CLONE:
            shell = self._shells[EL if block.place is Place.HOST else DEBIAN]
            self._bring()
            for command in pages.commands(block):
                yield (command, *shell.run(command.text))

    def _bring(self) -> None:
        made = self._hosts[EL].path(BROUGHT)
        if made.exists():
            self._copy(self._hosts[DEBIAN], made, BROUGHT)

    def _images(self) -> set[str]:
        return set(self._lab.ceph.images())

    def _prepare(self, host: SystemdHost) -> None:
        host.run(["hostname", next(n for n, a in NAMES.items() if a == host.address).split(".")[0]])
        for name, script in STAND_INS.items():
            self._save(host, f"/usr/local/bin/{name}", script)
            host.run(["chmod", "755", f"/usr/local/bin/{name}"])
        names = {f"mon{n + 1}.example.com": m.address for n, m in enumerate(self._monitors)}
        lines = "".join(f"{address} {name}\n" for name, address in {**NAMES, **names}.items())
        self._save(host, "/etc/hosts", f"127.0.0.1 localhost\n{lines}")
        self._give_ceph(host)
        for package in self._packages:
            self._copy(host, package, f"{HOME}/{package.name}")
        self._copy(host, self._lab.guest.boot_image, f"{HOME}/guest.img")
        # A clone of the repository, as root has one.
        if str(REPOSITORY) != CLONE:
            host.run(["ln", "-s", REPOSITORY, CLONE])

    @property
    def _monitors(self):
        return self._lab.ceph.monitors

    def _give_ceph(self, host: SystemdHost) -> None:
        """The cluster's administrator works on this host, too."""
        ceph = self._lab.ceph
        addresses = ",".join(m.address for m in self._monitors)
        conf = CEPH_CONF.format(fsid=ceph.ceph("fsid").strip(), addresses=addresses)
        self._save(host, "/etc/ceph/ceph.conf", conf)
        keyring = ceph.directory / "client.admin.keyring"
        self._copy(host, keyring, "/etc/ceph/ceph.client.admin.keyring")

    @staticmethod
    def _save(host: SystemdHost, path: str, content: str) -> None:
        file = host.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")

    @staticmethod
    def _copy(host: SystemdHost, source: Path, path: str) -> None:
        file = host.path(path)
        file.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, file)


@contextmanager
def walk(lab: Lab) -> Iterator[Walk]:
    """A walk that is ready for its first page; the packages that it installs are built before."""
    begun = Walk(lab, packages(".1"))
    try:
        begun.start()
        yield begun
    finally:
        begun.close()


def main(names: list[str]) -> int:
    """Write into the pages what their commands print, where it is not what they show."""
    with walk(Lab.attach()) as reader:
        for page in PAGES:
            changes: list[tuple[Command, str]] = []
            try:
                changes.extend(_changes(reader, page))
            finally:
                if not names or page.name in names:
                    _write(page, changes)
    return 0


def _changes(reader: Walk, page: Path) -> Iterator[tuple[Command, str]]:
    for block in pages.blocks(page):
        for command, code, printed in reader.take(block):
            wrong = pages.fault(command, code, printed)
            print(wrong or f"{command.where}: {command.text}", flush=True)
            if wrong and command.shown:
                yield command, printed


def _write(page: Path, changes: list[tuple[Command, str]]) -> None:
    lines = page.read_text(encoding="utf-8").splitlines()
    for command, printed in reversed(changes):
        first = command.line + command.text.count("\n")
        lines[first : first + len(command.shown)] = printed.splitlines()
    page.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
