# SPDX-License-Identifier: GPL-2.0-or-later
"""Every option of the daemon, with its default and what it is for.

One YAML file is loaded into these classes, and `vdsm-cinderd --show-config` prints them back as a
documented file. ConfigError names the option and what is expected.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import re
import textwrap
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from vdsmcinder.uuids import is_uuid

DEFAULT_PATH = Path("/etc/vdsm-cinder/vdsm-cinder.yaml")

T = TypeVar("T")


class ConfigError(Exception):
    """The configuration cannot be used; the message names the option, its value and what fits."""


class CertificatesUnusable(ConfigError):
    """The options are well, but not the files that they name as they are now.

    Whoever renews certificates writes one file after the other, so another try may find them whole.
    """


def option(default: Any, doc: str, **limits: Any) -> Any:
    """A field with its documentation; limits are `minimum`, `maximum`, `choices`, `uuid`."""
    return field(default=default, metadata={"doc": " ".join(doc.split()), **limits})


def map_option(doc: str, **limits: Any) -> Any:
    """A field that maps names to values, none by default; the limits hold for the values."""
    return field(default_factory=dict, metadata={"doc": " ".join(doc.split()), **limits})


def list_option(doc: str, default: Sequence[str] = (), **limits: Any) -> Any:
    """A field that is a list of strings; the limits hold for each of them."""
    return field(default=tuple(default), metadata={"doc": " ".join(doc.split()), **limits})


@dataclass(frozen=True)
class Listen:
    """Where engines and operators connect."""

    address: str = option(
        "::", "Address of the TCP listener; '::' is every address, IPv4 included."
    )
    port: int = option(
        54321,
        "TCP port; engines expect 54321. 0 takes any free one.",
        minimum=0,
        maximum=65535,
    )
    tls: bool = option(
        True,
        """Require TLS with client certificates. Without it everyone who reaches the port controls
        all VMs: only for development.""",
    )
    certificate: str = option(
        "/etc/pki/vdsm/certs/vdsmcert.pem", "The host's certificate, PEM, with its chain."
    )
    key: str = option("/etc/pki/vdsm/keys/vdsmkey.pem", "The host's private key, PEM.")
    ca: str = option(
        "/etc/pki/vdsm/certs/cacert.pem",
        "The CA, PEM; clients must have a certificate signed by it.",
    )
    hosts_ca: str = option(
        "",
        """The CA of the hosts, PEM, if they have one of their own: its certificates are for the
        daemons of other hosts and let them call the verbs of migration that hosts call one another,
        and nothing else. Those that it made for libvirt and QEMU are refused. Empty for none: then
        other hosts are clients, of role admin.""",
    )
    crl: str = option(
        "",
        """Lists of revoked certificates (CRLs), PEM, one of each CA that signs clients' and hosts'
        certificates, and of each above it; empty for none. Whoever is on it is refused, and its
        connections end when the file is read again, which it is when it changes. With a list that
        is missing or out of date all clients of its CA are refused.""",
    )
    expiry_warning_days: int = option(
        30,
        """Days before the end of the host's certificate or its CA's from which on an event and the
        log warn of it, once a day, and /health lists it. 0 warns when it is too late.""",
        minimum=0,
    )
    unix_socket: str = option(
        "/run/vdsm-cinder/vdsm-cinder.sock",
        "JSON-RPC over HTTP for root on this host, used by the vdsm-cinder command.",
    )
    heartbeat_ms: int = option(
        1000,
        "Shortest heart-beat interval that a STOMP client may ask for, in ms.",
        minimum=100,
    )
    max_frame_bytes: int = option(
        1024 * 1024,
        """Largest STOMP frame or HTTP body that clients may send, in bytes; a larger one ends the
        connection. While a body of that size is read, for some 30 ms, nobody else is answered.""",
        minimum=4096,
    )
    max_buffer_bytes: int = option(
        16 * 1024 * 1024,
        """Unread replies and events, in bytes, after which a client that does not read is
        disconnected.""",
        minimum=65536,
    )
    max_held_bytes: int = option(
        256 * 1024 * 1024,
        """What all connections together may leave unread, and have sent and not been answered, in
        bytes; beyond it the one with the most is disconnected. One client, by its certificate, may
        have half of it. MemoryMax= of the unit is to leave room for it.""",
        minimum=1024 * 1024,
    )
    max_connections: int = option(
        4000,
        """Connections of clients that may stand at once; one client, by its certificate, may have
        half of them. If more come, whoever has most loses one.""",
        minimum=2,
    )


ROLES = ("admin", "viewer", "monitor", "none")


@dataclass(frozen=True)
class Access:
    """Who may do what. Read again on SIGHUP."""

    default_role: str = option(
        "admin",
        """Role of clients that roles does not name; engines need admin. admin may do everything;
        viewer what changes nothing; monitor the same, but for screens and domain documents; none
        nothing. Any client has a
        certificate that the CA of section listen signed, unless listen.tls is false. Recommended is
        none, with a role in roles for each client that there is: then a certificate that the CA
        signed for something else is of no use here.""",
        choices=ROLES,
    )
    roles: Mapping[str, str] = map_option(
        """Roles by the names in a client's certificate: its whole subject ('CN=grafana,O=Example',
        in any order and case), its common name ('grafana'), or an alternative name
        ('DNS:grafana.example.com', 'URI:spiffe://example.com/grafana', 'email:ops@example.com',
        'IP:192.0.2.7'); 'uid:997' is a local user who may connect to the unix socket. If several
        match, the subject counts, then the common name, then the alternative names. An entry that
        nobody can match keeps the daemon from starting.""",
        choices=ROLES,
    )


@dataclass(frozen=True)
class Libvirt:
    """How libvirt is reached."""

    uri: str = option("qemu:///system", "libvirt's connection URI.")
    call_timeout_s: float = option(
        30.0, "Deadline of one libvirt call, in seconds; starting a VM has its own.", minimum=1
    )
    start_timeout_s: float = option(
        120.0, "Deadline for libvirt to start a VM, in seconds.", minimum=1
    )
    threads: int = option(
        32,
        """libvirt calls that may be under way at once. Each VM whose QEMU process hangs keeps one
        until it goes on.""",
        minimum=2,
    )
    reconnect_max_s: float = option(
        10.0,
        "Longest pause between two attempts to reach a libvirtd that is gone, in seconds.",
        minimum=0.1,
    )


@dataclass(frozen=True)
class Vms:
    """How VMs are run."""

    allow_emulation: bool = option(
        False,
        """Run VMs under QEMU's emulation where hardware virtualisation is missing: domain type
        kvm becomes qemu. Very slow; for test hosts.""",
    )
    cinder_secret_uuid: str = option(
        "",
        """UUID of the registered secret with the CEPHX key of Cinder's volumes, for disks that are
        given as Cinder's connection info and name no secret, as they do while rbd_secret_uuid is
        not set in Cinder's configuration. Empty refuses such disks.""",
        uuid=True,
    )
    hotunplug_timeout_s: float = option(
        30.0,
        "How long an unplug waits for the guest to let go of the disk or NIC, in seconds.",
        minimum=0.1,
    )
    agent_timeout_s: int = option(
        10,
        """How long a guest's agent may take to answer, in seconds; freezing includes writing out
        what the guest has in memory.""",
        minimum=1,
    )
    snapshot_freeze_s: float = option(
        60.0,
        """How long VM.snapshot leaves a guest frozen that nobody thaws, in seconds, where the
        request does not say; then it is thawed, and an event says so.""",
        minimum=1,
    )
    sample_interval_s: float = option(
        5.0, "Interval between two samples of the VMs' statistics, in seconds.", minimum=0.2
    )
    spare_pcie_ports: int = option(
        16, "PCIe root ports to spare for hot-plug in VMs whose domain is written here.", minimum=0
    )


