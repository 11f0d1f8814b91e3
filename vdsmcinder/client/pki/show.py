# SPDX-License-Identifier: GPL-2.0-or-later
"""vdsm-cinder pki show: what certificates say, how long they last, and what to do about it.

It works on files of this machine; its exit code tells whether one expires soon or has.
"""

from __future__ import annotations

import argparse
import datetime
import enum
import json
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography import x509

from vdsmcinder import tls_errors
from vdsmcinder.client import tables
from vdsmcinder.client.exit_codes import EXPIRED, EXPIRES_SOON, CommandFailed
from vdsmcinder.client.pki import certificates as issuing
from vdsmcinder.client.pki import files
from vdsmcinder.client.pki.files import HostLayout, Layout, Pair
from vdsmcinder.client.tables import BOLD, DIM, GREEN, RED, YELLOW

CA, HOST, CLIENT, FILE = "CA", "host", "client", "certificate"
# Of the hosts' authority, its own included.
HOSTS = "hosts"


class ExpiresSoon(CommandFailed):
    """A certificate ends within the time that was asked about."""

    exit_code = EXPIRES_SOON


class Expired(CommandFailed):
    """A certificate has ended, or has not begun."""

    exit_code = EXPIRED


class State(enum.Enum):
    """What is to be said of a certificate's time."""

    OK = "ok"
    SOON = "expires soon"
    EXPIRED = "expired"
    NOT_YET = "not valid yet"


PLAIN = "0"
COLOURS = {State.OK: GREEN, State.SOON: YELLOW, State.EXPIRED: RED, State.NOT_YET: RED}


@dataclass(frozen=True)
class Entry:
    """One certificate of a file. of: whose it is. key: where its key should be, if known."""

    of: str
    path: Path
    certificate: x509.Certificate
    key: Path | None = None

    def state(self, within_days: int) -> State:
        """How it stands; soon is within so many days."""
        if issuing.ends(self.certificate) <= now():
            return State.EXPIRED
        if issuing.begins(self.certificate) > now():
            return State.NOT_YET
        return State.SOON if days_left(self.certificate) <= within_days else State.OK

    def as_fields(self, within_days: int) -> dict[str, Any]:
        """For scripts."""
        certificate = self.certificate
        return {
            "of": self.of,
            "file": str(self.path),
            "key": None if self.key is None else str(self.key),
            "subject": certificate.subject.rfc4514_string(),
            "issuer": certificate.issuer.rfc4514_string(),
            "names": issuing.names_of(certificate),
            "notBefore": issuing.begins(certificate).isoformat(),
            "notAfter": issuing.ends(certificate).isoformat(),
            "daysLeft": days_left(certificate),
            "state": self.state(within_days).value,
        }


def show(args: argparse.Namespace) -> None:
    """Show certificates: of the files that are named, or of those that the daemon uses.

    Raises ExpiresSoon and Expired, when they are shown.
    """
    if args.file:
        shown = [Entry(FILE, path, c) for path in args.file for c in certificates(path)]
    else:
        layout = files.layout(args.dir, args.config)
        shown = entries(layout) + of_hosts(HostLayout.below(layout.host.key.parent.parent))
    if args.json:
        print_json(shown, args.within)
    else:
        print_blocks(shown, args.within)
    _complain(shown, args.within)


def entries(layout: Layout) -> list[Entry]:
    """All certificates of a host. Raises InputRefused for a file that is missing or no good."""
    found = _of_pair(CA, layout.ca) + _of_pair(HOST, layout.host)
    if layout.client.certificate.exists():
        found += _of_pair(CLIENT, layout.client)
    return found


def of_hosts(layout: HostLayout) -> list[Entry]:
    """Those that vdsm-cinder pki hosts made; none if it did not."""
    return [
        entry
        for pair in (layout.ca, *layout.signed)
        if pair.certificate.exists()
        for entry in _of_pair(HOSTS, pair)
    ]


