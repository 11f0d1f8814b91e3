# SPDX-License-Identifier: GPL-2.0-or-later
"""vdsm-cinder pki hosts and doctor's look at it: libvirt, QEMU and clients are told apart."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import pwd
import shutil
import socket
import ssl
import stat
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509.oid import NameOID

from lab.base import wait_until
from vdsmcinder.ceph.findings import State
from vdsmcinder.client import cli
from vdsmcinder.client.doctor import authorities
from vdsmcinder.client.exit_codes import EXPIRES_SOON
from vdsmcinder.client.pki import certificates as issuing
from vdsmcinder.client.pki import hosts, libvirt_files, show
from vdsmcinder.config import Config, Listen, Migration

NAMES = ("--name", "node7.example.com", "--name", "192.0.2.7")
PROGRAMS = {"host": "vdsm-cinder", "libvirt": "libvirt", "qemu": "qemu"}


class Machine:
    """A host's files: /etc with libvirt's configuration, and the directory of vdsm-cinder pki."""

    def __init__(self, root: Path) -> None:
        self.root, self.pki = root, root / "etc/pki/vdsm"
        self.conf = root / "etc/libvirt/libvirtd.conf"

    @classmethod
    def new(cls, root: Path) -> Machine:
        """One with an authority for clients and none for hosts."""
        machine = cls(root)
        machine.conf.parent.mkdir(parents=True)
        machine.conf.write_text('#tls_allowed_dn_list = ["DN1", "DN2"]\nlog_level = 3\n')
        assert cli.main(["pki", "init", "--dir", str(machine.pki), *NAMES]) == 0
        return machine

    def copied_to(self, root: Path) -> Machine:
        """Another with the same files, their owners and modes."""
        subprocess.run(["cp", "--archive", self.root, root], check=True)
        return Machine(root)

    def hosts(self, *words: str) -> int:
        where = ("--dir", str(self.pki), "--root", str(self.root))
        return cli.main(["pki", "hosts", *where, *NAMES, *words])

    @property
    def settings(self) -> Config:
        certs, keys = self.pki / "certs", self.pki / "keys"
        listen = Listen(
            certificate=str(certs / "vdsmcert.pem"),
            key=str(keys / "vdsmkey.pem"),
            ca=str(certs / "cacert.pem"),
        )
        own = Migration(certificate=str(certs / "hostcert.pem"), key=str(keys / "hostkey.pem"))
        return Config(listen=listen, migration=own)

    def found(self) -> list[tuple[State, str, str]]:
        findings = asyncio.run(authorities.look(self.settings, self.root))
        return [(finding.state, finding.message, finding.remedy) for finding in findings]


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """What tests copy and leave as it is, like the next one."""
    return Machine.new(tmp_path_factory.mktemp("new") / "machine")


@pytest.fixture(scope="module")
def installed(new: Machine, tmp_path_factory: pytest.TempPathFactory) -> Machine:
    installed = new.copied_to(tmp_path_factory.mktemp("installed") / "machine")
    assert installed.hosts("--install") == 0
    return installed


@pytest.fixture
def machine(new: Machine, tmp_path: Path) -> Machine:
    """A host whose programs have no certificates yet."""
    return new.copied_to(tmp_path / "machine")


@pytest.fixture
def ready(installed: Machine, tmp_path: Path) -> Machine:
    """A host whose programs have their certificates, all in place."""
    return installed.copied_to(tmp_path / "machine")


def one(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def test_each_program_has_its_own_of_the_hosts_authority(machine: Machine) -> None:
    assert machine.hosts() == 0
    ca, clients = one(machine.pki / "certs/hostscacert.pem"), one(machine.pki / "certs/cacert.pem")
    assert ca.subject == ca.issuer != clients.subject
    keys = set()
    for name, unit in PROGRAMS.items():
        certificate = one(machine.pki / f"certs/{name}cert.pem")
        assert certificate.issuer == ca.subject
        (found,) = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
        assert found.value == unit
        key = machine.pki / f"keys/{name}key.pem"
        keys.add(key.read_bytes())
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(machine.pki / f"certs/{name}cert.pem", key)
        mode = stat.S_IMODE(key.stat().st_mode)
        assert mode == (0o440 if name == "qemu" else 0o600)
    assert len(keys) == 3


@pytest.mark.parametrize("program", ["libvirt", "qemu"])
def test_libvirt_takes_what_it_is_given(machine: Machine, tmp_path: Path, program: str) -> None:
    """It looks at its certificates before it connects or listens; nobody listens here."""
    assert machine.hosts() == 0
    for link, target in {
        "cacert.pem": "certs/hostscacert.pem",
        "clientcert.pem": f"certs/{program}cert.pem",
        "clientkey.pem": f"keys/{program}key.pem",
    }.items():
        (tmp_path / link).symlink_to(machine.pki / target)
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        uri = f"qemu+tls://127.0.0.1:{port}/system?pkipath={tmp_path}"
        said = subprocess.run(
            ["virsh", "--connect", uri, "version"], capture_output=True, text=True, check=False
        ).stderr
    assert "unable to connect to server at '127.0.0.1" in said
    assert "Connection refused" in said


def test_in_place_for_libvirt_and_qemu(machine: Machine) -> None:
    assert machine.hosts("--install") == 0
    etc = machine.root / "etc/pki"
    ca = (machine.pki / "certs/hostscacert.pem").read_bytes()
    assert (etc / "CA/cacert.pem").read_bytes() == ca
    assert (etc / "libvirt-migrate/ca-cert.pem").read_bytes() == ca
    for end in ("client", "server"):
        for there, program in (
            ("libvirt/{}cert.pem", "libvirt"),
            ("libvirt-migrate/{}-cert.pem", "qemu"),
        ):
            assert one(etc / there.format(end)) == one(machine.pki / f"certs/{program}cert.pem")
    text = machine.conf.read_text()
    assert text.startswith('#tls_allowed_dn_list = ["DN1", "DN2"]\nlog_level = 3\n')
    assert libvirt_files.setting(text, hosts.LIST) == list(hosts.ALLOWED)
    assert machine.hosts("--install") == 0  # again, and nothing is different
    assert machine.conf.read_text() == text
    assert machine.found() == []


def test_an_authority_stays_and_signs_for_other_hosts(machine: Machine, tmp_path: Path) -> None:
    assert machine.hosts() == 0
    before = one(machine.pki / "certs/hostscacert.pem")
    assert machine.hosts() == 1
    assert machine.hosts("--force") == 0
    assert one(machine.pki / "certs/hostscacert.pem") == before
    other = tmp_path / "host2"
    words = ("--dir", str(other), "--name", "host2", "--ca-from", str(machine.pki))
    assert cli.main(["pki", "hosts", *words]) == 0
    assert one(other / "certs/libvirtcert.pem").issuer == before.subject
    assert not (other / "keys/hostscakey.pem").exists()


def test_an_authority_that_ends_before_what_it_signs_is_renewed(machine: Machine) -> None:
    assert machine.hosts("--ca-days", "100", "--days", "30") == 0
    before = one(machine.pki / "certs/hostscacert.pem")
    assert machine.hosts("--force", "--days", "50") == 0
    assert one(machine.pki / "certs/hostscacert.pem") == before
    assert machine.hosts("--force", "--days", "300", "--ca-days", "1000") == 0
    renewed, signed = (
        one(machine.pki / f"certs/{name}cert.pem") for name in ("hostsca", "libvirt")
    )
    assert renewed.subject == before.subject
    assert issuing.encoded(renewed.public_key()) == issuing.encoded(before.public_key())
    assert show.days_left(signed) > 299
    assert show.days_left(renewed) > 999


def test_they_are_shown_with_the_others(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    assert machine.hosts("--days", "10") == 0
    assert cli.main(["pki", "show", "--dir", str(machine.pki), "--within", "5"]) == 0
    assert cli.main(["pki", "show", "--dir", str(machine.pki), "--within", "30"]) == EXPIRES_SOON
    told = capsys.readouterr()
    assert "O=vdsm-cinder" in told.out
    assert "hostcert.pem expires in 10 days; renew it: vdsm-cinder pki hosts --force" in told.err


@pytest.mark.parametrize(("days", "state"), [(20, State.WARNING), (0.00001, State.WRONG)])
def test_the_doctor_tells_which_of_them_end(ready: Machine, days: float, state: State) -> None:
    key = issuing.key_of((ready.pki / "keys/hostscakey.pem").read_bytes(), "")
    ca = issuing.Authority(one(ready.pki / "certs/hostscacert.pem"), key)
    for name, unit in (("libvirt/servercert", "libvirt"), ("libvirt-migrate/client-cert", "qemu")):
        path = ready.root / f"etc/pki/{name}.pem"
        wish = issuing.Wish.of_service(["node7.example.com"], unit)
        signed = ca.sign(wish, issuing.new_key().public_key(), days)
        path.write_bytes(issuing.certificate_pem(signed))
        if days < 1:
            ended = issuing.ends(signed).timestamp()
            wait_until(lambda: time.time() > ended, "it to end", 10)  # noqa: B023
        ((found, message, remedy),) = ready.found()
        assert (found, remedy) == (state, authorities.RENEW)
        assert message.startswith(str(path))
        assert ready.hosts("--install") == 0


def test_names_of_somebody_elses_in_libvirts_list_are_left_alone(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.conf.write_text('tls_allowed_dn_list = [\n "CN=x"\n]\n')
    assert machine.hosts("--install") == 1
    assert "lets in names of its own by tls_allowed_dn_list" in capsys.readouterr().err
    assert machine.conf.read_text() == 'tls_allowed_dn_list = [\n "CN=x"\n]\n'
    assert not (machine.root / "etc/pki/CA/cacert.pem").exists()


# --- doctor ------------------------------------------------------------------------------------


def test_a_host_without_tls_of_libvirts_needs_no_second_authority(machine: Machine) -> None:
    assert machine.found() == []


def set_up_as_before(machine: Machine) -> None:
    """One authority for all, by the commands that the documentation once had."""
    etc = machine.root / "etc/pki"
    for directory in ("CA", "libvirt/private", "libvirt-migrate"):
        (etc / directory).mkdir(parents=True)
    own = {kind: machine.pki / kind for kind in ("certs", "keys")}
    (etc / "CA/cacert.pem").symlink_to(own["certs"] / "cacert.pem")
    shutil.copy(own["certs"] / "cacert.pem", etc / "libvirt-migrate/ca-cert.pem")
    for end in ("client", "server"):
        (etc / f"libvirt/{end}cert.pem").symlink_to(own["certs"] / "vdsmcert.pem")
        (etc / f"libvirt/private/{end}key.pem").symlink_to(own["keys"] / "vdsmkey.pem")
        shutil.copy(own["certs"] / "vdsmcert.pem", etc / f"libvirt-migrate/{end}-cert.pem")
        shutil.copy(own["keys"] / "vdsmkey.pem", etc / f"libvirt-migrate/{end}-key.pem")


def test_one_authority_for_all_is_wrong_and_the_remedy_mends_it(machine: Machine) -> None:
    set_up_as_before(machine)
    found = machine.found()
    assert {(state, remedy) for state, _, remedy in found} == {(State.WRONG, authorities.MEND)}
    migrate = f"{machine.root}/etc/pki/libvirt-migrate"
    assert "libvirt trusts the CA that clients have" in found[0][1]
    assert [message for _, message, _ in found[1:]] == [
        f"the daemon takes QEMU's certificate, {migrate}/client-cert.pem",
        f"the daemon takes QEMU's certificate, {migrate}/server-cert.pem",
        f"QEMU has the daemon's own key, or libvirt's, in {migrate}/client-key.pem",
        f"QEMU has the daemon's own key, or libvirt's, in {migrate}/server-key.pem",
    ]
    own = {path: path.read_bytes() for path in machine.pki.glob("*/*") if path.is_file()}
    assert machine.hosts("--install") == 0
    assert machine.found() == []
    # What libvirt's links led to is the daemon's, and stays.
    assert {path: path.read_bytes() for path in own} == own


def test_without_a_list_of_names_libvirt_would_let_qemu_in(ready: Machine) -> None:
    ready.conf.write_text("log_level = 3\n")
    ((state, message, _),) = ready.found()
    assert state is State.WRONG
    assert "QEMU's too: there is no tls_allowed_dn_list" in message


# What libvirt's configuration may say besides, and how that is told; empty where nothing is wrong.
SAID = (
    ('tls_allowed_dn_list = ["*"]', "lets in QEMU's certificate"),
    ('tls_allowed_dn_list = [\n  "CN=x",\n  "O=vdsm-cinder,*,CN=node7*"\n]', "lets in QEMU's"),
    ("tls_allowed_dn_list = ['CN=*,OU=qemu,O=*']", "lets in QEMU's certificate"),
    ('tls_allowed_dn_list = ["CN=*,OU=libvirt,O=vdsm-cinder", "CN=admin"]', ""),
    ("{}\ntls_no_verify_certificate = 1", "whoever has no certificate"),
    ("{}\ntls_no_verify_certificate = 0\n#tls_no_verify_certificate = 1", ""),
    ('{}\nlisten_tcp = 1\nauth_tcp = "none"', "without TLS is root on this host"),
    ("{}\nlisten_tcp = 1", ""),
    ('{}\nauth_tcp = "none"', ""),
    ('{}\nca_file = "/etc/pki/vdsm/certs/cacert.pem"', "trusts the CA that clients have"),
)


@pytest.mark.parametrize(("said", "wrong"), SAID, ids=range(len(SAID)))
def test_what_libvirt_is_told_counts(ready: Machine, said: str, wrong: str) -> None:
    ready.conf.write_text(f"{said.format(ready.conf.read_text())}\n")
    found = [message for state, message, _ in ready.found() if state is State.WRONG]
    assert [wrong in message for message in found] == [True] * (
        2 if "QEMU" in wrong else bool(wrong)
    )


@pytest.mark.parametrize("key", ["ca_file", "cert_file", "key_file"])
def test_certificates_that_libvirt_seeks_elsewhere_are_not_put_in_vain(
    machine: Machine, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    machine.conf.write_text(f'{key} = "/etc/pki/vdsm/some.pem"\n')
    assert machine.hosts("--install") == 1
    assert f"has libvirt look for certificates elsewhere ({key})" in capsys.readouterr().err
    assert not (machine.root / "etc/pki/CA").exists()


def test_without_libvirt_nothing_is_put_in_place(
    machine: Machine, capsys: pytest.CaptureFixture[str]
) -> None:
    machine.conf.unlink()
    assert machine.hosts("--install") == 1
    assert "install libvirt first" in capsys.readouterr().err
    assert not (machine.root / "etc/pki/CA").exists()


def test_both_of_libvirts_daemons_are_told(machine: Machine) -> None:
    other = machine.conf.with_name("virtproxyd.conf")
    other.write_text("")
    assert machine.hosts("--install") == 0
    assert machine.found() == []
    other.write_text("\n")
    ((_, message, _),) = machine.found()
    assert message.endswith(f"there is no tls_allowed_dn_list in {other}")


def test_qemus_certificates_are_where_its_configuration_says(machine: Machine) -> None:
    where = machine.root / "etc/pki/vdsm/libvirt-migrate"
    conf = machine.root / "etc/libvirt/qemu.conf"
    conf.write_text(
        'migrate_tls_x509_cert_dir = "/etc/pki/vdsm/libvirt-migrate"\n'
        'spice_tls_x509_cert_dir = "/etc/pki/spice"\n'
    )
    assert machine.hosts("--install") == 0
    assert one(where / "server-cert.pem") == one(machine.pki / "certs/qemucert.pem")
    assert machine.found() == []
    spice = machine.root / "etc/pki/spice"
    spice.mkdir()
    shutil.copy(machine.pki / "keys/hostkey.pem", spice / "server-key.pem")
    shutil.copy(machine.pki / "certs/hostcert.pem", spice / "server-cert.pem")
    certs = machine.pki / "certs"
    settings = machine.settings
    listen = dataclasses.replace(settings.listen, hosts_ca=str(certs / "hostscacert.pem"))
    settings = dataclasses.replace(settings, listen=listen)
    found = asyncio.run(authorities.look(settings, machine.root))
    assert [finding.message for finding in found] == [
        f"the daemon takes QEMU's certificate, {spice}/server-cert.pem",
        f"QEMU has the daemon's own key, or libvirt's, in {spice}/server-key.pem",
    ]


# --- QEMU's user -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def open_directory() -> Iterator[Path]:
    """Where QEMU's user may enter, who is nobody; pytest's own directories are closed to him."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o755)
        yield Path(directory)