# What profile strict refuses, by the words of policy.allow.
DOCUMENT_KINDS = (
    *("chardevs", "commandline", "elements", "emulator", "files", "hostdev", "interfaces"),
    *("scripts", "seclabels"),
)


@dataclass(frozen=True)
class Policy:
    """What domain documents, and devices that are plugged, may hold."""

    documents: str = option(
        "vdsm",
        """vdsm: all that libvirt takes, as in VDSM, so that role admin is root on this host;
        strict: what a VM on Ceph needs, and no way to the host's files, programs and devices.""",
        choices=("vdsm", "strict"),
    )
    allow: Sequence[str] = list_option(
        """What strict lets through beside that. chardevs: serial ports, consoles and channels that
        lead to files, devices or sockets of the host; commandline: arguments of QEMU's own;
        elements: what is not known here; emulator: any program as QEMU; files: files, block devices
        and network disks anywhere; hostdev: devices of the host; interfaces: NICs on other things
        than bridges and libvirt's networks; scripts: scripts of NICs; seclabels: labels of a VM's
        own, with which QEMU may run as root.""",
        choices=DOCUMENT_KINDS,
    )
    paths: Sequence[str] = list_option(
        """Directories below which strict lets disks, CDs and kernels be files; whoever can put a
        link there leads out of it.""",
        default=("/var/lib/libvirt/images",),
        path=True,
    )


