# SPDX-License-Identifier: GPL-2.0-or-later
"""vdsm-cinder and vdsm-cinderd as an operator runs them: what they print, and how they end.

Run in the lab: `python -m lab exec -- .venv/bin/pytest tests/functional/test_cli.py`.
"""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import select
import shutil
import signal
import socket
import subprocess
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

import pytest
from lxml import etree

from lab.base import REPOSITORY, run
from lab.engine import new_id
from lab.guest.domains import disk_xml
from lab.host.daemon import CLIENT, PROGRAM
from lab.namespace import CLEAN_ENVIRONMENT
from tests.functional.helpers import absent_disk, destroyed_at_last, new_image, session_fixture
from vdsmcinder import config

pytestmark = pytest.mark.asyncio(loop_scope="session")

OK, REFUSED, USAGE, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 130
CERTIFICATES_UNUSABLE = 75
NOBODY = "6a1c52a8-3e0d-4b6e-9a4f-0d6f3c1b2a47"
TIMEOUT_S = 30
DISK = {
    "type": "disk",
    "device": "disk",
    "iface": "virtio",
    "index": "0",
    "diskType": "network",
    "protocol": "rbd",
    "path": "volumes/volume-x",
    "format": "raw",
    "hosts": [{"name": "10.0.0.1", "port": "6789", "transport": "tcp"}],
    "auth": {"type": "ceph", "username": "cinder", "uuid": NOBODY},
}
CONNECTION_INFO = {
    "driver_volume_type": "rbd",
    "data": {
        "name": "volumes/volume-x",
        "hosts": ["[2001:db8::1]", "10.0.0.2"],
        "ports": ["3300", "6789"],
        "auth_enabled": True,
        "auth_username": "cinder",
        "secret_type": "ceph",
        "secret_uuid": NOBODY,
        "volume_id": NOBODY,
        "access_mode": "ro",
    },
}


@dataclass(frozen=True)
class Outcome:
    """How a command ended and what it printed."""

    code: int
    out: str
    err: str


async def execute(*words, stdin="", **environment):
    """Run a command to its end, as a script would."""
    process = await asyncio.create_subprocess_exec(
        *map(str, words),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**CLEAN_ENVIRONMENT, **environment},
    )
    out, err = await process.communicate(stdin.encode())
    assert process.returncode is not None
    return Outcome(process.returncode, out.decode(), err.decode())


@pytest.fixture
def cli(daemon):
    """Runs vdsm-cinder against the daemon, over its unix socket."""

    async def run_it(*words, stdin="", **environment):
        return await execute(*daemon.command(*words), stdin=stdin, **environment)

    return run_it


@pytest.fixture
def tls(lab, daemon):
    """The words that lead vdsm-cinder to the daemon from another host."""
    identity, ca = lab.pki.engine, lab.pki.ca
    return (
        *("--host", f"{daemon.host.address}:{daemon.port}"),
        *("--cert", identity.cert, "--key", identity.key, "--ca", ca),
    )


@dataclass(frozen=True)
class Web:
    """A VM with a name of its own; no test here changes it."""

    id: str
    name: str
    image: str


@session_fixture("module")
async def web(engine):
    with new_image(engine) as image:
        vm_id = new_id()
        name = f"web-{vm_id[:8]}"
        disk = disk_xml(engine.lab.ceph, image, "vda", engine.secret_id)
        async with destroyed_at_last(engine, vm_id):
            await engine.run(engine.document(vm_id, disk, name=name))
            yield Web(vm_id, name, image)


def assert_one_sentence(outcome, code, *words, program="vdsm-cinder"):
    """Nothing on stdout, one line on stderr, and this exit code."""
    assert outcome.code == code, outcome
    assert outcome.out == ""
    (line,) = outcome.err.splitlines()
    assert line.startswith(f"{program}: ")
    assert [word for word in words if word not in line] == [], line


def rows(outcome):
    """A table's titles, and the words of each of its lines."""
    assert outcome.code == OK, outcome
    titles, *lines = (line.split() for line in outcome.out.splitlines())
    return titles, lines


# Listings


