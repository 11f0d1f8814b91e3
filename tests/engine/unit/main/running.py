# SPDX-License-Identifier: GPL-2.0-or-later
"""The real program on a directory of its own, loopback and a free port."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import ssl
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.pages import REPOSITORY

PASSWORD = "correct horse"


class Program:
    """cinder-engine with a configuration of its own. options: YAML, one section a line."""

    def __init__(self, directory: Path, options: str = "") -> None:
        self.state = directory / "state"
        self.config = directory / "cinder-engine.yaml"
        self.configure(options)

    def configure(self, options: str = "", names: str = "localhost, 127.0.0.1") -> None:
        """Write its configuration."""
        self.config.write_text(
            f"listen: {{address: 127.0.0.1, port: 0, names: [{names}]}}\n"
            f"directories: {{state: {self.state}}}\n{options}"
        )

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        """What one command says."""
        return subprocess.run(
            self._command(arguments),
            input=stdin,
            text=True,
            capture_output=True,
            check=False,
            cwd=REPOSITORY,
        )

    def init(self) -> None:
        """Make an engine."""
        done = self.run("init", stdin=f"{PASSWORD}\n")
        assert done.returncode == 0, done.stderr

    def serve(self, **environment: str) -> Served:
        """Serve it until it is told to end."""
        process = subprocess.Popen(
            self._command(["serve"]),
            stdin=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            cwd=REPOSITORY,
            env={**os.environ, **environment},
        )
        return Served(self, process)

    def _command(self, arguments: Any) -> list[str]:
        program = [sys.executable, "-m", "cinderengine.main", "--config", str(self.config)]
        return [*program, *arguments]


class Served(contextlib.AbstractContextManager["Served"]):
    """An engine that is served."""

    def __init__(self, program: Program, process: subprocess.Popen[str]) -> None:
        self._program = program
        self.process = process
        self.lines: list[str] = []

    def __enter__(self) -> Served:
        self.port = int(self.wait_for(r"served on port (\d+)")[1])
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stderr
        self.process.stderr.close()

    def wait_for(self, pattern: str) -> re.Match[str]:
        """Until a line of the log matches."""
        assert self.process.stderr
        for line in self.process.stderr:
            self.lines.append(line)
            if found := re.search(pattern, line):
                return found
        raise AssertionError(f"it ended before {pattern!r}:\n{''.join(self.lines)}")

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Tell it to end; its exit code."""
        self.process.send_signal(number)
        return self.process.wait()

    def get(self, path: str, **headers: str) -> tuple[int, str]:
        """The status and the body of an answer, from one whose certificate is verified."""
        connection = http.client.HTTPSConnection("localhost", self.port, context=self.context())
        with contextlib.closing(connection):
            connection.request("GET", path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        """The status and the body of an answer to JSON, from JSON."""
        connection = http.client.HTTPSConnection("localhost", self.port, context=self.context())
        with contextlib.closing(connection):
            connection.request("POST", path, json.dumps(body))
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def json(self, path: str) -> Any:
        """The body as what it is of JSON."""
        return json.loads(self.get(path)[1])

    def context(self) -> ssl.SSLContext:
        """Trusts the authority that init made, and no other."""
        return ssl.create_default_context(cafile=self._program.state / "pki/clients-ca.pem")
