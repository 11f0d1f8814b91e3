# SPDX-License-Identifier: GPL-2.0-or-later
"""vdsm-cinder pki: certificates for hosts that no engine gives them to; made and renewed here.

ACTIONS are its functions by name. They work on files of this machine and need no daemon.
"""

from __future__ import annotations

import argparse
import os
import pwd
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cryptography import x509

from vdsmcinder.client.exit_codes import CommandFailed, InputRefused, UsageError
from vdsmcinder.client.pki import certificates as issuing
from vdsmcinder.client.pki import files as pki_files
from vdsmcinder.client.pki import hosts as pki_hosts
from vdsmcinder.client.pki import show
from vdsmcinder.client.pki.certificates import Authority, Wish
from vdsmcinder.client.pki.files import Draft, HostLayout, Layout, Pair
from vdsmcinder.client.pki.show import certificates, days_left
from vdsmcinder.host import netlink

RELOAD = ("systemctl", "reload", "vdsm-cinderd.service")


# pki init


def init(args: argparse.Namespace) -> None:
    """Make a CA, and certificates for this host and for one client, each with its key."""
    layout = pki_files.layout(args.dir, args.config)
    if not args.force:
        _refuse_overwriting(layout)
    names = args.name or host_names()
    host, client = Wish.of_host(names), Wish.of_client(args.client)
    owner = _key_owner(args.owner)
    authority, drafts = _authority(layout, names[0], args)
    drafts += _issued(authority, layout.client, client, args.days)
    drafts += _issued(authority, layout.host, host, args.days, owner)
    pki_files.write(drafts, replace=args.force)
    entries = show.entries(layout)
    if args.json:
        show.print_json(entries, 0)
        return
    show.print_blocks(entries, 0)
    print(_next_steps(layout, args.client, names[0], args.ca_from is None))
    if owner is None:
        print(_only_ours(layout.host.key, args.owner))


def host_names() -> list[str]:
    """The names and addresses by which this machine is reached, the full name first."""
    names = sorted([socket.getfqdn(), socket.gethostname(), "localhost"], key=_is_localhost)
    try:
        found = [address.interface.ip for address in netlink.addresses()]
    except OSError:
        found = []
    # A link-local address means another machine on every link.
    return list(dict.fromkeys([*names, *(str(ip) for ip in found if not ip.is_link_local)]))


def _is_localhost(name: str) -> bool:
    return name.partition(".")[0] == "localhost"


def _refuse_overwriting(layout: Layout) -> None:
    there = [path for path in layout.files if path.exists()]
    if there:
        raise InputRefused(
            f"{there[0]} exists already; prolong what is there with vdsm-cinder pki renew, use "
            "another directory with --dir, or replace all of it with --force, which shuts out "
            "whoever has a certificate of the CA of now"
        )


def _authority(
    layout: Layout, name: str, args: argparse.Namespace
) -> tuple[Authority, list[Draft]]:
    """The CA that is to sign, and what of it is to be written."""
    made = args.ca_from is None
    authority = (
        Authority.made(name, args.ca_days) if made else _opened(Layout.below(args.ca_from).ca)
    )
    pem = issuing.certificate_pem(authority.certificate)
    drafts = [Draft(layout.ca.certificate, pem, pki_files.CERTIFICATE_MODE)]
    if made:
        pem = issuing.key_pem(authority.key)
        drafts.insert(0, Draft(layout.ca.key, pem, pki_files.KEY_MODE))
    return authority, drafts


def _issued(
    authority: Authority,
    pair: Pair,
    wish: Wish,
    days: int,
    owner: tuple[int, int] | None = None,
) -> list[Draft]:
    """A new key and its certificate. owner: ids of the user whose key it is; None for our own."""
    key = issuing.new_key()
    certificate = authority.sign(wish, key.public_key(), days)
    return [
        Draft(pair.key, issuing.key_pem(key), pki_files.KEY_MODE, *(owner or ())),
        Draft(pair.certificate, issuing.certificate_pem(certificate), pki_files.CERTIFICATE_MODE),
    ]