async def test_vms_are_listed(cli, web):
    titles, lines = rows(await cli("vms"))
    assert titles[:3] == ["ID", "NAME", "STATUS"]
    (line,) = [line for line in lines if line[0] == web.id[:8]]
    assert (line[1:4], line[5]) == ([web.name, "Up", "1"], "256.0M")
    assert web.id in (await cli("vms", "--long")).out
    listed = json.loads((await cli("vms", "--json")).out)
    (vm,) = [vm for vm in listed if vm["id"] == web.id]
    assert (vm["name"], vm["status"], vm["vcpus"], vm["disks"]) == (web.name, "Up", 1, 1)


async def test_a_vm_that_failed_says_why_below_the_table(engine, cli):
    params = engine.flat(new_id(), absent_disk(), vmName="broken")
    await engine.create(params)
    await engine.wait_status(params["vmId"], "Down")
    shown = await cli("vms")
    await engine.destroy(params["vmId"])
    assert re.search(r"^\w{8}  broken +Down ", shown.out, re.MULTILINE)
    assert re.search(r"^broken: VM .*its file does not exist on this host; ", shown.out, re.M)


async def test_a_narrow_terminal_gets_narrow_tables(cli, web):
    for command in (("vms",), ("disks", web.name), ("verbs",)):
        shown = await cli(*command, COLUMNS="72")
        assert shown.out
        assert max(map(len, shown.out.splitlines())) <= 72


@pytest.mark.parametrize("named", ["name", "id", "beginning"])
async def test_disks_are_listed_of_a_vm_however_it_is_named(cli, web, named):
    word = {"name": web.name, "id": web.id.upper(), "beginning": web.id[:8]}[named]
    titles, lines = rows(await cli("disks", word))
    assert titles == ["TARGET", "DEVICE", "SOURCE", "SIZE", "READ/s", "ms", "WRITE/s", "ms"]
    assert [line[:4] for line in lines] == [["vda", "disk", f"volumes/{web.image}", "64.0M"]]


async def test_disks_as_json(cli, lab, web):
    (disk,) = json.loads((await cli("disks", web.id, "--json")).out)
    assert disk["monitors"] == [f"{m.address}:{m.v1_port}" for m in lab.ceph.monitors]
    assert (disk["target"], disk["size_bytes"]) == ("vda", 64 * 1024 * 1024)


async def test_a_vm_that_there_is_not_has_no_disks(cli):
    outcome = await cli("disks", "nobody")
    assert_one_sentence(outcome, REFUSED, "nobody; vdsm-cinder vms lists them")


async def test_secrets_are_listed_and_never_their_values(engine, lab, cli):
    titles, lines = rows(shown := await cli("secrets"))
    assert titles == ["UUID", "TYPE", "USAGE"]
    assert [engine.secret_id, "ceph", f"ovirt/{engine.secret_id}"] in lines
    listed = await cli("--json", "secrets")
    assert engine.secret_id in [secret["uuid"] for secret in json.loads(listed.out)]
    assert lab.ceph.key not in shown.out + listed.out


async def test_a_key_comes_from_a_file_or_stdin(cli, lab, tmp_path):
    keyring = tmp_path / "keyring"
    keyring.write_text(f"[client.cinder]\n\tkey = {lab.ceph.key}\n")
    for words, stdin in (((keyring,), ""), ((), lab.ceph.key)):
        done = await cli("register-secret", NOBODY, *words, stdin=stdin)
        assert done.out == f"registered ceph secret {NOBODY} as ovirt/{NOBODY}\n"
        assert NOBODY in (await cli("secrets")).out
        assert (await cli("unregister-secret", NOBODY)).out == f"unregistered {NOBODY}\n"
        assert NOBODY not in (await cli("secrets")).out


async def test_verbs_are_listed_and_shown(cli):
    listed = [entry["verb"] for entry in json.loads((await cli("verbs", "--json")).out)]
    assert listed == [line.split()[0] for line in (await cli("verbs")).out.splitlines()[1:]]
    (entry,) = json.loads((await cli("verbs", "VM.create", "--json")).out)
    assert [p["name"] for p in entry["parameters"]] == ["vmID", "vmParams"]
    page = (await cli("verbs", "VM.hotplugDisk")).out
    assert page.endswith("Use: vdsm-cinder call VM.hotplugDisk vmID=ID params=@FILE\n")


