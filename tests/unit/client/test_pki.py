# SPDX-License-Identifier: GPL-2.0-or-later
"""vdsm-cinder pki: what it makes, what it keeps, and what it refuses. OpenSSL has the last word."""

from __future__ import annotations

import json
import os
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography import x509

from vdsmcinder import config
from vdsmcinder.client import cli
from vdsmcinder.client.pki import certificates, init
from vdsmcinder.client.pki import files as pki_files
from vdsmcinder.client.pki.certificates import Authority, Wish

OK, REFUSED, USAGE, SOON, EXPIRED = 0, 1, 2, 4, 5

Pki = Callable[..., "Outcome"]


class Outcome:
    """How the command ended."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err


@pytest.fixture
def host(tmp_path: Path) -> Path:
    return tmp_path / "host"


@pytest.fixture
def run(host: Path, capsys: pytest.CaptureFixture[str]) -> Pki:
    """Runs vdsm-cinder pki on a directory, a host's own by default."""

    def run_it(*words: str, directory: Path = host) -> Outcome:
        capsys.readouterr()
        action, *rest = words
        code = cli.main(["pki", action, "--dir", str(directory), *rest])
        return Outcome(code, *capsys.readouterr())

    return run_it


@pytest.fixture
def made(host: Path, run: Pki) -> Path:
    """A directory as init leaves it."""
    assert run("init", "--name", "node7.example.com", "--name", "192.0.2.7").code == OK
    return host


def one(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def files(directory: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(directory)): path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file()
    }


def verified(directory: Path, ca: bytes | None = None) -> None:
    """OpenSSL, as strict as it gets, takes the certificates for what they are for."""
    trusted = directory / "trusted.pem"
    trusted.write_bytes(ca or (directory / "certs/cacert.pem").read_bytes())
    for name, purpose in (
        ("vdsmcert", "sslserver"),
        ("vdsmcert", "sslclient"),
        ("clientcert", "sslclient"),
    ):
        command = ["openssl", "verify", "-x509_strict", "-purpose", purpose, "-CAfile"]
        subprocess.run([*command, trusted, directory / f"certs/{name}.pem"], check=True)
    trusted.unlink()


def sentence(outcome: Outcome, code: int, *words: str) -> None:
    assert outcome.code == code, outcome.err
    (line,) = outcome.err.splitlines()
    assert line.startswith("vdsm-cinder: ")
    assert [word for word in words if word not in line] == [], line


# init


def test_init_makes_what_openssl_takes(made: Path) -> None:
    verified(made)
    certificate = one(made / "certs/vdsmcert.pem")
    assert certificates.names_of(certificate) == ["node7.example.com", "192.0.2.7"]
    assert certificate.subject.rfc4514_string() == "CN=node7.example.com,O=vdsm-cinder"
    for cert, key in (("cacert", "cakey"), ("vdsmcert", "vdsmkey"), ("clientcert", "clientkey")):
        private = certificates.key_of((made / f"keys/{key}.pem").read_bytes(), key)
        assert certificates.belong(one(made / f"certs/{cert}.pem"), private)


def test_a_client_cannot_pass_for_a_host(made: Path) -> None:
    verify = ["openssl", "verify", "-purpose", "sslserver", "-CAfile"]
    certificates = (made / "certs/cacert.pem", made / "certs/clientcert.pem")
    done = subprocess.run([*verify, *certificates], check=False)
    assert done.returncode != 0


def test_modes_do_not_depend_on_the_umask(
    host: Path, run: Pki, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pki_files, "ids_of", lambda _name: (os.getuid(), os.getgid()))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    for umask in (0o077, 0o000):
        before = os.umask(umask)
        try:
            assert run("init", "--force").code == OK
        finally:
            os.umask(before)
        modes = {
            path.name: oct(stat.S_IMODE(path.stat().st_mode)) for path in [host, *host.rglob("*")]
        }
        assert modes == {
            **dict.fromkeys(("host", "certs", "keys"), "0o755"),
            **dict.fromkeys(("cacert.pem", "vdsmcert.pem", "clientcert.pem"), "0o644"),
            **dict.fromkeys(("cakey.pem", "vdsmkey.pem", "clientkey.pem"), "0o600"),
        }


def test_where_the_daemon_has_no_user_it_is_told_how_to_give_it_the_key(
    run: Pki, host: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pki_files, "ids_of", lambda _name: None)
    assert "chown vdsm-cinder: vdsmkey.pem" in run("init").out
    assert stat.S_IMODE((host / "keys/vdsmkey.pem").stat().st_mode) == 0o600
    sentence(run("init", "--force", "--owner", "nobodys"), REFUSED, "no user nobodys")


@pytest.mark.parametrize("left", ["keys/cakey.pem", "keys/vdsmkey.pem", "certs/clientcert.pem"])
def test_nothing_is_overwritten_without_force(made: Path, run: Pki, left: str) -> None:
    for path in made.rglob("*.pem"):
        if path != made / left:
            path.unlink()
    before = files(made)
    sentence(run("init"), REFUSED, left, "exists already", "pki renew", "--force")
    assert files(made) == before
    assert run("init", "--force").code == OK
    assert files(made)[left] != before[left]
    verified(made)