def _key_owner(name: str) -> tuple[int, int] | None:
    """The ids of the user whom the host's key is for; None if it cannot be given to it here."""
    ids = pki_files.ids_of(name)
    if ids is None and name != pki_files.USER:
        raise InputRefused(f"this machine has no user {name}; give --owner another")
    return ids if os.geteuid() == 0 else None


def _next_steps(layout: Layout, client: str, host: str, made: bool) -> str:
    files = ", ".join(
        path.name for path in (layout.client.certificate, layout.client.key, layout.ca.certificate)
    )
    steps = (
        f"The daemon takes them when it starts: systemctl restart vdsm-cinderd\n"
        f"For {client}, bring {files} to where it runs; then:\n"
        f"  vdsm-cinder --host {host} --cert {layout.client.certificate.name} "
        f"--key {layout.client.key.name} --ca {layout.ca.certificate.name} vms"
    )
    if made:
        steps += (
            f"\nWhoever has {layout.ca.key} can make clients that control every VM: keep it safe."
        )
    return steps


def _only_ours(key: Path, owner: str) -> str:
    ours = pwd.getpwuid(os.geteuid()).pw_name
    return (
        f"Only {ours} can read {key.name} now; on the host, give it to the daemon:\n"
        f"  chown {owner}: {key.name}"
    )


# pki hosts


def hosts(args: argparse.Namespace) -> None:
    """Make an authority for hosts, and certificates for the programs of one; put them in place."""
    beside = pki_files.layout(args.dir, args.config).host
    directory = beside.certificate.parent.parent if args.dir is None else args.dir
    layout = HostLayout.below(directory)
    there = all(path.exists() for pair in layout.signed for path in (pair.certificate, pair.key))
    if args.force or not (args.install and there):
        pki_files.write(pki_hosts.make(layout, args.name or host_names(), args), replace=True)
    placed = pki_hosts.install(layout, args.root) if args.install else []
    if args.json:
        units = zip((pki_hosts.DAEMON, pki_hosts.LIBVIRT, pki_hosts.QEMU), layout.signed)
        made = [
            show.Entry(unit, pair.certificate, certificates(pair.certificate)[0], pair.key)
            for unit, pair in units
        ]
        show.print_json(made, 0)
        return
    for path in placed:
        print(f"in place  {path}")
    print(f"The daemon's configuration takes:\n{pki_hosts.options(layout)}")
    if layout.ca.key.exists():
        print(f"Whoever has {layout.ca.key} can be libvirt on every host: keep it safe.")


# pki renew


def renew(args: argparse.Namespace) -> None:
    """Issue the host's and the client's certificates anew, the CA's too if that is wanted."""
    layout = pki_files.layout(args.dir, args.config)
    authority, drafts = _signing(layout, args)
    if args.with_ca and _is_due(authority.certificate, args.within):
        authority = authority.renewed(args.ca_days)
        drafts.append(_again(layout.ca.certificate, authority.certificate))
    if issuing.ends(authority.certificate) <= show.now():
        raise InputRefused(
            f"the CA of {layout.ca.certificate} has expired, so nothing that it signs is valid; "
            "renew it too, with --with-ca, and bring its new certificate to the clients"
        )
    for pair in (layout.client, layout.host):
        if pair.certificate.exists():
            drafts += _renewed(authority, pair, args, args.name if pair is layout.host else None)
    if drafts:
        pki_files.write(drafts, replace=True)
    _tell_renewed(args, layout, {draft.path for draft in drafts})


def _signing(layout: Layout, args: argparse.Namespace) -> tuple[Authority, list[Draft]]:
    """The CA that is to sign, and its certificate as it is now where this host has an older one."""
    if args.ca_from is None:
        return _opened(layout.ca), []
    if args.with_ca:
        raise UsageError(f"a CA is renewed where it is: vdsm-cinder pki renew --dir {args.ca_from}")
    authority = _opened(Layout.below(args.ca_from).ca)
    if authority.certificate == certificates(layout.ca.certificate)[0]:
        return authority, []
    return authority, [_again(layout.ca.certificate, authority.certificate)]


