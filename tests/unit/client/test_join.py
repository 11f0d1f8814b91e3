# SPDX-License-Identifier: GPL-2.0-or-later
"""vdsm-cinder join: what it makes of its words, and how it changes a configuration."""

from __future__ import annotations

import base64

import pytest
import yaml

from vdsmcinder import config
from vdsmcinder.client import cli
from vdsmcinder.client.exit_codes import UNREACHABLE, USAGE, InputRefused, UsageError
from vdsmcinder.client.join import settings, token
from vdsmcinder.client.join.engine import Address

TOKEN = token.PREFIX + base64.urlsafe_b64encode(bytes(range(64))).decode().rstrip("=")
ROLE = "CN=engine,OU=engine,O=vdsm-cinder"
CHANGES = {
    ("listen", "hosts_ca"): "/etc/pki/vdsm/certs/hostscacert.pem",
    ("migration", "key"): "/k",
    ("access", "roles", ROLE): "admin",
    ("access", "default_role"): "none",
}


def test_a_token_has_the_fingerprint_of_the_engines_authority() -> None:
    assert token.fingerprint(TOKEN) == bytes(range(32, 64))


@pytest.mark.parametrize("text", ["", "join1.", TOKEN[:-1], TOKEN + "AAAA", TOKEN[6:], "é" * 92])
def test_what_is_no_token_is_refused_and_not_repeated(text: str) -> None:
    with pytest.raises(UsageError, match="no token of an engine") as caught:
        token.fingerprint(text)
    assert not text or text not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://engine.example.com", "https://engine.example.com:443"),
        ("https://engine.example.com:8443/ovirt-engine/", "https://engine.example.com:8443"),
        ("https://[2001:db8::1]:8443", "https://[2001:db8::1]:8443"),
    ],
)
def test_an_engines_url(url: str, told: str) -> None:
    assert str(Address.of(url)) == told


@pytest.mark.parametrize(
    "url",
    ["http://engine", "engine", "https://", "https://e:port", "https://u:p@e", "https://e:70000"],
)
def test_what_is_no_engines_url_is_refused(url: str) -> None:
    with pytest.raises(UsageError, match="no engine's URL"):
        Address.of(url)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing yet\n",
        "listen:\n",
        "listen: {}\naccess: {roles: {}}\n",
        "listen:\n  # where\n  port: 54321  # the usual\n  hosts_ca: ''\naccess:\n  roles:\n"
        "    grafana: monitor\n  default_role: admin  # for now\n",
        '{"listen": {"port": 54321, "hosts_ca": "/old"}, "access": {"roles": {"a": "none"}}}',
        "{}",
        "access:\n\n    default_role: admin\n\nlisten:\n    port: 54321\n",
    ],
)
def test_options_are_set_and_the_rest_stays(text: str) -> None:
    new = settings.changed(text, CHANGES, "f")
    before = yaml.safe_load(text) or {}
    after = yaml.safe_load(new)
    for path, value in CHANGES.items():
        found = after
        for name in path:
            found = found[name]
        assert found == value
    assert (before.get("listen") or {}).get("port") == after["listen"].get("port")
    old_roles = (before.get("access") or {}).get("roles") or {}
    assert after["access"]["roles"] == {**old_roles, ROLE: "admin"}
    for line in text.splitlines():
        if "#" in line:
            assert line.split("#")[1] in new
    assert settings.changed(new, CHANGES, "f") == new


def test_options_are_set_in_the_documented_file() -> None:
    text = config.render(config.Config())
    new = settings.changed(text, CHANGES, "f")
    made = config.parse(new, "f")
    assert made.access.roles == {ROLE: "admin"}
    assert made.listen.hosts_ca == CHANGES["listen", "hosts_ca"]
    assert [line for line in new.splitlines() if line.strip().startswith("#")] == [
        line for line in text.splitlines() if line.strip().startswith("#")
    ]


@pytest.mark.parametrize("text", ["[1]", "listen: 7\n", "listen: [1]\n", "{"])
def test_what_is_no_configuration_is_refused(text: str) -> None:
    with pytest.raises(InputRefused, match="mend it, and run this again"):
        settings.changed(text, {("listen", "hosts_ca"): "/x"}, "f")


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (["https://127.0.0.1:1", "join1.AAAA"], USAGE, "no token of an engine"),
        (["http://127.0.0.1:1", TOKEN], USAGE, "no engine's URL"),
        (["https://127.0.0.1:1", TOKEN], UNREACHABLE, "cannot be reached (Connection refused)"),
    ],
)
def test_what_is_wrong_takes_one_sentence(tmp_path, capsys, words, code, told) -> None:
    (tmp_path / "etc/libvirt").mkdir(parents=True)
    (tmp_path / "etc/libvirt/libvirtd.conf").touch()
    where = ["--root", str(tmp_path), "--config", str(tmp_path / "vdsm-cinder.yaml")]
    assert cli.main(["join", *where, *words]) == code
    said = capsys.readouterr().err
    assert told in said
    assert len(said.splitlines()) == 1
    assert TOKEN not in said
