# SPDX-License-Identifier: GPL-2.0-or-later
"""The configuration: what is read, what is printed back, and what is said of mistakes."""

from __future__ import annotations

import dataclasses

import pytest

from vdsmcinder import config


def test_empty_file_gives_the_defaults():
    assert config.parse("", "f") == config.Config()


def test_what_is_printed_is_read_back():
    changed = dataclasses.replace(
        config.Config(), listen=config.Listen(port=1, tls=False, address="127.0.0.1")
    )
    assert config.parse(config.render(changed), "f") == changed


def test_names_of_any_length_and_letters_are_printed_so_that_they_are_read_back():
    roles = {f"CN={'x' * 120}: #y,O=Exämple, Inc.": "monitor", "yes": "admin", " a ": "admin"}
    changed = dataclasses.replace(config.Config(), access=config.Access(roles=roles))
    assert config.parse(config.render(changed), "f") == changed


def test_differences_are_named_but_for_those_that_do_not_matter():
    one = config.Config()
    other = config.parse("log: {level: DEBUG}\nlisten: {port: 1}\naccess: {roles: {a: admin}}", "f")
    assert config.differences(one, one) == []
    assert config.differences(one, other) == ["listen.port", "access.roles", "log.level"]
    assert config.differences(one, other, but=("access", "log.level")) == ["listen.port"]


def test_every_option_is_documented():
    for section in dataclasses.fields(config.Config()):
        for option in dataclasses.fields(getattr(config.Config(), section.name)):
            assert option.metadata["doc"].endswith("."), option.name


def test_a_secret_is_named_by_its_uuid():
    uuid = "148eb4bc-c47c-4ffe-b14e-3a0fb6c76833"
    assert config.parse(f"vms: {{cinder_secret_uuid: {uuid}}}", "f").vms.cinder_secret_uuid == uuid
    with pytest.raises(config.ConfigError, match="cinder_secret_uuid is no UUID; expected one"):
        config.parse("vms: {cinder_secret_uuid: key}", "f")


def test_options_are_read_with_their_types():
    read = config.parse("vms: {hotunplug_timeout_s: 3}\nlog: {level: DEBUG}", "f")
    assert read.vms.hotunplug_timeout_s == 3.0
    assert isinstance(read.vms.hotunplug_timeout_s, float)
    assert read.log.level == "DEBUG"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lisen: {}", "f: unknown section lisen; did you mean listen?"),
        ("listen: {prot: 1}", "f: unknown option in section listen: prot; did you mean port?"),
        ("listen: {port: '1'}", "f: listen.port is '1'; expected a whole number"),
        ("listen: {port: true}", "f: listen.port is True; expected a whole number"),
        ("listen: {port: -1}", "f: listen.port is -1; expected at least 0"),
        ("listen: {tls: 1}", "f: listen.tls is 1; expected true or false"),
        ("log: {level: LOUD}", "expected one of DEBUG, INFO, WARNING, ERROR"),
        (
            "policy: {allow: hostdev}",
            "f: policy.allow is 'hostdev'; expected a list",
        ),
        (
            "policy: {allow: [all]}",
            "f: policy.allow[0] is 'all'; expected one of chardevs",
        ),
        ("policy: {paths: [7]}", "f: policy.paths[0] is 7; expected a string"),
        ("policy: {paths: [srv]}", "f: policy.paths[0] is 'srv'; expected the absolute path of"),
        ("access: {default_role: root}", "f: access.default_role is 'root'; expected one of"),
        ("access: {roles: [a]}", "f: access.roles is ['a']; expected 'name: value' lines"),
        ("access: {roles: {a: root}}", "f: access.roles: a is 'root'; expected one of admin, vie"),
        ("access: {roles: {a: 1}}", "f: access.roles: a is 1; expected a string"),
        ("access: {roles: {on: admin}}", "f: access.roles: name is True; expected a string"),
        ("log: [1]", "f: section log must hold 'name: value' lines, not [1]"),
        ("just words", "f: the file must hold 'name: value' lines"),
        ("a: [", "f:1:5: not valid YAML"),
    ],
)
def test_mistakes_are_named(text, message):
    with pytest.raises(config.ConfigError) as error:
        config.parse(text, "f")
    assert message in str(error.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(config.ConfigError, match=r"none\.yaml cannot be read: No such file"):
        config.load(tmp_path / "none.yaml")
