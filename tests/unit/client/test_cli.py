# SPDX-License-Identifier: GPL-2.0-or-later
"""The operator's command against a small daemon that answers over HTTP on a unix socket: what it
sends, what it prints, and how it ends."""

from __future__ import annotations

import io
import json
import os
import queue
import shutil
import signal
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from vdsmcinder.client import session, tables
from vdsmcinder.client.cli import main
from vdsmcinder.client.tables import Column

WEB = "6a1c52a8-3e0d-4b6e-9a4f-0d6f3c1b2a47"
DB = "6a1cffff-3e0d-4b6e-9a4f-0d6f3c1b2a48"
GOES = "7b1cffff-3e0d-4b6e-9a4f-0d6f3c1b2a50"
OLD = "0d6f3c1b-3e0d-4b6e-9a4f-0d6f3c1b2a49"
SECRET = "c50352a3-0700-48e9-9189-ed359c09bcf8"
VOLUME = "volumes/volume-0b3d9d0e-6a1c-4f4f-8b1a-0c3f0f6c8f10"
KEY = "AQC1mV9nAAAAABAAqNkCmI1Lcbj6gpe0rwAnOQ=="


def disk(name: str, path: str, **more: Any) -> dict[str, Any]:
    hosts = [{"name": "10.0.0.1", "port": "6789"}, {"name": "2001:db8::2", "port": "3300"}]
    return {
        "deviceType": "disk",
        "device": "disk",
        "name": name,
        "path": path,
        "readonly": False,
        "hosts": hosts,
        **more,
    }


DEFINITIONS: list[dict[str, Any]] = [
    {
        "vmId": WEB,
        "vmName": "web-1",
        "status": "Up",
        "smp": 2,
        "memSize": 2048,
        "devices": [
            disk("vda", VOLUME),
            disk("sdc", "/iso/debian.iso", device="cdrom", readonly=True, hosts=[]),
            {"deviceType": "interface", "device": "bridge", "name": "vnet0"},
        ],
    },
    {
        "vmId": DB,
        "vmName": "数据库",
        "status": "Paused",
        "smp": 16,
        "memSize": 65536,
        "devices": [],
    },
    {"vmId": OLD, "vmName": "old", "status": "Down", "smp": 1, "memSize": 512},
    {"vmId": GOES, "vmName": "zoe", "status": "Up", "smp": 1, "memSize": 512},
]
RATES = {
    "readRate": "1572864.00",
    "writeRate": "0.00",
    "readLatency": "420000",
    "writeLatency": "0",
    "apparentsize": str(10 * 1024**3),
}
STATS: list[dict[str, Any]] = [
    {
        "vmId": WEB,
        "status": "Up",
        "cpuUser": "12.50",
        "cpuSys": "3.10",
        "memUsage": "41",
        "elapsedTime": "93785",
        "pauseCode": "NOERR",
        "disks": {"vda": RATES},
    },
    {
        "vmId": DB,
        "status": "Paused",
        "cpuUser": "0.00",
        "cpuSys": "0.00",
        "memUsage": "99",
        "elapsedTime": "65",
        "pauseCode": "EIO",
        "disks": {},
    },
    {"vmId": OLD, "status": "Down", "exitCode": 1, "exitMessage": "the secret is not registered"},
    {"vmId": GOES, "status": "Migration Source", "migrationProgress": 42},
]


def about(vm_id: str) -> Callable[[Mapping[str, Any]], bool]:
    return lambda entry: entry["vmId"] == vm_id


ANSWERS: Mapping[str, Callable[[dict[str, Any]], Any]] = {
    "Host.echo": lambda p: p["message"],
    "Host.getVMList": lambda p: DEFINITIONS,
    "Host.getAllVmStats": lambda p: STATS,
    "Host.getSecrets": lambda p: [{"uuid": SECRET, "usageType": "ceph", "usageID": "ovirt/ceph"}],
    "VM.getInfo": lambda p: next(filter(about(p["vmID"]), DEFINITIONS)),
    "VM.getStats": lambda p: [next(filter(about(p["vmID"]), STATS))],
}


class Daemon(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """Answers as vdsm-cinderd does. requests: what it was asked. events: what it tells on
    GET /events; None ends the stream."""

    daemon_threads = True

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), Handler)
        self.path = str(path)
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.events: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self.recovers_after = 0  # so many requests are told to come again