# Calls


@pytest.mark.parametrize("from_stdin", [False, True])
async def test_a_vm_from_a_file_or_stdin(engine, cli, tmp_path, from_stdin):
    params = engine.flat(vm_id := new_id())
    (tmp_path / "vm.json").write_text(json.dumps(params))
    given = "@-" if from_stdin else f"@{tmp_path / 'vm.json'}"
    stdin = json.dumps(params) if from_stdin else ""
    create = await cli("call", "VM.create", f"vmID={vm_id}", f"vmParams={given}", stdin=stdin)
    assert create.code == OK, create
    assert json.loads(create.out)["status"] == "WaitForLaunch"
    await engine.wait_status(vm_id, "Up")
    destroyed = await cli("call", "VM.destroy", f"vmID={vm_id}", "gracefulAttempts=2", "--json")
    assert (destroyed.code, destroyed.out) == (OK, "true\n")


async def test_parameters_are_read_by_their_types(cli, web):
    words = ("Host.getVMList", f'vmList=["{web.id}"]', "fullStatus=false", "onlyUUID=true")
    assert json.loads((await cli("call", *words, "--json")).out) == [web.id]
    assert (await cli("call", "Host.echo", "message=true")).out == '"true"\n'
    assert (await cli("call", "Host.echo", "message=@@home")).out == '"@home"\n'
    assert (await cli("call", "Host.echo", "message=@-", stdin="é\n")).out == '"é"\n'


async def test_calls_over_tls(cli, tls, web):
    assert (await execute(CLIENT, *tls, "call", "Host.ping2")).out == "true\n"
    listed = json.loads((await execute(CLIENT, "vms", "--json", *tls)).out)
    assert web.id in [vm["id"] for vm in listed]


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("call", "VM.getStats", f"vmID={NOBODY}"), REFUSED, f"no VM {NOBODY} on this host;"),
        (("call", "VM.getStats", f"vmID={NOBODY}"), REFUSED, "(code 1)"),
        (("call", "Host.echo", "message=@/none"), REFUSED, "/none cannot be read: No such file"),
        (("call", "VM.create", f"vmID={NOBODY}", "vmParams=@-"), REFUSED, "stdin is not JSON"),
        (("call", "VM.getStat"), USAGE, "did you mean VM.getStats?"),
        (("call", "VM.getStats"), USAGE, "parameter vmID is missing; use: VM.getStats(vmID)"),
        (("call", "VM.getStats", "vmID=web"), USAGE, "expected a UUID of 36 characters"),
        (("call", "VM.getStats", "web"), USAGE, "written name=value or name=@file"),
        (("call", "VM.getStats", "vm=web"), USAGE, "no parameter vm; did you mean vmID?"),
        (("call", "Host.getVMList", "vmList=web"), USAGE, "vmList is not JSON"),
        (("call", "Host.registerSecrets", "secrets=[]"), USAGE, "use secrets=@FILE or secrets=@-"),
        (("call",), USAGE, "call needs a verb; vdsm-cinder verbs lists them"),
        (("vm",), USAGE, "invalid choice: 'vm'"),
        (("vms", "--nope"), USAGE, "unrecognized arguments: --nope; see vdsm-cinder --help"),
        (("vms", "--timeout", "soon"), USAGE, "soon is not a number of seconds"),
        (("--socket", "/none", "vms"), UNREACHABLE, "no socket /none; start vdsm-cinderd, or"),
        (("--host", "10.77.0.1:1", "vms"), UNREACHABLE, "does not exist; name the PEM file"),
    ],
)
async def test_what_cannot_be_done_takes_one_line_and_an_exit_code(cli, words, code, told):
    assert_one_sentence(await cli(*words, stdin="{"), code, told)


