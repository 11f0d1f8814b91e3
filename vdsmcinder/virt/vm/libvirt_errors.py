# SPDX-License-Identifier: GPL-2.0-or-later
"""What libvirt's and QEMU's words for a failure mean for an operator.

QEMU passes librbd's errno on as its text (qemu: block/rbd.c); the table below reads it back. Its
patterns are what libvirt 9, QEMU 7.2 and librbd 16 say; functional tests ask them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import libvirt

from vdsmcinder.errors import (
    ImageNotFound,
    OutOfMemory,
    ResourceUnavailable,
    UnsupportedDrive,
    VdsmCinderError,
)
from vdsmcinder.virt.disk.drive import Drive


@dataclass(frozen=True)
class Meaning:
    """A pattern in QEMU's text, what it means, and the error class where it has one of its own.

    of_disk: it is about a disk, which the error then names.
    """

    pattern: re.Pattern[str]
    cause: str
    remedy: str
    error: type[VdsmCinderError] | None = None
    of_disk: bool = True


MEANINGS: Sequence[Meaning] = (
    Meaning(
        re.compile(r"error connecting: (Operation not permitted|Permission denied)"),
        "Ceph does not accept the user or its key",
        "register the key that 'ceph auth get-key' prints for this user, with Host.registerSecrets",
    ),
    Meaning(
        re.compile(r"error connecting: Invalid argument"),
        "its secret holds no Ceph key",
        "register the key that 'ceph auth get-key' prints for this user, with Host.registerSecrets",
    ),
    Meaning(
        re.compile(r"error connecting: Operation not supported"),
        "the Ceph cluster wants a user and a key and the disk names none",
        "give the disk its auth",
    ),
    Meaning(
        re.compile(r"error connecting: Connection timed out"),
        "the Ceph cluster does not answer",
        "check the monitors and the network to them",
        ResourceUnavailable,
    ),
    Meaning(
        re.compile(r"error connecting: No such file or directory"),
        "it names no monitors and this host has no ceph.conf that does",
        "give the disk its hosts",
    ),
    Meaning(
        # What stands behind the pool is one name to such a libvirt, and it does not have a '/'.
        re.compile(r"error reading header from [^ ]+/[^ ]+: No such file or directory"),
        "it is in an RBD namespace, of which this host's libvirt knows nothing",
        "update libvirt, or keep the image outside of namespaces",
        UnsupportedDrive,
    ),
    Meaning(
        re.compile(r"Invalid password, cannot unlock any keyslot"),
        "the passphrase does not open it",
        "register the right one with Host.registerSecrets",
    ),
    Meaning(
        re.compile(r"encryption load fail: "),
        "the passphrase does not open it, or it is not encrypted in that format",
        "register the right one with Host.registerSecrets, or name the right format",
    ),
    Meaning(
        # libvirt 9 makes the object for QEMU when a VM starts, and forgets it at a hot-plug.
        re.compile(r"No secret with id '[^']*-encryption-secret"),
        "this host's libvirt cannot plug a disk that librbd decrypts",
        "give it to the VM from the start, or let QEMU decrypt it",
    ),
    Meaning(
        re.compile(r"error reading header from .*No such file or directory"),
        "the image does not exist in its pool",
        "check the volume in Cinder and its pool with 'rbd info'",
        ImageNotFound,
    ),
    Meaning(
        re.compile(r"error opening pool "),
        "the pool does not exist or the Ceph user may not use it",
        "check the pool's name and the user's capabilities with 'ceph auth get'",
        ImageNotFound,
    ),
    Meaning(
        re.compile(r"error reading header from .*Operation not permitted"),
        "the Ceph user may not open the image",
        "check the user's capabilities with 'ceph auth get'",
    ),
    Meaning(
        re.compile(r"Unknown driver 'rbd'"),
        "QEMU's rbd driver is not installed on this host",
        "install qemu-kvm-block-rbd or, on Debian, qemu-block-extra",
    ),
    Meaning(
        re.compile(r"Secret not found"),
        "the secret that the disk names is not registered on this host",
        "register it with Host.registerSecrets",
    ),
    Meaning(
        re.compile(r"No more available PCI (slots|addresses)"),
        "all PCIe ports that it has are taken",
        "unplug a device, plug disks with iface scsi where it has such a controller, or create it "
        "with more ports (vms.spare_pcie_ports in the daemon's configuration)",
        of_disk=False,
    ),
    Meaning(
        re.compile(
            r"Attempted double use of PCI Address|Found duplicate drive address for disk"
            r"|already contains a d(evice|isk) with (the same|that) address"
            r"|SCSI host address .* in use by"
        ),
        "another of its devices has that address",
        "give the device another address, or none: then libvirt finds one",
        of_disk=False,
    ),
    Meaning(
        re.compile(
            r"burst length (cannot be 0|set without|too high)|iops size requires an iops value"
            r"|bps/iops/max |bps_max/iops_max |block I/O throttle limit (value )?must be"
            r"|total and read/write (of )?\w+_sec(_max)? cannot be set"
            r"|cannot reset '\w+_sec\w*' when|value '\w+_sec\w*' cannot be smaller than"
            r"|group_name can be configured only"
        ),
        "its limits do not go together",
        "limit the total or its parts, give each burst (_max) a rate below it and each length "
        "(_max_length) a burst",
    ),
    Meaning(
        re.compile(r"different iotunes for disks"),
        "its limits are not those of the other disks in its group",
        "give it theirs, or another group_name",
    ),
    Meaning(
        re.compile(r"iothread '[^']*' not defined in iothreadid"),
        "it has no I/O thread of that number",
        "pin the disk to one that it has, or create it with more (numOfIoThreads)",
        of_disk=False,
    ),
    Meaning(
        re.compile(r"boot order .*(used by another|used for more than one) device"),
        "another of its devices has that place in the boot order",
        "give the device another, or none",
        of_disk=False,
    ),
    Meaning(
        re.compile(r"non unique alias detected"),
        "another of its devices has that alias",
        "give the device one of its own",
        of_disk=False,
    ),
    Meaning(
        re.compile(r"USB is disabled for this domain|Domain has no USB bus support"),
        "it has no USB controller",
        "take iface virtio or sata, or describe a USB controller",
        of_disk=False,
    ),
    Meaning(
        re.compile(r"Cannot allocate memory|cannot set up guest memory"),
        "the host has not enough memory",
        "stop other VMs or give this one less memory",
        OutOfMemory,
        of_disk=False,
    ),
    Meaning(
        re.compile(r"does not support virt type 'kvm'|Could not access KVM kernel module"),
        "hardware virtualisation is not usable on this host",
        "enable it in the firmware and load the kvm module, or allow vms.allow_emulation",
        of_disk=False,
    ),
    Meaning(
        re.compile(r"domain '.*' already exists with uuid"),
        "another VM of this host has its name",
        "give it a name of its own",
        of_disk=False,
    ),
    Meaning(
        re.compile(r"Cannot get interface MTU on '.*': No such device"),
        "its bridge does not exist on this host",
        "set the network up on this host, or name another",
        of_disk=False,
    ),
    Meaning(
        re.compile(r"Cannot access storage file .*No such file or directory"),
        "its file does not exist on this host",
        "name another, or put it there",
    ),
    Meaning(
        re.compile(r"unable to connect to server at '"),
        "the other host cannot be reached for it",
        "check that libvirt listens there, and that its firewall lets this host in, at port 16514 "
        "and, for QEMU's data, 49152 to 49215",
        of_disk=False,
    ),
    Meaning(
        re.compile(r"vcpu unplug request timed out"),
        "the guest did not let go of a processor in time",
        "VM.getInfo tells how many there are, call again when the guest is less busy",
        of_disk=False,
    ),
    Meaning(
        re.compile(r"Unable to encode message payload"),
        "its description is larger than the 4 MiB that libvirt takes",
        "make the description smaller",
        of_disk=False,
    ),
)

SEE_LOG = "look at QEMU's log in /var/log/libvirt/qemu"
# Codes of libvirt that say enough by themselves.
REMEDIES: Mapping[int, str] = {
    libvirt.VIR_ERR_OPERATION_TIMEOUT: "another operation on the VM is under way, call again later",
}
# What libvirt and QEMU put before the words that say what went wrong: who says it, when, and the
# argument of QEMU's command line that it is about.
_PREAMBLE = re.compile(
    r"internal error: |(process exited while connecting to|qemu unexpectedly closed the) monitor: "
    r"|unable to execute QEMU command '[^']*': |\d{4}-\d\d-\d\dT[\d:.]+Z |qemu-[\w-]+: "
    r"|-blockdev \{.*?\}: "
)
_LONGEST_QUOTE = 400


def explain(
    error: libvirt.libvirtError,
    action: str,
    failure: type[VdsmCinderError],
    drives: Sequence[Drive] = (),
    remedy: str = SEE_LOG,
) -> VdsmCinderError:
    """The error to answer with, for a libvirt error met while doing something with a VM.

    action: what failed, as the beginning of a sentence ('VM x could not be started').
    failure: the class to use where the fault has no class of its own.
    drives: the disks that were at stake; the sentence names the one that the text points to.
    remedy: what to do where the text says nothing that is known.
    """
    text = own_words(error)
    for meaning in MEANINGS:
        if meaning.pattern.search(str(error)):
            where = _culprit(str(error), drives) if meaning.of_disk else ""
            return (meaning.error or failure)(
                f"{action}: {where}{meaning.cause}; {meaning.remedy} ({text})", cause=meaning.cause
            )
    remedy = REMEDIES.get(error.get_error_code(), remedy)
    return failure(f"{action}: libvirt says: {text}; {remedy}")


def nothing_to_end(error: libvirt.libvirtError) -> bool:
    """Whether a domain could not be destroyed because it does not run, or is not there."""
    return error.get_error_code() in (
        libvirt.VIR_ERR_OPERATION_INVALID,
        libvirt.VIR_ERR_NO_DOMAIN,
    )


def own_words(error: libvirt.libvirtError) -> str:
    """What libvirt or QEMU say went wrong, on one line and without what leads up to it."""
    return _PREAMBLE.sub("", " ".join(str(error).split()))[:_LONGEST_QUOTE]


def _culprit(text: str, drives: Sequence[Drive]) -> str:
    """Which disk it was: the one whose image the text names, or the only one there is."""
    for drive in drives:
        image = drive.source.path.rsplit("/", 1)[-1]
        if image and image in text:
            return f"disk {drive.name} ({drive.source.path}): "
    return f"disk {drives[0].name} ({drives[0].source.path}): " if len(drives) == 1 else ""
