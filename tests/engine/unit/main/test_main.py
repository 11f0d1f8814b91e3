# SPDX-License-Identifier: GPL-2.0-or-later
"""The command cinder-engine as an administrator runs it, each time the real program."""

from __future__ import annotations

import getpass
import re
import signal
import socket
import sqlite3
import subprocess
import sys
from unittest.mock import ANY

import pytest

from cinderengine.access import users
from cinderengine.access.logins import Logins
from cinderengine.access.pauses import Pauses
from cinderengine.access.tokens import Lifetime
from cinderengine.authorities import certificates
from cinderengine.commands import asking
from cinderengine.commands.outcome import CommandFailed
from cinderengine.errors import Unauthenticated
from cinderengine.hosts import joining
from cinderengine.model.providers import Provider
from cinderengine.model.secret import Secret
from cinderengine.store import entities
from cinderengine.store.database import Store
from lab.base import wait_until
from tests.engine.unit.authorities.test_certificates import request
from tests.engine.unit.main.running import PASSWORD, Program
from tests.pages import REPOSITORY

# What takes long to import, and none of what only asks for help needs.
HEAVY = ("sqlalchemy", "aiohttp", "cryptography", "yaml", "asyncio", "prometheus_client")


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """An engine that was made."""
    program = Program(tmp_path_factory.mktemp("engine"))
    program.init()
    return program


def content(directory):
    """All files below it that are no database."""
    return {
        path.name: path.read_bytes()
        for path in directory.rglob("*")
        if path.is_file() and not path.name.startswith("engine.db")
    }


@pytest.mark.parametrize("arguments", [["--help"], ["user", "add", "--help"]])
def test_help_waits_for_nothing(arguments):
    code = (
        "import sys; from cinderengine.main import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit: pass\n"
        f"print('loaded', [name for name in {HEAVY} if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        check=True,
        text=True,
        stdout=subprocess.PIPE,
        cwd=REPOSITORY,
    )
    assert done.stdout.startswith("usage: cinder-engine")
    assert done.stdout.splitlines()[-1] == "loaded []"


def test_init_may_be_run_again_and_asks_nothing_then(made):
    before = content(made.state)
    again = made.run("init")
    assert again.returncode == 0
    assert "there  user admin@internal; another password: cinder-engine user pass" in again.stdout
    assert content(made.state) == before


def test_what_init_makes_nobody_else_can_read(made):
    assert made.state.stat().st_mode & 0o077 == 0
    for path in made.state.iterdir():
        assert path.stat().st_mode & 0o077 == 0, path


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("short\n", "a password of 5 characters is not taken"),
        ("", "no password for admin@internal"),
    ],
)
def test_init_that_got_no_password_is_gone_on_with(tmp_path, given, told):
    program = Program(tmp_path)
    done = program.run("init", stdin=given)
    assert (done.returncode, told in done.stderr) == (1, True)
    program.init()
    assert program.run("user", "list").stdout.split() == [
        "admin@internal",
        "administrator",
        "enabled",
    ]


@pytest.mark.parametrize(("lost", "told"), [("sealing.key", "sealed with"), ("pki", "know the")])
def test_init_makes_nothing_in_place_of_what_the_database_rests_on(tmp_path, lost, told):
    program = Program(tmp_path)
    program.init()
    assert program.run("host", "add", "h1").returncode == 0
    store = Store(f"sqlite:///{program.state / 'engine.db'}")
    with store.engine.begin() as conn:
        provider = Provider("p", "p", "rbd://mon/pool", sealed_password="sealed")
        entities.providers.insert(conn, provider)
    store.close()
    (program.state / lost).rename(tmp_path / lost)
    before = content(program.state)
    refused = program.run("init")
    assert refused.returncode == 1
    assert f"{program.state}/{lost}, wh" in refused.stderr and told in refused.stderr
    assert content(program.state) == before
    assert program.run("init", "--anew").returncode == 0
    assert (program.state / lost).exists()


def test_on_a_terminal_a_password_is_typed_twice(mocker):
    mocker.patch("sys.stdin.isatty", return_value=True)
    typed = mocker.patch.object(getpass, "getpass", side_effect=[PASSWORD, PASSWORD])
    assert asking.new_password("jo") == Secret(PASSWORD)
    assert [call.args[0] for call in typed.call_args_list] == ["Password of jo: ", "Once more: "]
    typed.side_effect = [PASSWORD, f"{PASSWORD}!"]
    with pytest.raises(CommandFailed, match="are not the same; try again"):
        asking.new_password("jo")


