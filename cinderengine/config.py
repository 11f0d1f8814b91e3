# SPDX-License-Identifier: GPL-2.0-or-later
"""Every option of the engine, with its default and what it is for.

One YAML file is loaded into these classes, and `cinder-engine config` prints them back as a
documented file. ConfigError names the option, what it is and what is expected.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import textwrap
import typing
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

DEFAULT_PATH = Path("/etc/cinder-engine/cinder-engine.yaml")

T = TypeVar("T")


class ConfigError(Exception):
    """The configuration cannot be used; the message names the option, its value and what fits."""


@dataclass(frozen=True)
class Limits:
    """What a value must keep to besides its type."""

    minimum: float | None = None
    maximum: float | None = None
    choices: Sequence[str] = ()
    path: bool = False


def option(default: Any, doc: str, **limits: Any) -> Any:
    """A field with its documentation; limits are those of Limits, for a list those of each item."""
    metadata = {"doc": " ".join(doc.split()), "limits": Limits(**limits)}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Listen:
    """Where browsers and clients of the API connect."""

    address: str = option("::", "Address of the listener; '::' is every address, IPv4 included.")
    port: int = option(443, "TCP port. 0 takes any free one.", minimum=0, maximum=65535)
    names: tuple[str, ...] = option(
        (),
        """Names and addresses by which the engine is reached, the one that hosts are told first:
        its certificate is for them. Empty for those that this machine has.""",
    )
    certificate: str = option(
        "",
        """The engine's HTTPS certificate, PEM, with its chain. Empty for the one that init makes,
        of an authority of the engine's own.""",
    )
    key: str = option("", "Its private key, PEM, without a passphrase; with certificate.")


@dataclass(frozen=True)
class Directories:
    """Where the engine keeps what it knows."""

    state: str = option(
        "/var/lib/cinder-engine",
        """The embedded database, the key that passwords in it are sealed with, and, below pki, the
        authorities: back all of it up, and keep it safe.""",
        path=True,
    )


@dataclass(frozen=True)
class Database:
    """Where data centers, hosts, disks, users and jobs are kept."""

    url: str = option(
        "",
        """SQLAlchemy's URL of the database, such as postgresql+psycopg://engine@db/engine. Empty
        for SQLite, in engine.db of directories.state.""",
    )


@dataclass(frozen=True)
class Access:
    """How users log in, and for how long."""

    idle_minutes: int = option(
        30, "A token that has not been used for so long is no longer good, in minutes.", minimum=1
    )
    longest_hours: int = option(
        24, "A token ends after so long however much it is used, in hours.", minimum=1
    )
    free_failures: int = option(
        5,
        """Failed logins of a user, or from an address, that cost nothing. Each one more doubles
        the pause until the next is looked at, which begins with a second.""",
        minimum=1,
    )
    longest_pause_s: int = option(
        60, "The longest such pause, in seconds. It ends by itself.", minimum=1, maximum=3600
    )


@dataclass(frozen=True)
class Storage:
    """How storage domains are looked after."""

    look_s: int = option(
        30,
        """Pause between two looks at each active storage domain, in seconds: how much room it has,
        and whether its provider answers.""",
        minimum=1,
    )


@dataclass(frozen=True)
class Certificates:
    """How long what the engine's authorities sign is good."""

    days: int = option(
        397,
        "Validity of the certificates of hosts, of the engine and of its HTTPS port, in days.",
        minimum=1,
    )
    authority_days: int = option(3650, "Validity of the authorities themselves.", minimum=30)
    renew_days: int = option(
        60,
        """Days before its end from which on the engine makes a certificate of its own anew, and
        hosts are to have theirs renewed.""",
        minimum=1,
    )


@dataclass(frozen=True)
class Log:
    """What is logged, and where."""

    level: str = option(
        "INFO", "Least severity that is logged.", choices=("DEBUG", "INFO", "WARNING", "ERROR")
    )
    target: str = option(
        "auto",
        "journal, stderr, or auto: the journal when systemd started the engine, else stderr.",
        choices=("auto", "journal", "stderr"),
    )


@dataclass(frozen=True)
class Config:
    """The whole configuration: one attribute for each section of the file."""

    listen: Listen = field(default_factory=Listen)
    directories: Directories = field(default_factory=Directories)
    database: Database = field(default_factory=Database)
    access: Access = field(default_factory=Access)
    storage: Storage = field(default_factory=Storage)
    certificates: Certificates = field(default_factory=Certificates)
    log: Log = field(default_factory=Log)

    def __post_init__(self) -> None:
        if bool(self.listen.certificate) != bool(self.listen.key):
            raise ConfigError(
                "listen.certificate and listen.key go together: give both, or neither for a "
                "certificate of the engine's own"
            )

    @property
    def state(self) -> Path:
        """The directory of all that the engine keeps."""
        return Path(self.directories.state)

    @property
    def database_url(self) -> str:
        """SQLAlchemy's URL of the database."""
        return self.database.url or f"sqlite:///{self.state / 'engine.db'}"