class Handler(BaseHTTPRequestHandler):
    server: Daemon

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        method, params = request["method"], request["params"]
        self.server.requests.append((method, params))
        reply = {"jsonrpc": "2.0", "id": request["id"]}
        if len(self.server.requests) <= self.server.recovers_after:
            reply["error"] = {"code": 99, "message": "the VMs are being read; ask again"}
        elif method == "VM.reset":
            reply["error"] = {"code": 6, "message": f"VM {params['vmID']} is\ndown; start it"}
        else:
            reply["result"] = ANSWERS.get(method, lambda p: True)(params)
        body = json.dumps(reply).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        self.wfile.write(b":subscribed\n\n")
        while (event := self.server.events.get()) is not None:
            self.wfile.write(b"id:1\ndata:%s\n\n" % json.dumps(event).encode())
            self.wfile.flush()

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    server = Daemon(tmp_path / "vdsm-cinder.sock")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.events.put(None)
    server.shutdown()
    server.server_close()
    thread.join()


class Outcome:
    """How the command ended, and what it printed."""

    def __init__(self, code: int, captured: tuple[str, str]) -> None:
        self.code = code
        self.out, self.err = captured

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Outcome]


@pytest.fixture
def run(daemon: Daemon, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs the command in this process, with the daemon's socket and with this stdin."""
    monkeypatch.delenv("COLUMNS", raising=False)

    def run(*words: str, stdin: str = "") -> Outcome:
        monkeypatch.setattr(sys, "stdin", io.StringIO(stdin))
        try:
            code = main(["--socket", daemon.path, *words])
        except SystemExit as e:
            code = int(e.code or 0)
        return Outcome(code, capsys.readouterr())

    return run


def process(*words: str, **options: Any) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    command = [sys.executable, "-m", "vdsmcinder.client.cli", *words]
    return subprocess.Popen(command, text=True, **pipes)


def spaced(line: str) -> str:
    """A line of a table with one blank between its words."""
    return " ".join(line.split())


def test_vms_are_listed_in_a_table(run: Run) -> None:
    done = run("vms")
    title, *rows = done.out.splitlines()
    assert done.code == 0
    assert spaced(title) == ("ID NAME STATUS CPUS CPU% MEMORY MEM% DISKS READ/s WRITE/s UPTIME")
    assert spaced(rows[0]) == "0d6f3c1b old Down 1 - 512.0M - 0 - - -"
    assert spaced(rows[1]) == "6a1c52a8 web-1 Up 2 16 2.0G 41 1 1.5M 0 1d 2h"
    assert spaced(rows[2]) == "7b1cffff zoe Migration Source 42 % 1 - 512.0M - 0 - - -"
    assert spaced(rows[3]) == "6a1cffff 数据库 Paused (EIO) 16 0 64.0G 99 0 - - 1m 5s"
    assert rows[4] == "old: the secret is not registered"


@pytest.mark.parametrize("words", [("vms",), ("disks", WEB)])
def test_tables_fit_a_terminal_of_80_columns(
    run: Run, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    lines = run(*words).out.splitlines()
    assert max(tables.display_width(line) for line in lines) <= 80


def test_vms_for_a_script(run: Run) -> None:
    found = {vm["name"]: vm for vm in run("vms", "--json").json}
    assert found["web-1"]["id"] == WEB
    assert found["web-1"]["cpu_pct"] == pytest.approx(15.6)
    assert found["web-1"]["read_bytes_per_s"] == 1572864
    assert found["数据库"]["pause_code"] == "EIO"
    assert found["old"]["uptime_s"] is None


@pytest.mark.parametrize("vm", [WEB, WEB.upper(), "web-1", "6a1c5"])
def test_disks_of_a_vm_by_what_operators_call_it(run: Run, vm: str) -> None:
    rows = run("disks", vm).out.splitlines()[1:]
    assert spaced(rows[0]) == "sdc cdrom /iso/debian.iso - - - - -"
    assert spaced(rows[1]) == f"vda disk {VOLUME} 10.0G 1.5M 0.42 0 -"


def test_disks_for_a_script_name_their_monitors(run: Run) -> None:
    (vda,) = [disk for disk in run("disks", "web-1", "--json").json if disk["target"] == "vda"]
    assert vda["monitors"] == ["10.0.0.1:6789", "[2001:db8::2]:3300"]
    assert (vda["size_bytes"], vda["read_latency_ns"]) == (10 * 1024**3, 420000)


@pytest.mark.parametrize(("vm", "told"), [("6a1c", f"{WEB} (web-1)"), ("nosuch", "nosuch")])
def test_a_vm_that_is_not_clear_is_refused(run: Run, vm: str, told: str) -> None:
    done = run("disks", vm)
    assert done.code == 1
    assert told in done.err
    assert done.err.count("\n") == 1


def test_secrets_are_listed(run: Run) -> None:
    rows = run("secrets").out.splitlines()
    assert [row.split() for row in rows] == [
        ["UUID", "TYPE", "USAGE"],
        [SECRET, "ceph", "ovirt/ceph"],
    ]


def test_parameters_reach_the_daemon_with_their_types(run: Run, daemon: Daemon) -> None:
    done = run("call", "Host.getVMList", "fullStatus=true", f'vmList=["{WEB}"]', "--json")
    assert (done.code, done.json) == (0, DEFINITIONS)
    run("call", "Host.echo", "message=17")
    run("call", "Host.echo", "message=@@home")
    run("call", "VM.destroy", f"vmID={WEB.upper()}", "--json", "gracefulAttempts=3")
    assert daemon.requests == [
        ("Host.getVMList", {"fullStatus": True, "vmList": [WEB]}),
        ("Host.echo", {"message": "17"}),
        ("Host.echo", {"message": "@home"}),
        ("VM.destroy", {"vmID": WEB, "gracefulAttempts": 3}),
    ]


def test_parameters_come_from_files_and_stdin(run: Run, daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "vm.json").write_text('{"vmName": "new"}\n')
    (tmp_path / "message").write_text("hello\n")
    run("call", "VM.create", f"vmID={WEB}", f"vmParams=@{tmp_path}/vm.json")
    run("call", "VM.create", f"vmID={WEB}", "vmParams=@-", stdin='{"vmName": "piped"}')
    run("call", "Host.echo", f"message=@{tmp_path}/message")
    assert daemon.requests == [
        ("VM.create", {"vmID": WEB, "vmParams": {"vmName": "new"}}),
        ("VM.create", {"vmID": WEB, "vmParams": {"vmName": "piped"}}),
        ("Host.echo", {"message": "hello"}),
    ]


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["call", "Host.ech", "message=x"], "did you mean Host.echo?"),
        (["call", "Host.echo"], "parameter message is missing"),
        (["call", "Host.echo", "mesage=x"], "did you mean message?"),
        (["call", "Host.ping", "x=1"], "it has none"),
        (["call", "Host.echo", "message"], "name=value"),
        (["call", "Host.echo", "message=a", "message=b"], "given twice"),
        (["call", "VM.pause", "vmID=web-1"], "a UUID of 36 characters"),
        (["call", "VM.destroy", f"vmID={WEB}", "gracefulAttempts=x"], "a whole number"),
        (["call", "Host.getVMList", "vmList=[oops"], "vmList is not JSON"),
        (["call", "Host.setLogLevel", "level=LOUD"], "DEBUG"),
        (["call"], "call needs a verb"),
        (["verbs", "Host.pong"], "did you mean Host.ping"),
        (["--timeout", "x", "vms"], "seconds"),
        (["vms", "web-1"], "unrecognized arguments: web-1"),
        (["dance"], "invalid choice: 'dance'"),
        ([], "COMMAND"),
    ],
)
def test_wrong_words_end_with_2_and_one_line(
    run: Run, daemon: Daemon, words: list[str], told: str
) -> None:
    done = run(*words)
    assert done.code == 2
    assert told in done.err
    assert done.err.count("\n") == 1
    assert not daemon.requests


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot be read"),
        (b'{"vmName', "not JSON"),
        (b"\xff\xfe", "not UTF-8"),
        (b"[" * 100_000, "nested too deep"),
    ],
)
def test_a_file_that_cannot_be_used_ends_with_1(
    run: Run, daemon: Daemon, tmp_path: Path, content: bytes | None, told: str
) -> None:
    path = tmp_path / "vm.json"
    if content is not None:
        path.write_bytes(content)
    done = run("call", "VM.create", f"vmID={WEB}", f"vmParams=@{path}")
    assert done.code == 1
    assert told in done.err
    assert str(path) in done.err
    assert done.err.count("\n") == 1
    assert not daemon.requests


