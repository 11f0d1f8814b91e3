# SPDX-License-Identifier: GPL-2.0-or-later
"""vdsm-cinder join: keys are made here, the engine signs, and all is put in its place.

What is done can be done again at any point: the keys that were made are kept until they are in
place, so that the engine takes the token from the same host again. Raises CommandFailed.
"""

from __future__ import annotations

import argparse
import contextlib
import ipaddress
import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.serialization import Encoding

from vdsmcinder import config
from vdsmcinder.client.exit_codes import InputRefused
from vdsmcinder.client.join import services, settings, token
from vdsmcinder.client.join.engine import Address, Engine
from vdsmcinder.client.pki import certificates as issuing
from vdsmcinder.client.pki import files as pki_files
from vdsmcinder.client.pki import hosts as pki_hosts
from vdsmcinder.client.pki import init as pki_init
from vdsmcinder.client.pki.files import Draft, HostLayout, Layout
from vdsmcinder.config import Config, ConfigError
from vdsmcinder.host import machine

# What the daemon shows to clients; the others are of the hosts' authority.
LISTENER = "listener"
UNITS = (LISTENER, pki_hosts.DAEMON, pki_hosts.LIBVIRT, pki_hosts.QEMU)
CONFIG_MODE = 0o640


@dataclass(frozen=True)
class Place:
    """Where all of it is on this host."""

    config_file: Path
    options: Config
    layout: Layout
    hosts: HostLayout

    @classmethod
    def of(cls, config_file: Path) -> Place:
        """As the daemon's configuration has it. Raises InputRefused."""
        try:
            options = config.load(config_file) if config_file.exists() else Config()
        except ConfigError as e:
            raise InputRefused(str(e)) from e
        layout = pki_files.layout(None, config_file if config_file.exists() else None)
        return cls(config_file, options, layout, HostLayout.below(layout.host.key.parent.parent))

    def key(self, unit: str) -> Path:
        """Where a program's key is in the end."""
        keys = zip(UNITS, (self.layout.host, *self.hosts.signed))
        return dict(keys)[unit].key

    def waiting(self, unit: str) -> Path:
        """Where it is until it has a certificate."""
        return self.key(unit).with_name(f"joining-{unit}key.pem")


@dataclass(frozen=True)
class Answer:
    """What the engine gave."""

    host_id: str
    name: str
    address: str
    engine: str
    clients_ca: bytes
    hosts_ca: bytes
    certificates: Mapping[str, bytes]

    @classmethod
    def read(cls, raw: Any) -> Answer:
        """From JSON. Raises InputRefused."""
        try:
            host, certificates = raw["host"], raw["certificates"]
            return cls(
                host["id"],
                host["name"],
                host["address"],
                raw["engine"],
                raw["clients_ca"].encode(),
                raw["hosts_ca"].encode(),
                {unit: certificates[unit].encode() for unit in UNITS},
            )
        except (KeyError, TypeError, AttributeError):
            raise InputRefused(
                "the engine's answer lacks something that a host needs; give engine and host "
                "packages of one version"
            ) from None


def join(args: argparse.Namespace) -> None:
    """Have this host join."""
    text = sys.stdin.readline().strip() if args.token == "-" else args.token
    fingerprint = token.fingerprint(text)
    address = Address.of(args.url)
    place = Place.of(args.config)
    _require_rights(args.root)
    pki_hosts.check(args.root)
    if not place.options.listen.port:
        raise InputRefused(
            f"option listen.port in {args.config} is 0, so that no engine can know where the "
            "daemon listens; give it a port, such as 54321"
        )
    engine = Engine(address, fingerprint, args.timeout)
    authority = engine.authority()
    is_ours = _is_of(place, authority)
    if not is_ours:
        _refuse_to_leave(place, force=args.force)
    keys = {unit: _key(place, unit, is_ours=is_ours) for unit in UNITS}
    request = {
        "token": text,
        "names": args.name or _names(),
        "port": place.options.listen.port,
        "hardware_id": machine.hardware().uuid,
        "requests": {unit: _request(key) for unit, key in keys.items()},
    }
    answer = Answer.read(engine.join(request, authority, args.engine_ca))
    _verify(answer, authority, keys)
    placed = _put(place, answer, keys, args.root)
    settled = _settle(place, answer)
    for unit in UNITS:
        with contextlib.suppress(FileNotFoundError):
            place.waiting(unit).unlink()
    done = services.start(args.root)
    _tell(args, address, answer, [*placed, *settled], done)


def _require_rights(root: Path) -> None:
    if root == Path("/") and os.geteuid() != 0:
        raise InputRefused("a host joins as root, who may write where libvirt looks; use sudo")


def _is_of(place: Place, authority: bytes) -> bool:
    """Whether the authority that this host trusts is this one."""
    file = place.layout.ca.certificate
    if not file.exists():
        return False
    (wanted,) = issuing.certificates_of(authority, "the engine")
    there = issuing.certificates_of(pki_files.read(file), str(file))
    return any(_is_same(ca, wanted) for ca in there)


def _refuse_to_leave(place: Place, *, force: bool) -> None:
    """Refuse to leave an authority that this host has, unless that is wanted."""
    if place.options.listen.crl:
        raise InputRefused(
            f"option listen.crl in {place.config_file} has lists of revoked certificates of "
            "another authority, without which the daemon would let in nobody; remove it first"
        )
    file = place.layout.ca.certificate
    if force or not file.exists() or not place.layout.host.certificate.exists():
        return
    there = issuing.certificates_of(pki_files.read(file), str(file))[0].subject.rfc4514_string()
    raise InputRefused(
        f"this host has certificates of another authority, {there} ({file}); to have it leave "
        "that, which shuts out whoever has one of it, run this again with --force"
    )