@dataclass(frozen=True)
class Migration:
    """How running VMs move to other hosts, and come from them."""

    libvirt_uri: str = option(
        "qemu+tls://{host}/system",
        """How this host's libvirtd reaches that of the other host; {host} is the name that the
        engine calls it by. libvirt's own certificates have to be set up for it on both hosts.""",
    )
    certificate: str = option(
        "",
        """What this host's daemon shows to those of other hosts, PEM, by the CA of listen.hosts_ca;
        empty for listen.certificate.""",
    )
    key: str = option("", "Its private key, PEM.")
    encryption: str = option(
        "auto",
        """Whether QEMU's data is encrypted: auto where libvirt has certificates for it on both
        hosts, required always, off unless an engine asks for it.""",
        choices=("auto", "required", "off"),
    )
    handover: str = option(
        "confirmed",
        """When a VM that has been copied runs on. confirmed: as soon as its QEMU process on the
        source has ended, so that it cannot run on both hosts whatever fails, some tenths of a
        second later than by itself. libvirt: as soon as libvirt has it, as virsh migrate does; a
        libvirtd or a network that fails in that moment may let both run. Migrations that may come
        to use post-copy are always of the latter kind.""",
        choices=("confirmed", "libvirt"),
    )
    outgoing_limit: int = option(
        2, "VMs that may leave at once where an engine does not say; others wait.", minimum=1
    )
    incoming_limit: int = option(
        2,
        "VMs that may come at once where an engine does not say; their sources wait.",
        minimum=1,
    )
    queue_limit: int = option(
        100, "VMs that may wait to leave; more are refused with code 82.", minimum=0
    )
    max_bandwidth_mib_s: int = option(
        0,
        "Data of one migration, in MiB/s, where an engine does not say; 0 is no limit.",
        minimum=0,
    )
    max_downtime_ms: int = option(
        500,
        """How long a guest may stand still at the end of its migration, in ms, where an engine has
        no convergence schedule; it begins with a fifth of that, and each pass over a guest's memory
        that was in vain adds another.""",
        minimum=1,
    )
    stall_timeout_s: float = option(
        240.0,
        """A migration whose remaining data has not become less for so long is ended, in seconds;
        the VM stays. 0 lets it go on.""",
        minimum=0,
    )
    arrival_timeout_s: float = option(
        60.0,
        """How long this host waits for a VM that was announced and does not come, in seconds.""",
        minimum=1,
    )
    hand_over_secrets: bool = option(
        False,
        """Give the other host the keys that a VM needs and that are not registered there, over the
        TLS connection between the daemons. Without it such a migration fails and its error names
        them.""",
    )
    progress_interval_s: float = option(
        1.0,
        "Interval between two events that tell how far a migration is, in seconds.",
        minimum=0.1,
    )