@pytest.mark.parametrize(
    ("options", "code", "told"),
    [
        ("log: {levle: INFO}", 2, "unknown option levle; did you mean level?"),
        ("log: {level: INFO}", 1, "does not exist; make an engine with cinder-engine init"),
    ],
)
@pytest.mark.parametrize("command", [["serve"], ["user", "list"], ["doctor"], ["db", "upgrade"]])
def test_what_cannot_be_is_told_in_one_line(tmp_path, command, options, code, told):
    done = Program(tmp_path, options).run(*command)
    assert done.returncode == code
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


def test_it_is_served_with_a_certificate_of_its_own_authority(made):
    with made.serve() as served:
        assert served.json("/health") == {
            "status": "ok",
            "parts": {},
            "version": served.json("/health")["version"],
        }
        status, metrics = served.get("/metrics")
        assert status == 200
        assert re.search(
            r'^cinder_engine_certificate_expiry\w+\{certificate="web"\} 1\.\d+e\+09$', metrics, re.M
        )
        assert re.search(r"^process_resident_memory_bytes \d", metrics, re.M)
        assert served.end() == 0
    assert "Traceback" not in "".join(served.lines)


def test_the_second_engine_on_the_same_database_says_so(made):
    with made.serve():
        second = made.run("serve")
    assert second.returncode == 1
    assert f"database {made.state}/engine.db is open in another engine; stop that" in second.stderr


def test_a_port_that_is_taken_is_told(tmp_path):
    program = Program(tmp_path)
    program.init()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        program.config.write_text(program.config.read_text().replace("port: 0", f"port: {port}"))
        done = program.run("serve")
        assert done.returncode == 1
        assert (
            f"port {port} of address 127.0.0.1 cannot be served: Address already in" in done.stderr
        )


def test_a_certificate_of_the_administrator_s_is_shown_and_read_again(tmp_path):
    program = Program(tmp_path)
    program.init()
    files = {end: tmp_path / f"web.{end}" for end in ("pem", "key")}
    options = f"certificate: {files['pem']}, key: {files['key']}, names"
    for end, path in files.items():
        path.write_bytes((program.state / f"pki/web.{end}").read_bytes())
    program.config.write_text(program.config.read_text().replace("names", options))
    with program.serve() as served:
        assert served.json("/health")["status"] == "ok"
        for path in files.values():
            path.unlink()
        served.process.send_signal(signal.SIGHUP)
        served.wait_for("what was read before stays in force: .*web.pem does not exist")
        assert served.json("/health")["status"] == "ok"
        for end, path in files.items():
            path.write_bytes((program.state / f"pki/web.{end}").read_bytes())
        served.process.send_signal(signal.SIGHUP)
        served.wait_for("log level and certificate were read again")


def test_systemd_is_told_how_it_goes(made, tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(60)

        def told():
            return systemd.recv(4096).decode().splitlines()

        environment = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "300000"}
        with made.serve(**environment) as served:
            assert told() == ["READY=1"]
            for _ in range(3):
                assert told() == ["WATCHDOG=1", f"STATUS=Serving on port {served.port}"]
            served.process.send_signal(signal.SIGTERM)
            while (message := told())[0] == "WATCHDOG=1":
                pass
            assert message[0] == "STOPPING=1"
            assert served.process.wait() == 0


def test_a_database_of_a_newer_release_is_left_alone(tmp_path):
    program = Program(tmp_path)
    program.init()
    with sqlite3.connect(program.state / "engine.db") as conn:
        conn.execute("UPDATE alembic_version SET version_num = '9999'")
    conn.close()
    for command, told in {
        "serve": "the database has version 9999, which this program does not know",
        "doctor": "wrong    database      the database has version 9999",
    }.items():
        done = program.run(command)
        assert done.returncode == 1
        assert told in done.stdout + done.stderr


