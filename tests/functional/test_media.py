# SPDX-License-Identifier: GPL-2.0-or-later
"""The medium in a CD drive, as the guest reads it."""

from __future__ import annotations

import pytest

from lab.guest.image import pattern, pattern_checksum
from tests.functional.helpers import refused

pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest.fixture
def isos(lab):
    """Two files with data of their own, where the host reads them."""
    made = [lab.directory / f"cd-{seed}.iso" for seed in ("one", "two")]
    for path in made:
        path.write_bytes(pattern(1, path.stem))
    yield made
    for path in made:
        path.unlink()


async def medium(guest):
    """The checksum of what is in the drive; empty without a medium."""
    return await guest.shell(
        "dd if=/dev/sr0 of=/tmp/cd bs=1M count=1 2>/dev/null && sha256sum </tmp/cd | cut -d' ' -f1"
        " || echo nothing"
    )


async def test_media_are_changed_and_taken_out(guest, isos):
    assert await medium(guest) == "nothing"
    for spec in (str(isos[0]), {"path": str(isos[1]), "iface": "scsi", "index": "0"}):
        info = await guest.call("changeCD", driveSpec=spec)
        path = spec if isinstance(spec, str) else spec["path"]
        (drive,) = [d for d in info["devices"] if d["device"] == "cdrom"]
        assert (drive["path"], drive["readonly"]) == (path, True)
        assert await medium(guest) == pattern_checksum(1, path.rpartition("/")[2][:-4])
    info = await guest.call("changeCD", driveSpec={"path": "", "iface": "scsi", "index": "0"})
    (drive,) = [d for d in info["devices"] if d["device"] == "cdrom"]
    assert drive["path"] == ""
    assert await medium(guest) == "nothing"


async def test_what_is_refused(guest, isos):
    await guest.call("changeCD", driveSpec=str(isos[0]))
    for spec, number, words in (
        ("/nowhere/x.iso", 41, "/nowhere/x.iso"),
        ({"path": str(isos[1]), "iface": "sata", "index": 3}, 41, "no CD drive sdd"),
        ({"path": f"volumes/{guest.image}", "protocol": "rbd"}, 36, "protocol"),
        ({"path": f"volumes/{guest.image}", "diskType": "network"}, 36, "diskType network"),
        ({"GUID": "x"}, 36, "GUID"),
        ("volumes/x", 91, "expected an absolute path on this host"),
        (7, 91, "neither a path nor an object"),
    ):
        with refused(number, words):
            await guest.call("changeCD", driveSpec=spec)
    assert await medium(guest) == pattern_checksum(1, "cd-one")
    await guest.call("changeCD", driveSpec="")


async def test_a_drive_that_the_guest_has_locked(guest, isos):
    await guest.call("changeCD", driveSpec=str(isos[0]))
    # An open drive is locked; writing its medium is what keeps it open.
    await guest.after("exec 9</dev/sr0 && say locked", "^locked$")
    try:
        with refused(41, "drive sda"):
            await guest.call("changeCD", driveSpec="")
        assert await medium(guest) == pattern_checksum(1, "cd-one")
    finally:
        await guest.after("exec 9<&- && say free", "^free$")
    await guest.call("changeCD", driveSpec="")
    assert await medium(guest) == "nothing"