@dataclass(frozen=True)
class Ceph:
    """How Ceph clusters are asked and watched."""

    preflight: str = option(
        "enforce",
        """What becomes of a VM or a disk whose image fails the checks made before QEMU opens it: it
        is refused; it is tried with a warning in the log, unless somebody else has the image open
        for certain; or nothing is checked.""",
        choices=("enforce", "warn", "off"),
    )
    timeout_s: float = option(
        10.0,
        """Deadline of one request to a Ceph cluster, and of all checks before a VM starts, in
        seconds. Monitors that elect a leader, and OSDs that have just come back, take some; a
        cluster of which no monitor can be reached is given up after 2.5 s.""",
        minimum=1,
    )
    worker_idle_s: float = option(
        300.0,
        """How long the process that talks to a cluster, some 40 MB of memory, outlives the last
        request, in seconds.""",
        minimum=1,
    )
    monitor_interval_s: float = option(
        10.0,
        "Interval between two looks at each cluster that running VMs use, in seconds.",
        minimum=0.5,
    )


@dataclass(frozen=True)
class Rpc:
    """How requests are taken."""

    max_queue: int = option(
        1000, "Requests under way on one connection; more are refused with code 1100.", minimum=1
    )
    validate_results: bool = option(
        False, "Check results against the schema too, and log what does not fit; for development."
    )


@dataclass(frozen=True)
class Log:
    """What is logged, and where."""

    level: str = option(
        "INFO", "Least severity that is logged.", choices=("DEBUG", "INFO", "WARNING", "ERROR")
    )
    target: str = option(
        "auto",
        "journal, stderr, or auto: the journal when systemd started the daemon, else stderr.",
        choices=("auto", "journal", "stderr"),
    )


@dataclass(frozen=True)
class Config:
    """The whole configuration: one attribute for each section of the file."""

    listen: Listen = field(default_factory=Listen)
    access: Access = field(default_factory=Access)
    libvirt: Libvirt = field(default_factory=Libvirt)
    vms: Vms = field(default_factory=Vms)
    policy: Policy = field(default_factory=Policy)
    migration: Migration = field(default_factory=Migration)
    ceph: Ceph = field(default_factory=Ceph)
    rpc: Rpc = field(default_factory=Rpc)
    log: Log = field(default_factory=Log)


def load(path: Path) -> Config:
    """Read the YAML file at path.

    Raises ConfigError for a file that cannot be read or parsed, an unknown section or option, or a
    value of the wrong type or out of range.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "it is not UTF-8 text"
        raise ConfigError(
            f"configuration file {path} cannot be read: {reason}; "
            "create it from the output of vdsm-cinderd --show-config"
        ) from e
    return parse(text, str(path))


def parse(text: str, origin: str) -> Config:
    """Build a Config from YAML text; origin names the text in errors."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        where = f"{origin}:{mark.line + 1}:{mark.column + 1}" if mark else origin
        raise ConfigError(f"{where}: not valid YAML: {getattr(e, 'problem', e)}") from e
    sections = _mapping({} if content is None else content, origin, "the file")
    known = {f.name: f for f in dataclasses.fields(Config)}
    _refuse_unknown(sections, known, origin, "section")
    return Config(
        **{
            name: _section(f.default_factory, sections.get(name), origin, name)  # type: ignore[arg-type]
            for name, f in known.items()
        }
    )


def differences(one: Config, other: Config, but: Collection[str] = ()) -> list[str]:
    """The options ('listen.port') that differ; not those of `but`, which names sections too."""
    return [
        f"{section.name}.{f.name}"
        for section in dataclasses.fields(Config)
        for f in dataclasses.fields(getattr(one, section.name))
        if getattr(getattr(one, section.name), f.name)
        != getattr(getattr(other, section.name), f.name)
        and not {section.name, f"{section.name}.{f.name}"}.intersection(but)
    ]