def _of_pair(of: str, pair: Pair) -> list[Entry]:
    first, *chain = certificates(pair.certificate)
    return [
        Entry(of, pair.certificate, first, pair.key),
        *(Entry(of, pair.certificate, certificate) for certificate in chain),
    ]


def certificates(path: Path) -> list[x509.Certificate]:
    """The certificates of a file. Raises InputRefused if there is none."""
    return issuing.certificates_of(files.read(path), str(path))


def days_left(certificate: x509.Certificate) -> float:
    """How long it lasts yet, to a tenth of a day."""
    return round((issuing.ends(certificate) - now()) / datetime.timedelta(days=1), 1)


def now() -> datetime.datetime:
    """The time, as certificates give it."""
    return datetime.datetime.now(datetime.timezone.utc)


def print_json(shown: Sequence[Entry], within_days: int) -> None:
    """Print certificates for scripts."""
    print(json.dumps([entry.as_fields(within_days) for entry in shown]))


def print_blocks(shown: Sequence[Entry], within_days: int) -> None:
    """Print certificates for people, a few lines for each."""
    for entry in shown:
        print(f"{tables.painted(entry.of, BOLD)}  {tables.printable(str(entry.path))}")
        for title, value, colour in _lines(entry, within_days):
            shown_value = tables.painted(tables.printable(value), colour)
            print(f"  {tables.painted(title.ljust(9), DIM)}{shown_value}")
        print()


def _lines(entry: Entry, within_days: int) -> Iterator[tuple[str, str, str]]:
    certificate = entry.certificate
    subject, issuer = certificate.subject, certificate.issuer
    yield "subject", subject.rfc4514_string(), PLAIN
    yield "issuer", "itself" if issuer == subject else issuer.rfc4514_string(), PLAIN
    names = issuing.names_of(certificate)
    if names:
        yield "names", ", ".join(names), PLAIN
    if entry.key is not None:
        yield "key", f"{entry.key} ({_access(entry.key)})", PLAIN
    until, left = issuing.ends(certificate), issuing.ends(certificate) - now()
    when = f"in {span(left)}" if left > datetime.timedelta() else f"{span(-left)} ago"
    when = f"{until.strftime('%Y-%m-%d %H:%M UTC')}, {when}"
    yield "expires", when, COLOURS[entry.state(within_days)]


def _access(path: Path) -> str:
    """Who may read a file, as ls tells it."""
    try:
        found = path.stat()
        return f"{path.owner()}:{path.group()} {stat.S_IMODE(found.st_mode):04o}"
    except FileNotFoundError:
        return "not on this machine"
    except (OSError, KeyError) as e:
        return tls_errors.reason(e)


def _complain(shown: Sequence[Entry], within_days: int) -> None:
    """Raise for the certificate that ends first, if that is soon."""
    bad = [entry for entry in shown if entry.state(within_days) is not State.OK]
    if not bad:
        return
    first = min(bad, key=lambda entry: issuing.ends(entry.certificate))
    state = first.state(within_days)
    if state is State.NOT_YET:
        raise Expired(f"{first.path} is not valid yet; set this machine's clock, or replace it")
    remedy = "renew it: vdsm-cinder pki "
    if first.of == HOSTS:
        remedy += "hosts --force --install"
    else:
        remedy += f"renew{' --with-ca' if first.of == CA else ''}"
    if state is State.SOON:
        left = span(issuing.ends(first.certificate) - now())
        raise ExpiresSoon(f"{first.path} expires in {left}; {remedy}")
    raise Expired(f"{first.path} has expired; {remedy}")


def span(time: datetime.timedelta) -> str:
    """A time span in days, or in hours where those matter."""
    hours = time // datetime.timedelta(hours=1)
    if hours >= 48:
        return f"{time / datetime.timedelta(days=1):.0f} days"
    return f"{hours} hours" if hours >= 2 else "an hour or less"
