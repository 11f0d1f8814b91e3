# SPDX-License-Identifier: GPL-2.0-or-later
"""The engine's authorities as files: made once, never replaced, renewed when it is time."""

from __future__ import annotations

import socket
import ssl
import stat
import threading

import pytest

from cinderengine.authorities import certificates
from cinderengine.authorities.certificates import Unit
from cinderengine.authorities.files import Draft, Unusable, write
from cinderengine.authorities.keeper import Authorities, Layout, Pair, Validity, web_context
from cinderengine.errors import Invalid
from tests.engine.unit.authorities.test_certificates import request

NAMES = ["engine.example.com", "192.0.2.1"]


@pytest.fixture
def layout(tmp_path):
    Authorities.make(tmp_path / "pki", NAMES)
    return Layout(tmp_path / "pki")


def content(layout):
    return {path.name: path.read_bytes() for path in layout.directory.iterdir()}


def host_files(layout, directory, names):
    """What a host of these names has when it has joined: for each program, its pair."""
    authorities = Authorities(layout, Validity())
    keys = {unit: certificates.new_key() for unit in (Unit.LISTENER, Unit.DAEMON)}
    signed = authorities.sign_host(names, {unit: request(key) for unit, key in keys.items()})
    pairs = {}
    for unit, key in keys.items():
        pairs[unit] = Pair(directory / f"{unit}.pem", directory / f"{unit}.key")
        pairs[unit].key.write_bytes(certificates.key_pem(key))
        pairs[unit].certificate.write_text(signed[unit].certificate_pem)
    return pairs


def shake_hands(server, client, name):
    """What the client says against the connection, else the server; None if it stands."""
    ours, theirs = socket.socketpair()
    said: dict[str, Exception] = {}

    def serve():
        try:
            with server.wrap_socket(theirs, server_side=True) as secured:
                secured.recv(1)
        except (ssl.SSLError, OSError) as e:
            said["server"] = e

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(ours, server_hostname=name) as secured:
            secured.send(b"x")
            # With TLS 1.3 a refusal of our certificate comes after the handshake.
            secured.recv(1)
    except (ssl.SSLError, OSError) as e:
        said["client"] = e
    thread.join()
    return said.get("client", said.get("server"))


def test_all_is_made_once_and_the_second_time_nothing_changes(tmp_path):
    made = Authorities.make(tmp_path / "pki", NAMES)
    assert [path.name for path in made] == [
        "clients-ca.pem",
        "hosts-ca.pem",
        "engine.pem",
        "web.pem",
    ]
    before = content(Layout(tmp_path / "pki"))
    assert Authorities.make(tmp_path / "pki", NAMES) == []
    assert content(Layout(tmp_path / "pki")) == before


def test_keys_are_their_owners_alone(layout):
    modes = {path.suffix: stat.S_IMODE(path.stat().st_mode) for path in layout.directory.iterdir()}
    assert modes == {".pem": 0o444, ".key": 0o400}
    assert stat.S_IMODE(layout.directory.stat().st_mode) == 0o700


def test_the_two_authorities_can_be_told_apart(layout):
    authorities = Authorities(layout, Validity())
    clients, hosts = authorities.clients.certificate, authorities.hosts.certificate
    assert clients.subject != hosts.subject
    assert not authorities.clients.issued(hosts)


def test_other_names_have_the_port_s_certificate_made_anew_and_no_other(layout):
    before = content(layout)
    made = Authorities(layout, Validity()).renew(["other.example.com"])
    assert made == [layout.web.certificate]
    changed = {name for name, pem in content(layout).items() if pem != before[name]}
    assert changed == {"web.pem", "web.key"}


def test_what_ends_soon_is_made_anew(layout):
    assert Authorities(layout, Validity()).renew(NAMES) == []
    assert len(Authorities(layout, Validity(days=1200, renew_days=398)).renew(NAMES)) == 2


def test_a_short_validity_is_not_renewed_at_each_look(tmp_path):
    validity = Validity(days=3)
    Authorities.make(tmp_path, NAMES, validity)
    assert Authorities(Layout(tmp_path), validity).renew(NAMES) == []


@pytest.mark.parametrize("lost", ["web.pem", "web.key", "engine.key"])
def test_what_got_lost_of_the_engine_s_own_is_made_anew(layout, lost):
    (layout.directory / lost).unlink()
    made = Authorities.make(layout.directory, NAMES)
    assert made == [(layout.directory / lost).with_suffix(".pem")]