def test_a_secret_is_not_taken_from_an_argument(run: Run, daemon: Daemon) -> None:
    done = run("call", "Host.registerSecrets", f'secrets=[{{"password": "{KEY}"}}]')
    assert done.code == 2
    assert "secrets=@FILE" in done.err
    assert KEY not in done.err
    assert not daemon.requests


def test_what_the_daemon_refuses_ends_with_1_and_its_code(run: Run) -> None:
    done = run("call", "VM.reset", f"vmID={WEB}")
    assert done.code == 1
    assert done.err == f"vdsm-cinder: VM {WEB} is down; start it (code 6)\n"


def test_no_daemon_ends_with_3(run: Run, tmp_path: Path) -> None:
    done = run("--socket", str(tmp_path / "nothing"), "vms")
    assert done.code == 3
    assert str(tmp_path / "nothing") in done.err
    assert done.err.count("\n") == 1


def test_options_count_before_and_after_the_command(run: Run) -> None:
    assert run("--json", "secrets").json == run("secrets", "--json").json


@pytest.mark.parametrize("content", [f"{KEY}\n", f"[client.cinder]\n\tkey = {KEY}\n\tcaps = x\n"])
def test_a_ceph_key_is_handed_over_from_stdin(run: Run, daemon: Daemon, content: str) -> None:
    done = run("register-secret", SECRET, "--description", "cinder", stdin=content)
    assert done.code == 0
    assert KEY not in done.out + done.err
    ((method, params),) = daemon.requests
    assert method == "Host.registerSecrets"
    assert params["clear"] is False
    assert params["secrets"] == [
        {
            "uuid": SECRET,
            "usageType": "ceph",
            "usageID": f"ovirt/{SECRET}",
            "password": KEY,
            "description": "cinder",
        }
    ]


