# SPDX-License-Identifier: GPL-2.0-or-later
"""The configuration: what is written is read back, and each mistake is named with what fits."""

from __future__ import annotations

import pytest

from cinderengine.config import Config, ConfigError, Listen, load, parse, render


def test_what_is_written_is_read_back():
    config = Config(listen=Listen(port=8443, names=("engine.example.com", "192.0.2.1")))
    assert parse(render(config), "it") == config


def test_the_file_tells_what_each_option_is_for():
    text = render(Config())
    assert "# Where browsers and clients of the API connect.\nlisten:" in text
    assert "  # TCP port. 0 takes any free one.\n  port: 443" in text
    assert "One of: DEBUG, INFO, WARNING, ERROR.\n  level: INFO" in text
    assert max(map(len, text.splitlines())) <= 98


@pytest.mark.parametrize("text", ["", "listen:\n", "# nothing\n"])
def test_what_is_left_out_is_as_ever(text):
    assert parse(text, "it") == Config()


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("listne: {}", "it: unknown section listne; did you mean listen?"),
        ("listen: {prot: 1}", "it: listen: unknown option prot; did you mean port?"),
        ("log: {quux: 1}", "it: log: unknown option quux; known are level, target"),
        ("listen: {port: '1'}", "it: listen.port is '1'; expected a whole number"),
        ("listen: {port: true}", "it: listen.port is True; expected a whole number"),
        ("listen: {port: -1}", "it: listen.port is -1; expected at least 0"),
        ("listen: {port: 70000}", "it: listen.port is 70000; expected at most 65535"),
        ("listen: {names: a}", "it: listen.names is 'a'; expected a list: [one, another]"),
        ("listen: {names: [1]}", "it: listen.names[0] is 1; expected a string"),
        (
            "log: {level: LOUD}",
            "it: log.level is 'LOUD'; expected one of DEBUG, INFO, WARNING, ERR",
        ),
        ("directories: {state: x}", "it: directories.state is 'x'; expected the absolute path of"),
        ("listen: {key: /x}", "it: listen.certificate and listen.key go together"),
        ("listen: 1", "it: listen must hold 'name: value' lines, not 1"),
        ("[]", "it: the file must hold 'name: value' lines, not []"),
        ("listen: {", "it:1:10: not valid YAML"),
    ],
)
def test_a_mistake_is_told(text, told):
    with pytest.raises(ConfigError) as failed:
        parse(text, "it")
    assert str(failed.value).startswith(told)


def test_a_file_that_is_not_there_is_told_with_how_to_make_it(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot be read: No such file .* config --defaults"):
        load(tmp_path / "x.yaml")


def test_a_file_that_is_no_text_is_told(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"\xff")
    with pytest.raises(ConfigError, match="it is not UTF-8 text"):
        load(tmp_path / "x.yaml")


def test_the_database_is_in_the_state_directory_unless_it_is_said():
    moved = parse("directories: {state: /srv/e}", "it")
    assert moved.database_url == "sqlite:////srv/e/engine.db"
    assert parse("database: {url: 'postgresql+psycopg://db/e'}", "it").database_url.endswith("/e")
