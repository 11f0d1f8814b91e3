# SPDX-License-Identifier: GPL-2.0-or-later
"""vdsm-cinder join against the engine's own joining and authorities, over HTTPS."""

from __future__ import annotations

import ssl
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509

from cinderengine.errors import Invalid
from cinderengine.hosts import joining
from cinderengine.hosts.joining import Token
from cinderengine.model.hosts import Host
from cinderengine.model.ids import now_ms
from tests.engine.unit.hosts.joins import ENGINE, JoiningEngine
from vdsmcinder import config
from vdsmcinder.client import cli
from vdsmcinder.client.join import engine as client_engine
from vdsmcinder.client.join import run
from vdsmcinder.client.join import token as client_token

NODE = Host("h1", "node1", "node1.example.com", "c1")


class Machine:
    """A host below a directory, on which the command is run."""

    def __init__(self, root: Path, capsys: Any) -> None:
        self.root = root
        self.pki = root / "etc/pki/vdsm"
        self.config = root / "vdsm-cinder.yaml"
        self._capsys = capsys
        (root / "etc/libvirt").mkdir(parents=True)
        self.libvirtd = root / "etc/libvirt/libvirtd.conf"
        self.libvirtd.write_text("# libvirt's\n")
        certs, keys = self.pki / "certs", self.pki / "keys"
        self.config.write_text(
            "# ours\nlisten:\n"
            f"  certificate: {certs}/vdsmcert.pem\n"
            f"  key: {keys}/vdsmkey.pem\n"
            f"  ca: {certs}/cacert.pem\n"
        )

    def join(self, url: str, token: str, *more: str) -> tuple[int, str, str]:
        """The exit code, what was printed and what was complained about."""
        where = ["--root", str(self.root), "--config", str(self.config), "--name", "node1"]
        code = cli.main(["join", *where, *more, url, token])
        out, err = self._capsys.readouterr()
        assert token == "-" or token not in out + err
        return code, out, err

    def certificate(self, path: str) -> x509.Certificate:
        return x509.load_pem_x509_certificate((self.root / path).read_bytes())

    def files(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.root)): path.read_bytes()
            for path in self.root.rglob("*")
            if path.is_file()
        }


@pytest.fixture
def machine(tmp_path, capsys):
    return Machine(tmp_path / "host", capsys)


@pytest.fixture
def engine(tmp_path):
    with JoiningEngine(tmp_path / "engine") as engine:
        yield engine


def test_a_host_has_all_that_it_needs_and_says_so(machine, engine) -> None:
    code, out, err = machine.join(engine.url, engine.token_for(NODE))
    assert (code, err) == (0, "")
    assert out.startswith("This host is node1 of the engine at https://127.0.0.1:")
    assert "which calls it node1.example.com" in out
    made = config.load(machine.config)
    assert made.access.roles == {ENGINE: "admin"}
    assert made.access.default_role == "none"
    assert made.listen.hosts_ca == str(machine.pki / "certs/hostscacert.pem")
    assert made.migration.certificate == str(machine.pki / "certs/hostcert.pem")
    assert machine.config.read_text().startswith("# ours\n")
    assert "tls_allowed_dn_list" in machine.libvirtd.read_text()
    units = {
        "etc/pki/vdsm/certs/vdsmcert.pem": "listener",
        "etc/pki/vdsm/certs/hostcert.pem": "vdsm-cinder",
        "etc/pki/libvirt/servercert.pem": "libvirt",
        "etc/pki/libvirt-migrate/server-cert.pem": "qemu",
    }
    for path, unit in units.items():
        assert f"OU={unit}," in machine.certificate(path).subject.rfc4514_string()
    for key in ("vdsmkey", "hostkey", "libvirtkey"):
        assert (machine.pki / f"keys/{key}.pem").stat().st_mode & 0o777 == 0o600
    assert not list(machine.pki.rglob("joining-*"))
    # The daemon can be served with them, and the engine trusts it.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(made.listen.certificate, made.listen.key)
    assert engine.asked == [joining.CA_PATH, joining.PATH]


def test_the_same_line_again_does_no_harm_and_keeps_the_keys(machine, engine) -> None:
    token = engine.token_for(NODE)
    assert machine.join(engine.url, token)[0] == 0
    before = machine.files()
    assert machine.join(engine.url, token)[0] == 0
    after = machine.files()
    assert after.keys() == before.keys()
    changed = {path for path in before if before[path] != after[path]}
    assert all("cert" in path for path in changed)


@pytest.mark.parametrize("step", ["join", "_put", "_settle"])
def test_what_was_interrupted_is_done_by_the_same_line(machine, engine, monkeypatch, step) -> None:
    token = engine.token_for(NODE)

    def interrupted(*args: Any, **named: Any) -> Any:
        if step == "join":
            # The engine has signed, and its answer is lost.
            real(*args, **named)
        raise KeyboardInterrupt

    where = client_engine.Engine if step == "join" else run
    real = getattr(where, step)
    monkeypatch.setattr(where, step, interrupted)
    assert machine.join(engine.url, token)[0] == 130
    monkeypatch.undo()
    assert machine.join(engine.url, token)[0] == 0
    assert not list(machine.pki.rglob("joining-*"))