def _is_same(one: x509.Certificate, other: x509.Certificate) -> bool:
    """Whether these are of one authority, renewed or not."""
    return issuing.encoded(one.public_key()) == issuing.encoded(other.public_key())


def _names() -> list[str]:
    """By what others may reach this machine."""
    return [name for name in pki_init.host_names() if not _is_its_own_alone(name)]


def _is_its_own_alone(name: str) -> bool:
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name.partition(".")[0] == "localhost"


def _key(place: Place, unit: str, *, is_ours: bool) -> issuing.Key:
    """The key that waits for its certificate, or has one of this authority, so that the engine
    knows this host again; a new one is kept before anybody hears of it."""
    waiting, final = place.waiting(unit), place.key(unit)
    if waiting.exists():
        return issuing.key_of(pki_files.read(waiting), str(waiting))
    if is_ours and final.exists():
        return issuing.key_of(pki_files.read(final), str(final))
    key = issuing.new_key()
    pki_files.write([Draft(waiting, issuing.key_pem(key), pki_files.KEY_MODE)], replace=False)
    return key


def _request(key: issuing.Key) -> str:
    """A request for a certificate, which proves that we have the key. The engine knows the rest."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    return builder.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode("ascii")


def _verify(answer: Answer, authority: bytes, keys: Mapping[str, issuing.Key]) -> None:
    """Whether what the engine gave is for our keys and of its authorities."""
    (clients,) = issuing.certificates_of(authority, "the engine")
    (given, *_) = issuing.certificates_of(answer.clients_ca, "the engine's answer")
    issuing.certificates_of(answer.hosts_ca, "the engine's answer")
    for unit, key in keys.items():
        (certificate, *_) = issuing.certificates_of(answer.certificates[unit], "its answer")
        if not (issuing.belong(certificate, key) and _is_same(given, clients)):
            raise InputRefused(
                f"the engine's certificate for {unit} is not for the key that was made here; run "
                "this again"
            )


def _put(
    place: Place, answer: Answer, keys: Mapping[str, issuing.Key], root: Path
) -> Sequence[Path]:
    """Write keys and certificates; all that was written."""
    mode = pki_files.CERTIFICATE_MODE
    owner = (pki_files.ids_of(pki_files.USER) or ()) if os.geteuid() == 0 else ()
    own = place.layout.host
    drafts = [
        Draft(place.layout.ca.certificate, answer.clients_ca, mode),
        Draft(own.key, issuing.key_pem(keys[LISTENER]), pki_files.KEY_MODE, *owner),
        Draft(own.certificate, answer.certificates[LISTENER], mode),
        Draft(place.hosts.ca.certificate, answer.hosts_ca, mode),
    ]
    for unit in UNITS[1:]:
        drafts += pki_hosts.placed(place.hosts, unit, keys[unit], answer.certificates[unit])
    pki_files.write(drafts, replace=True)
    return [*(draft.path for draft in drafts), *pki_hosts.install(place.hosts, root)]


def _settle(place: Place, answer: Answer) -> Sequence[Path]:
    """Have the daemon's configuration let in the engine and other hosts; what was changed."""
    options, file, hosts = place.options, place.config_file, place.hosts
    wanted = {
        ("listen", "hosts_ca"): (options.listen.hosts_ca, str(hosts.ca.certificate)),
        ("migration", "certificate"): (
            options.migration.certificate,
            str(hosts.daemon.certificate),
        ),
        ("migration", "key"): (options.migration.key, str(hosts.daemon.key)),
        ("access", "roles", answer.engine): (options.access.roles.get(answer.engine), "admin"),
    }
    if options.access.default_role == "admin" and not options.access.roles:
        # The engine has a name, so that nobody else needs a role without one.
        wanted["access", "default_role"] = ("admin", "none")
    changes = {path: value for path, (now, value) in wanted.items() if now != value}
    if not changes:
        return []
    old = file.read_text(encoding="utf-8") if file.exists() else ""
    text = settings.changed(old, changes, str(file))
    try:
        config.parse(text, str(file))
    except ConfigError as e:
        raise InputRefused(f"the options of an engine's host cannot be set there: {e}") from e
    if file.exists():
        draft = Draft.in_place_of(file, text.encode())
    else:
        ids = pki_files.ids_of(pki_files.USER) if os.geteuid() == 0 else None
        group = () if ids is None else (0, ids[1])
        draft = Draft(file, text.encode(), CONFIG_MODE, *group)
    pki_files.write([draft], replace=True)
    return [file]


def _tell(
    args: argparse.Namespace,
    address: Address,
    answer: Answer,
    placed: Sequence[Path],
    done: Sequence[str],
) -> None:
    if args.json:
        host = {"id": answer.host_id, "name": answer.name, "address": answer.address}
        print(json.dumps({"host": host, "files": [str(path) for path in placed]}))
        return
    print(
        f"This host is {answer.name} of the engine at {address}, which calls it {answer.address}."
    )
    for path in placed:
        print(f"in place  {path}")
    for sentence in done:
        print(sentence)