@pytest.fixture(scope="module")
def open_installed(new: Machine, open_directory: Path) -> Machine:
    installed = new.copied_to(open_directory / "installed")
    for path in (installed.root, *installed.root.rglob("*")):
        if path.is_dir():
            path.chmod(0o755)
    (installed.root / "etc/libvirt/qemu.conf").write_text('user = "nobody"\n')
    assert installed.hosts("--install") == 0
    return installed


@pytest.fixture
def open_machine(open_installed: Machine, open_directory: Path) -> Iterator[Machine]:
    """A host like `ready` whose directories QEMU's user may enter."""
    machine = open_installed.copied_to(open_directory / "machine")
    yield machine
    shutil.rmtree(machine.root)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be another user")
# What a key may be read by, and whether its group is that of QEMU's user.
MODES = ((0o600, True, False), (0o640, True, True), (0o640, False, False), (0o604, False, True))


@needs_root
@pytest.mark.parametrize(("mode", "is_group", "wrong"), MODES)
@pytest.mark.parametrize(
    "name", ["vdsmkey", "hostkey", "cakey", "hostscakey", "libvirtkey", "libvirt/private/serverkey"]
)
def test_qemus_user_may_not_read_what_is_not_its_own(
    open_machine: Machine, mode: int, is_group: bool, wrong: bool, name: str
) -> None:
    directory = open_machine.root / "etc/pki" if "/" in name else open_machine.pki / "keys"
    key = directory / f"{name}.pem"
    if is_group:
        os.chown(key, -1, pwd.getpwnam("nobody").pw_gid)
    key.chmod(mode)
    found = open_machine.found()
    message = f"QEMU's user nobody may read {key}"
    assert [told for _, told, _ in found] == [message] * wrong
    # A directory that it cannot enter is enough.
    key.parent.chmod(0o700)
    assert open_machine.found() == []


@needs_root
def test_a_qemu_that_is_root_reads_all(machine: Machine) -> None:
    (machine.root / "etc/libvirt/qemu.conf").write_text('user = "+0"\n')
    ((state, message, remedy),) = machine.found()
    assert (state, "QEMU runs as root" in message) == (State.WRONG, True)
    subprocess.run(remedy, shell=True, check=True)
    assert machine.found() == []