@pytest.mark.parametrize(
    ("change", "code", "told"),
    [
        ({"--host": "10.77.0.101:1"}, UNREACHABLE, "nothing listens on 10.77.0.101:1; start"),
        ({"--host": "10.77.0.101:x"}, USAGE, "names no port after its colon; write --host HOST"),
        (
            {"--host": "10.77.0.250", "--timeout": "0.5"},
            UNREACHABLE,
            "cannot be reached: timed out",
        ),
        ({"--host": "host.invalid"}, UNREACHABLE, "host host.invalid is not known"),
        ({"--host": "10.77.0.11:6789"}, UNREACHABLE, "does not speak TLS"),
        ({"--cert": "foreign.pem", "--key": "foreign.key"}, UNREACHABLE, "its CA did not sign"),
        ({"--key": "foreign.key"}, UNREACHABLE, "key values mismatch"),
        ({"--ca": "foreign-ca.pem"}, UNREACHABLE, "is not to be trusted"),
        ({"--cert": "none.pem"}, UNREACHABLE, "none.pem does not exist; name the PEM file"),
    ],
)
async def test_what_is_wrong_with_tls_is_told(lab, tls, change, code, told):
    options = dict(zip(tls[::2], tls[1::2]))
    for option, value in change.items():
        is_file = value.endswith((".pem", ".key"))
        options[option] = lab.pki.directory / value if is_file else value
    words = [word for option in options.items() for word in option]
    assert_one_sentence(await execute(CLIENT, *words, "call", "Host.ping2"), code, told)


# Events


@asynccontextmanager
async def watching(*words):
    """`vdsm-cinder events` as a process; afterwards it is interrupted, as by Ctrl-C."""
    pipe = subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *map(str, words), stdout=pipe, stderr=pipe, env=CLEAN_ENVIRONMENT
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGINT)
        await process.wait()


async def line_with(process, word):
    """The next line on stdout that has this word."""
    while True:
        line = (await asyncio.wait_for(process.stdout.readline(), TIMEOUT_S)).decode()
        assert line, await process.stderr.read()
        if word in line:
            return line.rstrip("\n")


async def test_events_are_told_as_they_come(engine, daemon, image):
    params = engine.flat(new_id(), vmName="told-of")
    vm_id = params["vmId"]
    async with watching(*daemon.command("events")) as process:
        assert b"waiting for events; Ctrl-C ends" in await process.stderr.readline()
        await engine.run(params)
        story = r"\d\d:\d\d:\d\d  {}  told-of  {}"
        for words in ("Powering up", "Powering up -> Up"):
            assert re.fullmatch(story.format(vm_id[:8], words), await line_with(process, vm_id[:8]))
        disk = engine.disk(image())
        await engine.call("VM.hotplugDisk", vmID=vm_id, params={"vmId": vm_id, "drive": disk})
        assert (await line_with(process, vm_id[:8])).endswith("Up: its devices changed")
        await engine.destroy(vm_id)
        assert (await line_with(process, "-> Down")).endswith("destroyed by an administrator.")
    assert process.returncode == INTERRUPTED
    assert await process.stderr.read() == b""


async def test_events_as_json_over_tls(engine, tls):
    params = engine.flat(new_id())
    async with watching(CLIENT, *tls, "events", "--json") as process:
        # It does not say when it has subscribed: events are made until one comes.
        heard = asyncio.create_task(line_with(process, "VM_status"))
        while not heard.done():
            await engine.run(params)
            await engine.destroy(params["vmId"])
        event = json.loads(await heard)
    assert event["method"] == f"|virt|VM_status|{params['vmId']}"
    assert event["params"][params["vmId"]]["status"]
    assert process.returncode == INTERRUPTED


# Drives


@pytest.mark.parametrize("from_stdin", [False, True])
async def test_a_drive_is_shown_as_xml(tmp_path, from_stdin):
    (tmp_path / "disk.json").write_text(json.dumps(DISK))
    words = () if from_stdin else (tmp_path / "disk.json",)
    shown = await execute(CLIENT, "drive-xml", *words, stdin=json.dumps(DISK))
    disk = etree.fromstring(shown.out)
    assert (shown.code, shown.err) == (OK, "")
    assert disk.find("source").get("name") == "volumes/volume-x"
    assert disk.find("auth/secret").get("uuid") == NOBODY
    as_json = await execute(CLIENT, "drive-xml", "--json", *words, stdin=json.dumps(DISK))
    assert json.loads(as_json.out) == shown.out.rstrip("\n")