def render(config: Config) -> str:
    """The configuration as a documented YAML file that load() reads back to the same Config."""
    parts = ["# Configuration of vdsm-cinderd. Every option is shown with the value in force."]
    for section in dataclasses.fields(config):
        values = getattr(config, section.name)
        parts.append(f"\n# {type(values).__doc__}\n{section.name}:")
        for f in dataclasses.fields(values):
            parts.append(_comment(f.metadata["doc"], f.metadata.get("choices")))
            value = getattr(values, f.name)
            plain = list(value) if isinstance(value, tuple) else value
            line = yaml.safe_dump({f.name: plain}, sort_keys=False, width=math.inf)
            parts.append(textwrap.indent(line.rstrip(), "  "))
    return "\n".join(parts) + "\n"


def _comment(doc: str, choices: Any) -> str:
    text = doc if choices is None else f"{doc} One of: {', '.join(choices)}."
    return textwrap.fill(text, 98, initial_indent="  # ", subsequent_indent="  # ")


def _section(cls: type[T], content: Any, origin: str, name: str) -> T:
    if content is None:
        return cls()
    values = _mapping(content, origin, f"section {name}")
    known = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    _refuse_unknown(values, known, origin, f"option in section {name}:")
    return cls(**{k: _value(known[k], v, f"{origin}: {name}.{k}") for k, v in values.items()})


def _mapping(content: Any, origin: str, what: str) -> Mapping[Any, Any]:
    if not isinstance(content, dict):
        raise ConfigError(f"{origin}: {what} must hold 'name: value' lines, not {content!r}")
    return content


def _refuse_unknown(
    given: Mapping[Any, Any], known: Mapping[str, Any], origin: str, kind: str
) -> None:
    for name in given:
        if name in known:
            continue
        close = difflib.get_close_matches(str(name), known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
        raise ConfigError(f"{origin}: unknown {kind} {name}; {hint}")


_TYPES: Mapping[str, tuple[tuple[type, ...], str]] = {
    "str": ((str,), "a string"),
    "int": ((int,), "a whole number"),
    "float": ((int, float), "a number"),
    "bool": ((bool,), "true or false"),
}
_MAPPING = re.compile(r"Mapping\[str, (\w+)\]")


def _value(f: dataclasses.Field[Any], value: Any, where: str) -> Any:
    if str(f.type) == "Sequence[str]":
        if not isinstance(value, list):
            raise ConfigError(f"{where} is {value!r}; expected a list: [one, another]")
        return tuple(
            _scalar("str", f.metadata, item, f"{where}[{i}]") for i, item in enumerate(value)
        )
    of_map = _MAPPING.fullmatch(str(f.type))
    if of_map is None:
        return _scalar(str(f.type), f.metadata, value, where)
    if not isinstance(value, dict):
        raise ConfigError(f"{where} is {value!r}; expected 'name: value' lines")
    return {
        _scalar("str", {}, key, f"{where}: name"): _scalar(
            of_map[1], f.metadata, v, f"{where}: {key}"
        )
        for key, v in value.items()
    }


def _scalar(kind: str, limits: Mapping[str, Any], value: Any, where: str) -> Any:
    types, expected = _TYPES[kind]
    if not isinstance(value, types) or (isinstance(value, bool) and bool not in types):
        raise ConfigError(f"{where} is {value!r}; expected {expected}")
    choices = limits.get("choices")
    if choices is not None and value not in choices:
        raise ConfigError(f"{where} is {value!r}; expected one of {', '.join(choices)}")
    if limits.get("uuid") and value and (not is_uuid(value) or value != str(value).lower()):
        # It may be the key itself that was put where its name belongs.
        raise ConfigError(f"{where} is no UUID; expected one in lower case, or nothing")
    if limits.get("path") and not re.fullmatch("/[^/].*", str(value)):
        raise ConfigError(f"{where} is {value!r}; expected the absolute path of a directory")
    minimum = limits.get("minimum")
    if minimum is not None and value < minimum:
        raise ConfigError(f"{where} is {value!r}; expected at least {minimum}")
    maximum = limits.get("maximum")
    if maximum is not None and value > maximum:
        raise ConfigError(f"{where} is {value!r}; expected at most {maximum}")
    return float(str(value)) if kind == "float" else value