def test_a_passphrase_is_handed_over_from_a_file(run: Run, daemon: Daemon, tmp_path: Path) -> None:
    (tmp_path / "passphrase").write_text("open sesame\n")
    words = ("--usage-type", "volume", "--usage-id", "ovirt/luks")
    run("register-secret", SECRET, str(tmp_path / "passphrase"), *words)
    (secret,) = daemon.requests[0][1]["secrets"]
    assert (secret["usageID"], secret["password"]) == ("ovirt/luks", "b3BlbiBzZXNhbWU=")


@pytest.mark.parametrize("content", ["", "this is no key", f"[a]\nkey = {KEY}\n[b]\nkey = {KEY}\n"])
def test_a_key_that_cannot_be_one_is_refused(run: Run, daemon: Daemon, content: str) -> None:
    done = run("register-secret", SECRET, stdin=content)
    assert done.code == 1
    assert not daemon.requests
    assert KEY not in done.err
    assert "no key" not in done.err


def test_secrets_are_unregistered(run: Run, daemon: Daemon) -> None:
    assert run("unregister-secret", SECRET).code == 0
    assert daemon.requests == [("Host.unregisterSecrets", {"uuids": [SECRET]})]


def status(vm_id: str, **details: Any) -> dict[str, Any]:
    params = {vm_id: details, "notify_time": 1}
    return {"jsonrpc": "2.0", "method": f"|virt|VM_status|{vm_id}", "params": params}


def test_events_are_told_in_words(run: Run, daemon: Daemon) -> None:
    for event in (
        status(WEB, status="Powering up", hash="1"),
        status(WEB, status="Up", hash="1"),
        status(WEB, status="Up", hash="2"),
        status(DB, status="Paused", pauseCode="EIO"),
        status(OLD, status="Down", exitMessage="shut down by the user"),
        status(SECRET, status="Down", exitMessage=""),
        {
            "method": "|host|certificate_expires|ca",
            "params": {"ca": {"message": "the CA expires in 3.0 days"}, "notify_time": 7},
        },
        None,
    ):
        daemon.events.put(event)
    done = run("events")
    # Each begins with the time of day.
    assert [line[10:] for line in done.out.splitlines()] == [
        "6a1c52a8  web-1  Powering up",
        "6a1c52a8  web-1  Powering up -> Up",
        "6a1c52a8  web-1  Up: its devices changed",
        "6a1cffff  数据库  Paused: EIO",
        "0d6f3c1b  old  Down: shut down by the user",
        "c50352a3  (gone)  Down",
        "the CA expires in 3.0 days",
    ]
    # The daemon has gone away.
    assert done.code == 3


def test_events_for_a_script_are_lines_of_json(run: Run, daemon: Daemon) -> None:
    event = status(WEB, status="Up")
    daemon.events.put(event)
    daemon.events.put(None)
    assert run("events", "--json").json == event


