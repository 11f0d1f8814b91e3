# SPDX-License-Identifier: GPL-2.0-or-later
"""The lab's guest: Debian's cloud kernel, an initramfs of busybox, an image that boots both.

Built once and kept in the cache directory; lab/guest/files/init says what the guest does and obeys.
Its programs beyond busybox's are those of lab/guest/programs.py.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from lab.base import CACHE_DIR, LabError, run
from lab.guest import programs
from lab.steps import Step

FILES = Path(__file__).with_name("files")
BUSYBOX = Path("/bin/busybox")
# The unpacked packages of kernels in the cache.
KERNELS = "linux-image-*-cloud-amd64"
# Most of it makes the start quicker: an emulated processor has no flaws to be guarded against, and
# nobody in the guest has to be kept from anything.
KERNEL_ARGS = (
    "console=ttyS0 quiet loglevel=1 tsc=reliable no_timer_check random.trust_cpu=on"
    " mitigations=off lsm= apparmor=0 audit=0 cryptomgr.notests"
)
# How that which is packed into Debian's kernel begins: the legacy frame of lz4(1).
LZ4_MAGIC = b"\x02\x21\x4c\x18"
BOOT_IMAGE_MIB = 64
# In the order in which the guest loads them; what they depend on is loaded before them.
MODULES = (
    "virtio_pci",
    "virtio_blk",
    "button",
    "evdev",
    "virtio_scsi",
    "sd_mod",
    "sr_mod",
    "virtio_console",
    "virtio_rng",
    "virtio_balloon",
    "virtio_net",
)
DIRECTORIES = ("bin", "dev", "mnt", "modules", "proc", "sbin", "sys", "tmp", "etc/acpi/PWRF")
BLOCK_BYTES = 1024 * 1024


@dataclass(frozen=True)
class Guest:
    """What a VM boots the guest from: kernel, initrd and arguments, or a disk with the image."""

    kernel: Path
    initrd: Path
    boot_image: Path
    kernel_args: str = KERNEL_ARGS
    boot_image_mib: int = BOOT_IMAGE_MIB


def pattern(count_mib: int, seed: str) -> bytes:
    """The bytes that the guest's command `write DEV OFFSET_MIB <count_mib> <seed>` writes."""
    numbers = b"".join(b"%06d\n" % n for n in range(BLOCK_BYTES // 7 + 1))
    heads = (b"lab seed %s block %d\n" % (seed.encode(), block) for block in range(count_mib))
    return b"".join((head + numbers)[:BLOCK_BYTES] for head in heads)


def pattern_checksum(count_mib: int, seed: str) -> str:
    """The SHA-256 of `pattern`, in the form in which the guest prints it."""
    return hashlib.sha256(pattern(count_mib, seed)).hexdigest()


def build_guest(step: Step) -> Guest:
    """The guest out of the cache, or made of what lab.fetching brought: initramfs, boot image."""
    kernel_tree = _kernel_tree()
    agent = programs.AGENT_TREE / "usr/sbin/qemu-ga"
    sources = (Path(__file__), Path(programs.__file__), BUSYBOX, programs.MKE2FS, agent)
    parts = [path.read_bytes() for path in (*sorted(FILES.iterdir()), *sources)]
    version = hashlib.sha256(kernel_tree.name.encode() + b"".join(parts)).hexdigest()[:16]
    directory = CACHE_DIR / f"guest-{version}"
    if not directory.exists():
        step.progress("packing the initramfs and the boot image")
        _forget_outdated()
        with tempfile.TemporaryDirectory(dir=CACHE_DIR) as scratch:
            _build(kernel_tree, agent, Path(scratch) / "guest")
            (Path(scratch) / "guest").rename(directory)
    directory.touch()
    return Guest(directory / "vmlinux", directory / "initrd", directory / "boot.img")


def _forget_outdated() -> None:
    """Remove guests that no lab was started with for a day; a lab may be starting with another."""
    for guest in CACHE_DIR.glob("guest-*"):
        if guest.stat().st_mtime < time.time() - 86400:
            shutil.rmtree(guest)


def _kernel_tree() -> Path:
    """The unpacked kernel package in the cache; any version that is there will do."""
    unpacked = sorted(CACHE_DIR.glob(KERNELS))
    if not unpacked:
        raise LabError("the guest's kernel has not been fetched: run 'python -m lab fetch'")
    return unpacked[-1]


def _build(kernel_tree: Path, agent: Path, out: Path) -> None:
    out.mkdir()
    (kernel,) = (kernel_tree / "boot").glob("vmlinuz-*")
    shutil.copy(kernel, out / "vmlinuz")
    _unpack_kernel(out / "vmlinuz", out / "vmlinux")
    with tempfile.TemporaryDirectory() as root:
        _fill_initramfs(Path(root), kernel_tree)
        programs.add_programs(Path(root), agent)
        pack = f"find . | cpio --quiet --create --format=newc --owner=0:0 | gzip -9 >{out}/initrd"
        run(["sh", "-c", pack], cwd=root)
    _make_boot_image(out)


def _unpack_kernel(packed: Path, out: Path) -> None:
    """What QEMU can boot as it is (PVH): unpacking itself takes an emulated processor a second."""
    content = packed.read_bytes()
    begins = content.find(LZ4_MAGIC)
    if begins < 0:
        raise LabError(f"{packed} is not packed with LZ4 any more: see lab/guest/image.py")
    # lz4 complains of what follows, which is the rest of the boot protocol's.
    unpack = ["lz4", "--decompress", "--stdout"]
    done = subprocess.run(unpack, input=content[begins:], capture_output=True, check=False)
    if done.stdout[:4] != b"\x7fELF":
        raise LabError(f"{packed} could not be unpacked: {done.stderr.decode()}")
    out.write_bytes(done.stdout)


def _fill_initramfs(root: Path, kernel_tree: Path) -> None:
    for directory in DIRECTORIES:
        (root / directory).mkdir(parents=True)
    shutil.copy(FILES / "init", root / "init")
    # Where the guest agent looks for it.
    shutil.copy(FILES / "shutdown", root / "sbin")
    shutil.copy(FILES / "on-uevent", root / "bin")
    # acpid looks for what to do under the name of the event.
    shutil.copy(FILES / "on-power-button", root / "etc/acpi/PWRF/00000080")
    shutil.copy(BUSYBOX, root / "bin/busybox")
    for applet in run([BUSYBOX, "--list"]).split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    for number, module in enumerate(_modules_in_order(kernel_tree)):
        shutil.copy(module, root / f"modules/{number:02}-{module.name}")


def _modules_in_order(kernel_tree: Path) -> list[Path]:
    files = {
        path.stem.replace("-", "_"): path for path in (kernel_tree / "lib/modules").rglob("*.ko")
    }
    order: list[Path] = []

    def add(name: str) -> None:
        if files[name] in order:
            return
        # Section .modinfo holds name=value strings; depends= is there even when it is empty.
        found = re.search(rb"\0depends=([^\0]*)\0", files[name].read_bytes())
        for dependency in found[1].decode().split(",") if found and found[1] else ():
            add(dependency.replace("-", "_"))
        order.append(files[name])

    for module in MODULES:
        add(module)
    return order


def _make_boot_image(out: Path) -> None:
    """A FAT file system from the first sector on, which SeaBIOS and SYSLINUX boot as it is."""
    image = out / "boot.img"
    config = out / "syslinux.cfg"
    config.write_text(
        f"default lab\nlabel lab\n  linux vmlinuz\n  initrd initrd\n  append {KERNEL_ARGS}\n"
    )
    with image.open("wb") as file:
        os.truncate(file.fileno(), BOOT_IMAGE_MIB * 1024 * 1024)
    sectors = BOOT_IMAGE_MIB * 1024 * 1024 // 512
    run(["mformat", "-i", image, "-T", sectors, "-h", 64, "-s", 32, "::"])
    run(["mcopy", "-i", image, out / "vmlinuz", out / "initrd", config, "::"])
    run(["syslinux", "--install", image])
    config.unlink()