async def test_a_connection_info_is_shown_as_xml(cli):
    shown = await cli("drive-xml", "-", stdin=json.dumps(CONNECTION_INFO))
    disk = etree.fromstring(shown.out)
    hosts = [(host.get("name"), host.get("port")) for host in disk.iterfind("source/host")]
    assert hosts == [("2001:db8::1", "3300"), ("10.0.0.2", "6789")]
    assert disk.find("readonly") is not None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "stdin is not JSON"),
        ("[]", "expected a JSON object"),
        (json.dumps({**DISK, "hosts": []}), "expected the address of at least one Ceph monitor"),
        (json.dumps({**DISK, "device": "cdrom"}), "cdrom"),
        (json.dumps({**DISK, "format": "vmdk"}), "format is a string of 4 characters"),
        (json.dumps({"driver_volume_type": "iscsi", "data": {}}), "driver_volume_type is"),
    ],
)
async def test_a_drive_that_cannot_be_takes_one_line(text, told):
    assert_one_sentence(await execute(CLIENT, "drive-xml", stdin=text), REFUSED, told)


# Completion


# How each is started without the user's own files, and made ready for completion.
SHELLS = {"bash": ("--norc", ":"), "zsh": ("-f", "autoload -U compinit; compinit -D")}


@pytest.mark.parametrize("shell", SHELLS)
async def test_completion_scripts_are_sound(shell):
    script = await execute(CLIENT, "completion", shell)
    assert script.code == OK
    checked = await execute(shell, "-n", stdin=script.out)
    assert checked == Outcome(OK, "", "")


@contextmanager
def interactive(shell):
    """A shell on a terminal of its own; what it shows is read from the descriptor."""
    argv = [shell, SHELLS[shell][0], "-i"]
    pid, terminal = pty.fork()
    if pid == 0:
        os.execvpe(shell, argv, {**CLEAN_ENVIRONMENT, "TERM": "dumb"})
    try:
        yield terminal
    finally:
        os.kill(pid, signal.SIGHUP)
        os.close(terminal)
        os.waitpid(pid, 0)


def type_in(terminal, text, expected):
    """Type at the terminal and return when it shows what is expected."""
    os.write(terminal, text.encode())
    shown = ""
    while expected not in shown:
        readable, _, _ = select.select([terminal], [], [], TIMEOUT_S)
        assert readable, f"waited {TIMEOUT_S} s for {expected!r} after {text!r}: {shown!r}"
        shown += os.read(terminal, 4096).decode()


@pytest.mark.parametrize("shell", SHELLS)
async def test_a_shell_completes_at_a_terminal(shell, daemon, tmp_path, web):
    script = tmp_path / "completion"
    script.write_text(
        f'{(await execute(CLIENT, "completion", shell)).out}\nvdsm-cinder() {{ {CLIENT} "$@"; }}\n'
    )
    asking = f"vdsm-cinder --socket {daemon.unix_socket}"

    def session():
        with interactive(shell) as terminal:
            ready = f"stty cols 300; {SHELLS[shell][1]}; source {script}; echo rea''dy\n"
            type_in(terminal, ready, "\nready")
            type_in(terminal, f"{asking} call VM.hotplugD\t", "VM.hotplugDisk ")
            type_in(terminal, f"vmID={web.id[:8]}\t", f"vmID={web.id} ")
            type_in(terminal, "par\t", "params=")
            type_in(terminal, f"\x15{asking} disks web-\t", f"{web.name} ")
            type_in(terminal, "\n", f"volumes/{web.image}")

    await asyncio.to_thread(session)


# The daemon's own command