def test_a_daemon_that_has_just_started_is_waited_for(run: Run, daemon: Daemon) -> None:
    daemon.recovers_after = 3
    done = run("call", "Host.echo", "message=hello")
    assert (done.code, done.out, done.err) == (0, '"hello"\n', "")
    assert len(daemon.requests) == 4


def test_a_daemon_that_does_not_recover_is_not_waited_for_for_ever(
    run: Run, daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session, "RECOVERY_TIMEOUT_S", 0.3)
    daemon.recovers_after = 1000
    done = run("call", "Host.echo", "message=hello")
    assert (done.code, done.err) == (
        1,
        "vdsm-cinder: the VMs are being read; ask again (code 99)\n",
    )


def test_events_end_when_interrupted(daemon: Daemon) -> None:
    daemon.events.put(status(WEB, status="Up"))
    with process("events", "--socket", daemon.path) as command:
        assert command.stdout is not None
        assert "web-1" in command.stdout.readline()
        command.send_signal(signal.SIGINT)
        _, err = command.communicate(timeout=30)
    assert command.returncode == 130
    assert "Traceback" not in err


def test_a_reader_that_has_seen_enough_is_no_error(daemon: Daemon) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with process("vms", "--socket", daemon.path, stdout=writer) as command:
        os.close(writer)
        _, err = command.communicate(timeout=30)
    assert (command.returncode, err) == (0, "")


DRIVE = {
    "device": "disk",
    "iface": "virtio",
    "index": "0",
    "diskType": "network",
    "protocol": "rbd",
    "path": VOLUME,
    "format": "raw",
    "hosts": [{"name": "10.0.0.1", "port": "6789", "transport": "tcp"}],
}


def test_drive_xml_of_a_description(run: Run, tmp_path: Path) -> None:
    (tmp_path / "drive.json").write_text(json.dumps(DRIVE))
    from_file = run("drive-xml", str(tmp_path / "drive.json"))
    assert from_file.code == 0
    assert f'<source protocol="rbd" name="{VOLUME}">' in from_file.out
    assert run("drive-xml", stdin=json.dumps(DRIVE)).out == from_file.out


def test_drive_xml_of_a_connection_info_without_a_secret(run: Run) -> None:
    secret = "148eb4bc-c47c-4ffe-b14e-3a0fb6c76833"
    data = {"name": VOLUME, "hosts": ["10.0.0.1"], "ports": ["6789"], "auth_username": "cinder"}
    info = json.dumps({"connection_info": {"driver_volume_type": "rbd", "data": data}})
    refused = run("drive-xml", stdin=info)
    assert (refused.code, refused.out) == (1, "")
    assert "secret_uuid is missing" in refused.err
    assert f'uuid="{secret}"' in run("drive-xml", "--secret", secret, stdin=info).out


@pytest.mark.parametrize("stdin", ["", "[]", json.dumps({**DRIVE, "hosts": []})])
def test_drive_xml_of_what_is_refused(run: Run, stdin: str) -> None:
    done = run("drive-xml", stdin=stdin)
    assert (done.code, done.out) == (1, "")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("words", ["vms", "call Host.ping", "drive-xml /dev/null"])
