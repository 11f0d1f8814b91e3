# SPDX-License-Identifier: GPL-2.0-or-later
"""Changes of the host's networks: against the kernel, in a network namespace of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.pages import REPOSITORY
from tests.unit.host.test_capabilities import net
from vdsmcinder.host.network import Network
from vdsmcinder.host.network_watch import lasting

assert net  # a fixture

WATCH = """
import asyncio, subprocess
from vdsmcinder.host.network_watch import NetworkWatch
from vdsmcinder.tasks import Tasks

def ip(*words):
    subprocess.run(["ip", *words], check=True)

async def main():
    seen = asyncio.Queue()
    watch = NetworkWatch(Tasks("networks"), seen.put_nowait)
    await watch.start()
    ip("link", "add", "br7", "type", "bridge")
    assert (await seen.get()).links["br7"].addresses == ()
    # A VM's interface comes and goes, which nobody is told of; what is told next is the address.
    ip("tuntap", "add", "vnet0", "mode", "tap")
    ip("link", "set", "vnet0", "master", "br7")
    ip("link", "del", "vnet0")
    ip("address", "add", "192.0.2.7/24", "dev", "br7")
    found = await seen.get()
    assert str(found.links["br7"].addresses[0].interface) == "192.0.2.7/24"
    ip("link", "del", "br7")
    assert "br7" not in (await seen.get()).links
    assert seen.empty()
    await watch.close()
    print("watched")

asyncio.run(asyncio.wait_for(main(), 120))
"""


def test_what_the_kernel_changes_is_noticed(tmp_path: Path) -> None:
    script = tmp_path / "watch.py"
    script.write_text(WATCH)
    # sysfs shows the links of the namespace that it was mounted in.
    command = f'mount -t sysfs sysfs /sys && exec "{sys.executable}" "{script}"'
    done = subprocess.run(
        ["unshare", "--net", "--mount", "sh", "-c", command],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert done.stdout == "watched\n", done.stderr


def test_a_vms_interface_in_a_bridge_is_no_change(net: Network) -> None:
    told = lasting(net)
    assert told["bridges"]["ovirtmgmt"]["ports"] == ["bond0.7"]
    assert told["networks"]["ovirtmgmt"]["ports"] == ["bond0.7"]