def test_init_that_was_killed_after_the_key_goes_on_with_that_key(layout):
    layout.clients.certificate.unlink()
    key = layout.clients.key.read_bytes()
    hosts_pem = layout.hosts.certificate.read_bytes()
    Authorities.make(layout.directory, NAMES)
    assert layout.clients.key.read_bytes() == key
    assert layout.hosts.certificate.read_bytes() == hosts_pem
    assert Authorities(layout, Validity()).renew(NAMES) == []


def test_an_authority_without_its_key_is_not_made_anew(layout):
    layout.hosts.key.unlink()
    with pytest.raises(Unusable, match=r"hosts-ca.key does not exist, though hosts-ca.pem beside"):
        Authorities.make(layout.directory, NAMES)


def test_an_authority_with_another_key_is_refused(layout):
    layout.hosts.key.chmod(0o600)
    layout.hosts.key.write_bytes(certificates.key_pem(certificates.new_key()))
    with pytest.raises(Unusable, match=r"hosts-ca.key is not the key of the authority in"):
        Authorities(layout, Validity())


def test_the_engine_reaches_a_host_by_its_name_and_no_other(layout, tmp_path):
    """As the daemon is set up: it trusts the clients' authority, and requires a certificate."""
    pairs = host_files(layout, tmp_path, ["h1.example.com", "192.0.2.7"])
    server = web_context(pairs[Unit.LISTENER])
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(layout.clients.certificate)
    client = Authorities(layout, Validity()).to_hosts()
    assert shake_hands(server, client, "h1.example.com") is None
    assert shake_hands(server, client, "192.0.2.7") is None
    refused = shake_hands(server, client, "h2.example.com")
    assert isinstance(refused, ssl.SSLCertVerificationError)


@pytest.mark.parametrize("unit", [Unit.LISTENER, Unit.DAEMON])
def test_nothing_that_a_host_has_makes_it_a_client_of_another(layout, tmp_path, unit):
    pairs = host_files(layout, tmp_path, ["h1.example.com"])
    server = web_context(pairs[Unit.LISTENER])
    server.verify_mode = ssl.CERT_REQUIRED
    server.load_verify_locations(layout.clients.certificate)
    client = ssl.create_default_context(cafile=layout.clients.certificate)
    client.load_cert_chain(pairs[unit].certificate, pairs[unit].key)
    assert isinstance(shake_hands(server, client, "h1.example.com"), ssl.SSLError)


def test_a_host_of_another_authority_is_refused(layout, tmp_path):
    Authorities.make(tmp_path / "other", NAMES)
    pairs = host_files(Layout(tmp_path / "other"), tmp_path, ["h1.example.com"])
    client = Authorities(layout, Validity()).to_hosts()
    refused = shake_hands(web_context(pairs[Unit.LISTENER]), client, "h1.example.com")
    assert isinstance(refused, ssl.SSLError)


def test_a_host_gets_all_or_nothing_and_only_what_is_a_host_s(layout):
    authorities = Authorities(layout, Validity())
    good = request(certificates.new_key())
    with pytest.raises(Invalid, match="host h1 for qemu"):
        authorities.sign_host(["h1"], {Unit.DAEMON: good, Unit.QEMU: b"x"})
    with pytest.raises(Invalid, match="asks for a certificate of engine, which is no host's"):
        authorities.sign_host(["h1"], {Unit.ENGINE: good})


def test_files_that_do_not_belong_together_are_told(layout):
    pair = Pair(layout.web.certificate, layout.engine.key)
    with pytest.raises(Unusable, match=r"web.pem and .*engine.key are not a certificate and its"):
        web_context(pair)


def test_of_several_files_none_is_written_where_one_cannot_be(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    drafts = [Draft(tmp_path / "a", b"a", 0o400), Draft(tmp_path / "file" / "b", b"b", 0o400)]
    with pytest.raises(Unusable, match="cannot be written"):
        write(drafts)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_file_that_somebody_else_made_first_stays(tmp_path):
    (tmp_path / "a").write_bytes(b"theirs")
    with pytest.raises(Unusable, match="a cannot be written: File exists"):
        write([Draft(tmp_path / "a", b"ours", 0o400)], replace=False)
    assert (tmp_path / "a").read_bytes() == b"theirs"
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