def test_what_cannot_be_written_leaves_nothing(host: Path, run: Pki) -> None:
    (host / "certs").mkdir(parents=True)
    (host / "keys").write_text("in the way")
    sentence(run("init"), REFUSED, "keys", "cannot be written")
    assert list((host / "certs").iterdir()) == []


def test_by_default_it_takes_the_names_of_this_machine(made: Path, run: Pki) -> None:
    assert run("renew", *[f"--name={n}" for n in init.host_names()]).code == OK
    names = certificates.names_of(one(made / "certs/vdsmcert.pem"))
    assert {"localhost", "127.0.0.1", os.uname().nodename} <= set(names)
    assert not names[0].startswith("localhost")


@pytest.mark.parametrize(
    "name", ["a b", "", "-x", "a..b", "ü.example", "*", "x" * 64, "10.0.0.0/8"]
)
def test_a_name_that_is_none_is_refused(run: Pki, host: Path, name: str) -> None:
    sentence(run("init", f"--name={name}"), REFUSED, "neither a host name nor an IP address")
    assert not host.exists()


def test_a_long_name_does_not_fit_the_subject_but_the_certificate(run: Pki, host: Path) -> None:
    name = "node7." + "department." * 6 + "example.com"
    assert run("init", "--name", name).code == OK
    certificate = one(host / "certs/vdsmcert.pem")
    assert certificates.names_of(certificate) == [name]
    assert certificate.subject.rfc4514_string() == "CN=node7,O=vdsm-cinder"


def test_the_paths_are_those_of_the_configuration(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    listen = {"certificate": "a/host.pem", "key": "b/host.key", "ca": "c/ca.pem"}
    file = tmp_path / "vdsm-cinder.yaml"
    file.write_text(json.dumps({"listen": {k: f"{tmp_path}/{v}" for k, v in listen.items()}}))
    assert cli.main(["pki", "init", "--config", str(file)]) == OK
    made = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("?/*")}
    assert made == {
        *listen.values(),
        *("a/clientcert.pem", "b/clientkey.pem", "b/cakey.pem"),
    }
    file.write_text("listen: 7")
    assert cli.main(["pki", "show", "--config", str(file)]) == REFUSED
    assert "or name another directory with --dir" in capsys.readouterr().err
    default = pki_files.Layout.below(Path("/etc/pki/vdsm"))
    assert str(default.host.key) == config.Listen.key
    assert str(default.host.certificate) == config.Listen.certificate
    assert str(default.ca.certificate) == config.Listen.ca


def test_several_hosts_have_one_ca(made: Path, run: Pki, tmp_path: Path) -> None:
    other = tmp_path / "other"
    words = ("--ca-from", str(made))
    assert run("init", "--name", "node8", *words, directory=other).code == OK
    assert not (other / "keys/cakey.pem").exists()
    verified(other, ca=(made / "certs/cacert.pem").read_bytes())
    sentence(run("renew", directory=other), REFUSED, "key of the CA", "is not here", "--ca-from")
    assert run("renew", "--with-ca").code == OK
    assert run("renew", *words, directory=other).code == OK
    assert one(other / "certs/cacert.pem") == one(made / "certs/cacert.pem")
    sentence(run("renew", "--with-ca", *words, directory=other), USAGE, f"--dir {made}")


# renew


def test_renew_keeps_keys_names_and_the_ca(made: Path, run: Pki) -> None:
    (made / "certs/vdsmcert.pem").chmod(0o640)
    before, old = files(made), one(made / "certs/vdsmcert.pem")
    outcome = run("renew", "--days", "500")
    assert outcome.code == OK
    assert "systemctl reload vdsm-cinderd" in outcome.out
    changed = {name for name, content in files(made).items() if before[name] != content}
    assert changed == {"certs/vdsmcert.pem", "certs/clientcert.pem"}
    new = one(made / "certs/vdsmcert.pem")
    assert new.serial_number != old.serial_number
    assert certificates.ends(new) > certificates.ends(old)
    assert (new.subject, certificates.names_of(new)) == (old.subject, certificates.names_of(old))
    assert stat.S_IMODE((made / "certs/vdsmcert.pem").stat().st_mode) == 0o640
    verified(made)


def test_renew_can_replace_keys_and_names(made: Path, run: Pki) -> None:
    before = files(made)
    assert run("renew", "--new-keys", "--name", "node9").code == OK
    after = files(made)
    assert after["keys/cakey.pem"] == before["keys/cakey.pem"]
    assert after["keys/vdsmkey.pem"] != before["keys/vdsmkey.pem"]
    assert stat.S_IMODE((made / "keys/vdsmkey.pem").stat().st_mode) in (0o600, 0o640)
    certificate = one(made / "certs/vdsmcert.pem")
    assert certificates.belong(certificate, certificates.key_of(after["keys/vdsmkey.pem"], "it"))
    assert certificates.names_of(certificate) == ["node9"]
    verified(made)