def test_the_command_starts_without_what_it_does_not_need(daemon: Daemon, words: str) -> None:
    heavy = {"h11", "asyncio", "libvirt", "rados", "prometheus_client"}
    if "drive-xml" not in words:
        heavy.add("lxml")
    script = (
        "import sys\nfrom vdsmcinder.client.cli import main\n"
        f"main(['--socket', {daemon.path!r}, *{words.split()!r}])\n"
        f"print(sorted({heavy!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stderr.splitlines()[-1] == "[]"


def test_help_of_a_verb_is_what_the_schema_says(run: Run) -> None:
    page = run("verbs", "Host.registerSecrets").out
    assert "Host.registerSecrets(secrets, clear=false)" in page
    assert "members: description?, password, usageID, usageType, uuid" in page
    assert "secrets=@FILE" in page
    assert run("call", "Host.registerSecrets", "--help").out == page
    assert run("call", "--help", "Host.registerSecrets").out == page


def test_help_tells_the_exit_codes(run: Run) -> None:
    done = run("--help")
    assert done.code == 0
    for line in (
        "1    the daemon refused",
        "3    the daemon cannot be reached",
        "130  interrupted",
    ):
        assert line in done.out
    assert "usage: vdsm-cinder call" in run("call", "--help").out


def test_every_served_verb_is_listed(run: Run) -> None:
    listed = run("verbs").out
    assert "VM.hotplugDisk" in listed


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("", {"vms", "call", "events"}),
        ("--timeout 5 ev", {"events"}),
        ("call VM.des", {"VM.destroy"}),
        ("call VM.destroy ", {"vmID=", "gracefulAttempts="}),
        ("call VM.destroy vmID=6a1c5", {WEB}),
        (f"call VM.destroy vmID={WEB} gr", {"gracefulAttempts="}),
        ("disks w", {"web-1"}),
        ("vms --js", {"--json"}),
        ("verbs Host.e", {"Host.echo"}),
        ("completion ", {"bash", "zsh"}),
        ("pki ", {"hosts", "init", "renew", "show"}),
        ("pki show --wi", {"--within"}),
        ("pki init --ca", {"--ca-days", "--ca-from"}),
    ],
)
def test_bash_completes(
    run: Run, daemon: Daemon, tmp_path: Path, typed: str, offered: set[str]
) -> None:
    """The script in a real bash, which runs vdsm-cinder, which asks the daemon that it is told."""
    (tmp_path / "completion").write_text(run("completion", "bash").out)
    command = tmp_path / "vdsm-cinder"
    command.write_text(f'#!/bin/sh\nexec {sys.executable} -m vdsmcinder.client.cli "$@"\n')
    command.chmod(0o755)
    line = f"vdsm-cinder --socket {daemon.path} {typed}"
    script = (
        # compopt works only while bash really completes.
        f"PATH={tmp_path}:$PATH; compopt() {{ :; }}; source {tmp_path}/completion\n"
        f"COMP_LINE='{line}'; COMP_POINT={len(line)}; COMP_TYPE=9\n"
        '_python_argcomplete vdsm-cinder; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    # A blank at the end says that the word is complete.
    found = {word.rstrip() for word in done.stdout.splitlines()}
    assert found == offered if typed else found > offered


@pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")
def test_the_script_for_zsh_is_one(run: Run) -> None:
    script = run("completion", "zsh").out
    subprocess.run(["zsh", "-n"], input=script, text=True, check=True)


def test_colours_are_for_terminals_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert tables.painted("Up", tables.GREEN) == "Up"
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert tables.painted("Up", tables.GREEN) == "\033[32mUp\033[0m"
    monkeypatch.setenv("NO_COLOR", "1")
    assert tables.painted("Up", tables.GREEN) == "Up"


def test_columns_give_way_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    columns = [
        Column("A", shrinks_to=3),
        Column("B", dropped=2),
        Column("C", right=True, dropped=1),
    ]
    rows = [("abcdef", "bbb", "c")]
    shown = {}
    for width in (14, 11, 10, 8, 3):
        monkeypatch.setenv("COLUMNS", str(width))
        shown[width] = tables.table(columns, rows).splitlines()[1]
    assert shown == {
        14: "abcdef  bbb  c",
        11: "ab…  bbb  c",
        10: "abcd…  bbb",
        8: "ab…  bbb",
        3: "ab…",
    }


def test_a_name_cannot_control_the_terminal() -> None:
    _, row = tables.table([Column("NAME")], [("web\033[2J\n",)]).splitlines()
    assert row == "web?[2J?"


def test_a_terminal_of_few_characters_gets_question_marks(daemon: Daemon) -> None:
    with process(
        "vms", "--socket", daemon.path, env={**os.environ, "PYTHONIOENCODING": "ascii"}
    ) as command:
        out, err = command.communicate(timeout=30)
    assert (command.returncode, err) == (0, "")
    assert "???" in out


def test_wide_characters_take_two_columns() -> None:
    lines = tables.table([Column("NAME"), Column("B")], [("数据", "x"), ("abcd", "y")]).splitlines()
    assert lines == ["NAME  B", "数据  x", "abcd  y"]


@pytest.mark.parametrize(
    ("told", "expected"),
    [
        (tables.size(0), "0"),
        (tables.size(1023), "1023"),
        (tables.size(1024), "1.0K"),
        (tables.size(1.5 * 1024**3), "1.5G"),
        (tables.size(3000 * 1024**4), "3000.0T"),
        (tables.size(None), "-"),
        (tables.milliseconds(420000), "0.42"),
        (tables.milliseconds(0), "-"),
        (tables.percent(15.6), "16"),
        (tables.duration(59), "59s"),
        (tables.duration(3599), "59m 59s"),
        (tables.duration(93785), "1d 2h"),
        (tables.duration(None), "-"),
    ],
)
def test_figures(told: str, expected: str) -> None:
    assert told == expected