async def test_the_configuration_that_is_shown_is_the_one_in_force(daemon, tmp_path):
    shown = await execute(PROGRAM, "--config", daemon.config, "--show-config")
    assert (shown.code, shown.err) == (OK, "")
    (tmp_path / "shown.yaml").write_text(shown.out)
    assert config.load(tmp_path / "shown.yaml") == config.load(daemon.config)
    again = await execute(PROGRAM, "--config", tmp_path / "shown.yaml", "--show-config")
    assert again.out == shown.out


@pytest.fixture
def configured(daemon, lab):
    """Writes a configuration for a daemon on the engine's side, with options changed."""
    file = lab.directory / "cli.yaml"

    def write(**changes):
        sections = json.loads(daemon.config.read_text())
        sections["listen"].update(address="127.0.0.1", port=0, unix_socket=f"{file}.socket")
        sections["listen"].update(changes)
        file.write_text(json.dumps(sections))
        return file

    yield write
    file.unlink(missing_ok=True)


def assert_told(outcome, *words, code=USAGE):
    """The last line is the sentence; before it the log may say how far the daemon came."""
    last = outcome.err.splitlines()[-1]
    assert_one_sentence(
        Outcome(outcome.code, outcome.out, last), code, *words, program=PROGRAM.name
    )
    assert "Traceback" not in outcome.err
    assert "stopping" not in outcome.err


async def test_a_daemon_that_cannot_listen_says_why(configured, daemon, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        outcome = await execute(PROGRAM, "--config", configured(port=port))
    assert_told(outcome, f"listen.port {port}", "in use; stop the program that uses it, or set")
    socket_in_use = configured(unix_socket=str(daemon.unix_socket))
    outcome = await execute(PROGRAM, "--config", socket_in_use)
    assert_told(outcome, f"a daemon listens on {daemon.unix_socket} already; stop it, or set")


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        ("certificate", "/none.pem", "/none.pem cannot be read: No such file or directory; create"),
        ("key", "foreign.key", "(key values mismatch); set them to PEM files that belong together"),
        ("key", "/etc/hostname", "(no PEM data); set them to PEM files that belong together"),
        ("ca", "/etc/hostname", "holds no usable CA certificate"),
        ("port", 65536, "listen.port is 65536; expected at most 65535"),
        ("ports", 1, "unknown option in section listen: ports; did you mean port?"),
        ("tls", "perhaps", "listen.tls is 'perhaps'; expected true or false"),
    ],
)
async def test_a_configuration_that_cannot_be_used_is_told(lab, configured, option, value, told):
    path = str(lab.pki.directory / value) if value == "foreign.key" else value
    # Certificates may be in the middle of their renewal: systemd tries again.
    code = CERTIFICATES_UNUSABLE if option in {"certificate", "key", "ca"} else USAGE
    outcome = await execute(PROGRAM, "--config", configured(**{option: path}))
    assert_told(outcome, told, code=code)


async def test_a_key_that_may_not_be_read_is_told(lab, configured, tmp_path):
    key = tmp_path / "host1.key"
    shutil.copy(lab.pki.identity("host1").key, key)
    key.chmod(0)
    # Root that may not pass over a file's mode, as the daemon's own user may not.
    bounded = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--")
    outcome = await execute(*bounded, PROGRAM, "--config", configured(key=str(key)))
    told = f"listen.key: {key} cannot be read: Permission denied; create it, or set"
    assert_told(outcome, told, code=CERTIFICATES_UNUSABLE)


async def test_wrong_words_take_one_line():
    for words, told in (
        (("--nope",), "unrecognized arguments: --nope; see vdsm-cinderd --help"),
        (("--config", "/none"), "configuration file /none cannot be read: No such file"),
    ):
        outcome = await execute(PROGRAM, *words)
        assert_one_sentence(outcome, USAGE, told, program="vdsm-cinderd")


async def test_versions_and_help_are_there():
    version = run(
        [REPOSITORY / ".venv/bin/python", "-c", "import vdsmcinder as v; print(v.__version__)"]
    )
    for program in (CLIENT, PROGRAM):
        assert version.strip() in (await execute(program, "--version")).out
        helped = await execute(program, "--help")
        assert (helped.code, helped.err) == (OK, "")