def _renewed(
    authority: Authority, pair: Pair, args: argparse.Namespace, names: Sequence[str] | None
) -> list[Draft]:
    """The files of one certificate that is to be replaced, none if it lasts long enough."""
    (old, *_) = certificates(pair.certificate)
    if not _is_due(old, args.within):
        return []
    if not authority.issued(old):
        raise InputRefused(
            f"{pair.certificate} was issued by {old.issuer.rfc4514_string()} and not by the CA "
            f"here, {authority.certificate.subject.rfc4514_string()}; have it renewed there, an "
            "engine's by the engine"
        )
    wish = Wish.like(old)
    if names:
        wish = Wish.of_host(names)
    if args.new_keys:
        key = issuing.new_key()
        new_key = [Draft.in_place_of(pair.key, issuing.key_pem(key))]
        public = key.public_key()
    else:
        # The same key: one file is replaced, so at no time is there a pair that does not fit.
        new_key, public = [], issuing.public_key(old, str(pair.certificate))
    return [*new_key, _again(pair.certificate, authority.sign(wish, public, args.days))]


def _again(path: Path, certificate: x509.Certificate) -> Draft:
    return Draft.in_place_of(path, issuing.certificate_pem(certificate))


def _tell_renewed(args: argparse.Namespace, layout: Layout, written: set[Path]) -> None:
    renewed = [entry for entry in show.entries(layout) if entry.path in written]
    if args.json:
        show.print_json(renewed, 0)
    elif not renewed:
        print(f"nothing to renew: everything lasts longer than {args.within} days")
    else:
        show.print_blocks(renewed, 0)
        _print_what_now(layout, written, reloads=args.reload)
    if args.reload and renewed:
        _reload()


def _print_what_now(layout: Layout, written: set[Path], *, reloads: bool) -> None:
    if not reloads:
        print(f"The daemon notices within seconds; at once with: {' '.join(RELOAD)}")
    if layout.client.certificate in written:
        print(f"Bring {layout.client.certificate.name} to where the client runs.")
    if layout.ca.certificate in written:
        print(f"Bring {layout.ca.certificate.name} to all clients before the old one ends.")


def _reload() -> None:
    """Have the daemon read its certificates now. Raises CommandFailed."""
    try:
        done = subprocess.run(RELOAD, text=True, stderr=subprocess.PIPE, check=False)
    except OSError as e:
        raise CommandFailed(f"systemctl cannot be run: {e.strerror}; reload by hand") from e
    if done.returncode:
        raise CommandFailed(
            f"the certificates are renewed, but {' '.join(RELOAD)} failed: {done.stderr.strip()}"
        )


def _is_due(certificate: x509.Certificate, within_days: int | None) -> bool:
    return within_days is None or days_left(certificate) <= within_days


def _opened(pair: Pair) -> Authority:
    """The CA of these files. Raises InputRefused."""
    (certificate, *_) = certificates(pair.certificate)
    if not pair.key.exists() and pair.key.parent.exists():
        raise InputRefused(
            f"the key of the CA {certificate.subject.rfc4514_string()} is not here ({pair.key}); "
            "an engine's certificates are renewed by the engine, others where that key is or with "
            "--ca-from"
        )
    key = issuing.key_of(pki_files.read(pair.key), str(pair.key))
    if not issuing.belong(certificate, key):
        raise InputRefused(
            f"{pair.key} is not the key of the CA in {pair.certificate}; restore the one that is"
        )
    return Authority(certificate, key)


ACTIONS: Mapping[str, Callable[[argparse.Namespace], None]] = {
    "hosts": hosts,
    "init": init,
    "renew": renew,
    "show": show.show,
}