def test_a_renewed_ca_and_the_old_one_serve_old_and_new_certificates(made: Path, run: Pki) -> None:
    old_ca = (made / "certs/cacert.pem").read_bytes()
    assert run("renew", "--within", "1", "--with-ca").out.startswith("nothing to renew")
    new = Authority(
        one(made / "certs/cacert.pem"),
        certificates.key_of((made / "keys/cakey.pem").read_bytes(), "it"),
    ).renewed(days=5000)
    # Old certificates by the new CA, then new ones by the old CA.
    verified(made, ca=certificates.certificate_pem(new.certificate))
    assert run("renew", "--with-ca").code == OK
    assert (made / "certs/cacert.pem").read_bytes() != old_ca
    verified(made, ca=old_ca)


def test_renew_within_leaves_what_lasts(made: Path, run: Pki) -> None:
    before = files(made)
    assert run("renew", "--within", "30").out == (
        "nothing to renew: everything lasts longer than 30 days\n"
    )
    assert files(made) == before
    assert run("renew", "--within", "398", "--json").out.count('"file"') == 2


def test_a_certificate_never_outlives_its_ca(run: Pki, host: Path) -> None:
    assert run("init", "--ca-days", "10").code == OK
    assert certificates.ends(one(host / "certs/vdsmcert.pem")) == certificates.ends(
        one(host / "certs/cacert.pem")
    )


def test_certificates_of_others_are_left_alone(made: Path, run: Pki) -> None:
    before = files(made)
    key = certificates.new_key()
    foreign = Authority.made("engine", 10).sign(Wish.of_host(["node7"]), key.public_key(), 10)
    (made / "certs/vdsmcert.pem").write_bytes(certificates.certificate_pem(foreign))
    sentence(run("renew"), REFUSED, "issued by CN=engine CA,O=vdsm-cinder", "by the engine")
    assert files(made)["certs/clientcert.pem"] == before["certs/clientcert.pem"]
    (made / "keys/cakey.pem").write_bytes(certificates.key_pem(key))
    sentence(run("renew"), REFUSED, "cakey.pem is not the key of the CA")
    (made / "keys/cakey.pem").write_text("rubbish")
    sentence(run("renew"), REFUSED, "cakey.pem holds no private key")


# show


def test_show_tells_of_each_file(made: Path, run: Pki) -> None:
    shown = run("show")
    assert shown.code == OK
    lines = shown.out.splitlines()
    assert lines[6:10] == [
        f"host  {made}/certs/vdsmcert.pem",
        "  subject  CN=node7.example.com,O=vdsm-cinder",
        "  issuer   CN=node7.example.com CA,O=vdsm-cinder",
        "  names    node7.example.com, 192.0.2.7",
    ]
    assert lines[10].startswith(f"  key      {made}/keys/vdsmkey.pem (")
    assert lines[11].endswith(" UTC, in 398 days")
    ca, mine, client = json.loads(run("show", "--json").out)
    assert [entry["of"] for entry in (ca, mine, client)] == ["CA", "host", "client"]
    assert (ca["daysLeft"], mine["daysLeft"]) == (3650.0, 398.0)
    assert mine["names"] == ["node7.example.com", "192.0.2.7"]


def test_show_fails_when_something_ends_soon_or_has_ended(made: Path, run: Pki) -> None:
    sentence(run("show", "--within", "400"), SOON, "vdsmcert.pem expires in 398 days", "pki renew")
    assert [e["state"] for e in json.loads(run("show", "--within", "400", "--json").out)] == [
        "ok",
        "expires soon",
        "expires soon",
    ]
    key = certificates.new_key()
    old = Authority.made("engine", 1).sign(Wish.of_host(["x"]), key.public_key(), 0)
    (made / "certs/vdsmcert.pem").write_bytes(certificates.certificate_pem(old))
    shown = run("show")
    assert "an hour or less ago" in shown.out
    sentence(shown, EXPIRED, "vdsmcert.pem has expired; renew it")
    sentence(run("show", str(made / "keys/cakey.pem")), REFUSED, "holds no certificate")
    (made / "certs/cacert.pem").unlink()
    sentence(run("show"), REFUSED, "cacert.pem cannot be read", "pki init")


def test_a_bundle_is_shown_in_full(made: Path, run: Pki) -> None:
    bundle = made / "bundle.pem"
    bundle.write_bytes(b"".join(files(made)[f"certs/{n}cert.pem"] for n in ("ca", "vdsm")))
    assert run("show", str(bundle)).out.count("subject") == 2


def test_keys_are_in_no_output(made: Path, run: Pki) -> None:
    keys = [content.split(b"\n")[1] for name, content in files(made).items() if "keys/" in name]
    assert len(keys) == 3
    for words in (("show",), ("renew",), ("renew", "--new-keys", "--json")):
        outcome = run(*words)
        assert not any(key.decode() in outcome.out + outcome.err for key in keys)