async def test_users_come_and_go_while_it_is_served(made):
    def run(*arguments, stdin=""):
        done = made.run("user", *arguments, stdin=stdin)
        assert done.returncode == 0, done.stderr
        return done.stdout

    store = Store(f"sqlite:///{made.state / 'engine.db'}")
    logins = Logins(store, Lifetime(60_000, 60_000), Pauses(99, 1))
    with made.serve():
        run("add", "jo", stdin="first password\n")
        assert (await logins.by_password("jo", Secret("first password"), "::1")).name == "jo"
        run("password", "jo@internal", stdin="second password\n")
        with pytest.raises(Unauthenticated):
            await logins.by_password("jo", Secret("first password"), "::1")
        run("disable", "jo")
        assert re.search(r"^jo@internal +user +disabled$", run("list"), re.M)
        with pytest.raises(Unauthenticated):
            await logins.by_password("jo", Secret("second password"), "::1")
        run("enable", "jo")
        await logins.by_password("jo", Secret("second password"), "::1")
        run("remove", "jo")
        assert await store.read(users.find, "jo") is None
    store.close()


def test_a_host_that_a_command_added_joins_the_engine_that_is_served(made):
    with made.serve() as served:
        added = made.run("host", "add", "h1", "--address", "127.0.0.1", "--port", "1")
        line = added.stdout.splitlines()[-1].split()
        assert line[:2] == ["vdsm-cinder", "join"]
        assert re.search(r"^h1 +pending_approval +127.0.0.1:1$", made.run("host", "list").stdout)
        keys = {unit: certificates.new_key() for unit in joining.UNITS}
        requests = {unit: request(key) for unit, key in keys.items()}
        asked = joining.Request(Secret(line[-1]), ["h1.example.com"], 1, "", requests)
        status, answer = served.post(joining.PATH, asked.as_sent())
        assert status == 200, answer
        for unit, key in keys.items():
            pem = answer["certificates"][unit].encode()
            assert certificates.belong(certificates.certificate_of(pem, unit), key)

        # It is kept from then on, so that it has another status, though nobody answers there.
        def is_kept():
            return "pending_approval" not in made.run("host", "list").stdout

        wait_until(is_kept, "the engine to keep h1", 60)
        refused = served.post(joining.PATH, {**asked.as_sent(), "token": "join1.x"})
        assert refused == (401, {"fault": {"reason": "Unauthorized", "detail": ANY}})
    again = made.run("host", "add", "h1")
    assert (again.returncode, "the name h1 is that of another host" in again.stderr) == (1, True)
    unknown = made.run("host", "token", "h2")
    assert unknown.stderr == "cinder-engine: there is no host h2; known are: h1\n"


def test_the_authority_can_be_fetched_by_those_who_do_not_know_it_yet(made):
    with made.serve() as served:
        status, pem = served.get(joining.CA_PATH)
    assert (status, pem) == (200, (made.state / "pki/clients-ca.pem").read_text())


def test_doctor_says_of_each_thing_how_it_is(tmp_path):
    program = Program(tmp_path)
    program.init()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    program.config.write_text(program.config.read_text().replace("port: 0", f"port: {port}"))
    (program.state / "sealing.key").chmod(0o444)
    done = program.run("doctor")
    assert done.returncode == 1
    assert done.stderr == "cinder-engine: 2 of these are wrong; the lines say what to do\n"
    wrong = [line for line in done.stdout.splitlines() if line.startswith("wrong")]
    assert wrong == [
        f"wrong    directory     {program.state}/sealing.key can be read by others; chmod 0400 "
        f"{program.state}/sealing.key",
        f"wrong    port          nobody listens on port {port}; systemctl start cinder-engine, and "
        "look at journalctl --unit=cinder-engine",
    ]
    (program.state / "sealing.key").chmod(0o400)
    with program.serve():
        done = program.run("doctor")
    assert (done.returncode, done.stderr) == (0, "")
    assert (
        f"ok       port          the engine answers on port {port}: HTTP/1.0 200 OK" in done.stdout
    )


def test_the_configuration_is_shown_as_it_is_in_force(tmp_path):
    program = Program(tmp_path, "access: {idle_minutes: 7}\n")
    assert "  idle_minutes: 7\n" in program.run("config").stdout
    assert "  idle_minutes: 30\n" in program.run("config", "--defaults").stdout


def test_who_reads_only_the_first_line_is_no_trouble(made):
    command = [sys.executable, "-m", "cinderengine.main", "config", "--defaults"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY
    ) as process:
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.stderr.read() == ""