def load(path: Path) -> Config:
    """Read the YAML file at path.

    Raises ConfigError for a file that cannot be read or parsed, an unknown section or option, or a
    value of the wrong type or out of range.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as e:
        reason = e.strerror if isinstance(e, OSError) else "it is not UTF-8 text"
        raise ConfigError(
            f"configuration file {path} cannot be read: {reason}; "
            "create it from the output of cinder-engine config --defaults"
        ) from e
    return parse(text, str(path))


def parse(text: str, origin: str) -> Config:
    """Build a Config from YAML text; origin names the text in errors."""
    import yaml  # noqa: PLC0415  # costs a third of what --help may take

    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as e:
        mark = getattr(e, "problem_mark", None)
        where = f"{origin}:{mark.line + 1}:{mark.column + 1}" if mark else origin
        raise ConfigError(f"{where}: not valid YAML: {getattr(e, 'problem', e)}") from e
    sections = _mapping({} if content is None else content, f"{origin}: the file")
    known = {section.name: section.cls for section in sections_of(Config())}
    _refuse_unknown(sections, known, f"{origin}: unknown section")
    try:
        return Config(
            **{
                name: _section(known[name], values, f"{origin}: {name}")
                for name, values in sections.items()
                if values is not None
            }
        )
    except ConfigError as e:
        raise e if str(e).startswith(origin) else ConfigError(f"{origin}: {e}") from e


def render(config: Config) -> str:
    """The configuration as a documented YAML file that parse() reads back to the same Config."""
    import yaml  # noqa: PLC0415

    parts = ["# Configuration of cinder-engine. Every option is shown with the value in force."]
    for section in sections_of(config):
        parts.append(f"\n# {section.cls.__doc__}\n{section.name}:")
        for known in section.options:
            parts.append(
                textwrap.fill(known.help, 98, initial_indent="  # ", subsequent_indent="  # ")
            )
            plain = list(known.value) if isinstance(known.value, tuple) else known.value
            line = yaml.safe_dump({known.name: plain}, sort_keys=False, width=math.inf)
            parts.append(textwrap.indent(line.rstrip(), "  "))
    return "\n".join(parts) + "\n"


class Option(NamedTuple):
    """One option, with its value in a configuration."""

    name: str
    type: Any
    doc: str
    limits: Limits
    value: Any

    @property
    def help(self) -> str:
        """What it is for, and what it can be."""
        choices = ", ".join(self.limits.choices)
        return f"{self.doc} One of: {choices}." if choices else self.doc


class Section(NamedTuple):
    """One section of a configuration."""

    name: str
    cls: type[Any]
    options: Sequence[Option]


def sections_of(config: Config) -> Iterator[Section]:
    """What there is to say of each section, and of each option in it."""
    for part in dataclasses.fields(config):
        values = getattr(config, part.name)
        types = typing.get_type_hints(type(values))
        yield Section(
            part.name,
            type(values),
            [
                Option(
                    f.name,
                    types[f.name],
                    f.metadata["doc"],
                    f.metadata["limits"],
                    getattr(values, f.name),
                )
                for f in dataclasses.fields(values)
            ],
        )


def _section(cls: type[T], content: Any, where: str) -> T:
    values = _mapping(content, where)
    types = typing.get_type_hints(cls)
    known = {f.name: f.metadata["limits"] for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    _refuse_unknown(values, known, f"{where}: unknown option")
    return cls(
        **{
            name: _value(types[name], known[name], value, f"{where}.{name}")
            for name, value in values.items()
        }
    )


def _mapping(content: Any, what: str) -> Mapping[Any, Any]:
    if not isinstance(content, dict):
        raise ConfigError(f"{what} must hold 'name: value' lines, not {content!r}")
    return content


def _refuse_unknown(given: Mapping[Any, Any], known: Mapping[str, Any], what: str) -> None:
    for name in given:
        if name in known:
            continue
        close = difflib.get_close_matches(str(name), known, n=1)
        hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(known)}"
        raise ConfigError(f"{what} {name}; {hint}")


def _value(kind: Any, limits: Limits, value: Any, where: str) -> Any:
    if typing.get_origin(kind) is not tuple:
        return _scalar(kind, limits, value, where)
    if not isinstance(value, list):
        raise ConfigError(f"{where} is {value!r}; expected a list: [one, another]")
    return tuple(_scalar(str, limits, item, f"{where}[{i}]") for i, item in enumerate(value))


_EXPECTED: Mapping[type, str] = {str: "a string", int: "a whole number", bool: "true or false"}


def _scalar(kind: type[Any], limits: Limits, value: Any, where: str) -> Any:
    # True is an int to Python, and to nobody who writes a configuration.
    if type(value) is not kind:
        raise ConfigError(f"{where} is {value!r}; expected {_EXPECTED[kind]}")
    return _fitting(limits, value, where)


def _fitting(limits: Limits, value: Any, where: str) -> Any:
    if limits.choices and value not in limits.choices:
        raise ConfigError(f"{where} is {value!r}; expected one of {', '.join(limits.choices)}")
    if limits.path and not Path(value).is_absolute():
        raise ConfigError(f"{where} is {value!r}; expected the absolute path of a directory")
    if limits.minimum is not None and value < limits.minimum:
        raise ConfigError(f"{where} is {value!r}; expected at least {limits.minimum}")
    if limits.maximum is not None and value > limits.maximum:
        raise ConfigError(f"{where} is {value!r}; expected at most {limits.maximum}")
    return value