def test_another_machine_cannot_use_the_same_line(machine, engine, tmp_path, capsys) -> None:
    token = engine.token_for(NODE)
    assert machine.join(engine.url, token)[0] == 0
    code, _, err = Machine(tmp_path / "other", capsys).join(engine.url, token)
    assert code == 1
    assert "the engine refused: the token of host node1 was used by another machine" in err


def test_an_engine_of_another_authority_gets_no_token_and_nothing_is_changed(
    machine, engine, tmp_path
) -> None:
    before = machine.files()
    with JoiningEngine(tmp_path / "other") as other:
        code, _, err = machine.join(engine.url, other.token_for(NODE))
    assert code == 1
    assert "is not the engine that gave the token" in err
    assert engine.asked == [joining.CA_PATH]
    assert machine.files() == before


def test_an_engine_behind_another_https_certificate_gets_no_token(
    machine, engine, tmp_path, monkeypatch
) -> None:
    with JoiningEngine(tmp_path / "other") as other:
        # It hands out the right authority, as anybody can, and cannot show its certificate.
        monkeypatch.setattr(other, "authorities", engine.authorities)
        code, _, err = machine.join(other.url, engine.token_for(NODE))
        assert other.asked == [joining.CA_PATH]
    assert code == 1
    assert "the HTTPS certificate" in err
    assert "--engine-ca" in err


def test_an_engine_with_an_https_certificate_of_another_ca_that_is_named(
    machine, engine, tmp_path, monkeypatch
) -> None:
    with JoiningEngine(tmp_path / "other") as other:
        ca = other.authorities.layout.clients.certificate
        monkeypatch.setattr(other, "authorities", engine.authorities)
        token = other.token_for(NODE)
        assert machine.join(other.url, token, "--engine-ca", str(ca))[0] == 0


def test_a_host_of_another_authority_leaves_it_only_by_force(machine, engine, tmp_path) -> None:
    with JoiningEngine(tmp_path / "other") as other:
        assert machine.join(other.url, other.token_for(NODE))[0] == 0
    before = machine.files()
    token = engine.token_for(NODE)
    code, _, err = machine.join(engine.url, token)
    assert code == 1
    assert "has certificates of another authority" in err
    assert machine.files() == before
    assert machine.join(engine.url, token, "--force")[0] == 0
    assert machine.files() != before


def test_what_is_in_the_way_is_said_before_the_engine_is_asked(machine, engine) -> None:
    machine.libvirtd.unlink()
    code, _, err = machine.join(engine.url, engine.token_for(NODE))
    assert (code, engine.asked) == (1, [])
    assert "install libvirt first" in err


@pytest.mark.parametrize(
    ("token", "told"),
    [
        (lambda engine: Token.made(engine.authorities.fingerprint, now_ms()), "is not good"),
        (
            lambda engine: Token.made(engine.authorities.fingerprint, now_ms(), life_ms=-1),
            "is not good any more",
        ),
    ],
)
def test_the_engines_words_are_shown(machine, engine, token, told) -> None:
    made = token(engine)
    if made.expires_ms < now_ms():
        engine.hosts["h1"] = made.given_to(NODE)
    code, _, err = machine.join(engine.url, made.text.reveal())
    assert code == 1
    assert told in err


@pytest.mark.parametrize(
    ("body", "told"), [(b"<html>", "answered 200"), (b"{}", "lacks something")]
)
def test_an_answer_that_is_none_takes_one_sentence(
    machine, engine, monkeypatch, body, told
) -> None:
    real = client_engine.Engine._ask

    def ask(self: Any, method: str, *rest: Any) -> Any:
        return (200, body) if method == "POST" else real(self, method, *rest)

    monkeypatch.setattr(client_engine.Engine, "_ask", ask)
    code, _, err = machine.join(engine.url, engine.token_for(NODE))
    assert code == 1
    assert told in err
    assert len(err.splitlines()) == 1


def test_lists_of_revoked_certificates_of_another_authority_are_in_the_way(machine, engine) -> None:
    machine.config.write_text(machine.config.read_text() + "  crl: /etc/crl.pem\n")
    code, _, err = machine.join(engine.url, engine.token_for(NODE), "--force")
    assert code == 1
    assert "option listen.crl" in err


def test_a_daemon_that_takes_any_port_cannot_join(machine, engine) -> None:
    machine.config.write_text(machine.config.read_text() + "  port: 0\n")
    code, _, err = machine.join(engine.url, engine.token_for(NODE))
    assert (code, engine.asked) == (1, [])
    assert "option listen.port" in err


def test_the_command_and_the_engine_read_tokens_alike(engine) -> None:
    text = engine.token_for(NODE)
    assert client_token.fingerprint(text).hex() == joining.fingerprint_in(text)
    with pytest.raises(Invalid):
        joining.fingerprint_in(text[:-2])
    assert client_engine.JOIN_PATH == joining.PATH
    assert client_engine.AUTHORITY_PATH == joining.CA_PATH
    assert run.UNITS == joining.UNITS
