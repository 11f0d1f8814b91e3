# SPDX-License-Identifier: GPL-2.0-or-later
"""Writes docs/rest.md, the reference of the REST API, from the tables of collections and types.

`make rest`; a unit test fails while the file is stale, and runs its examples.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from cinderengine.api.resources.collections import ROOTS
from cinderengine.api.resources.empty import is_empty
from cinderengine.api.resources.table import Collection, find
from cinderengine.api.types.registry import TYPES
from cinderengine.api.types.schema import Field, Kind, Type

_HEAD = """\
# The REST API

What of oVirt's REST API the engine serves. This page is generated from the tables that the engine
itself reads and writes by: change those, then run `make rest`.

The API is below `/ovirt-engine/api`, and below `/api` for old clients; links in an answer have the
prefix that was asked for. It speaks version 4, or 3 where a request has the header `Version: 3` or
a prefix such as `/ovirt-engine/api/v3`. Bodies are XML or JSON, by `Content-Type` and `Accept`.
JSON has numbers and booleans as strings, and a collection is `{"disk": [...]}`.

## Logging in

A name and a password by Basic, or a token that `POST /ovirt-engine/sso/oauth/token` gives for them.
The user is `NAME@PROFILE`, such as `admin@internal`. Only administrators have access.

```sh
curl -sf -u "$AUTH" -H 'Accept: application/json' \\
  "$ENGINE/ovirt-engine/api/clusters?search=name%3DDefault"
curl -sf "$ENGINE/ovirt-engine/sso/oauth/token" -d grant_type=password -d scope=ovirt-app-api \\
  --data-urlencode "username=${AUTH%%:*}" --data-urlencode "password=${AUTH#*:}"
```

## Requests

- Parameters stand in the query, or behind `;` in the path as version 3's clients have them.
  Booleans are `true`, `yes`, `1` and `false`, `no`, `0` in any case; one without a value is true.
- `search` takes `FIELD=VALUE`, `!=`, `<`, `>`, `<=` and `>=`, joined by `and` and `or`, and
  parentheses; `*` in a value is any text, a value with blanks is quoted. `sortby FIELD asc|desc`
  and `page N` end it. `case_sensitive=false` compares without regard to case. `max` is how many are
  answered.
- `follow=data_center,volume_types` puts what links lead to in the links' place.
- `Correlation-Id`, or the parameter `correlation_id`, leads from a request to its events, its job
  and the lines in hosts' logs.
- A change is answered when it is taken on; a disk is `locked` and its job goes on.
- `DELETE` is answered with 200 in version 4, once it is done or, with `?async=true`, at once. It is
  answered with 202, at once, in version 3, with `;async` in the path, and where a request has
  `Expect: 202-accepted` or `X-Ovirt-Expect: 202-accepted`.
- What is refused is a `fault` with `reason` and `detail`, which says what stands against it and
  what to do. Fields that are not known are ignored, and logged.

With curl, a disk on a pool without Cinder:

```sh
curl -sf -u "$AUTH" "$ENGINE/ovirt-engine/api/openstackvolumeproviders" \\
  -H 'Content-Type: application/xml' -d '
    <openstack_volume_provider>
      <name>pool</name>
      <url>rbd://192.0.2.1,192.0.2.2/volumes</url>
      <requires_authentication>true</requires_authentication>
      <username>cinder</username>
      <password>AQAAAAAAAAAAABAAAAAAAAAAAAAAAAAAAAAAAA==</password>
      <data_center><name>Default</name></data_center>
    </openstack_volume_provider>'
curl -sf -u "$AUTH" "$ENGINE/ovirt-engine/api/disks" \\
  -H 'Content-Type: application/xml' -d '
    <disk>
      <alias>first</alias>
      <provisioned_size>1073741824</provisioned_size>
      <storage_domains><storage_domain><name>pool</name></storage_domain></storage_domains>
    </disk>'
```

With ovirtsdk4:

```python
import ovirtsdk4
from ovirtsdk4 import types

with ovirtsdk4.Connection(
    url=f"{ENGINE}/ovirt-engine/api", username=USER, password=PASSWORD, ca_file=CA_FILE
) as connection:
    disks = connection.system_service().disks_service()
    disk = disks.add(
        types.Disk(
            alias="second",
            provisioned_size=2**30,
            storage_domains=[types.StorageDomain(name="pool")],
        )
    )
    print(disk.id, disk.status.value)
```
"""
_COLLECTIONS = """
## Collections

`ID` stands for an id. Whatever is listed can be got by its id, with `GET`.
"""
_TYPES = """
## Types

Each field with its kind, and with its name or form in version 3 where that is another. A status
stands in an element of its own there: `<status><state>ok</state></status>`. Secrets are taken and
never given.
"""


def page() -> str:
    """The whole page as Markdown."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    yield _HEAD.rstrip("\n")
    yield _COLLECTIONS
    yield "| path | type | can be | actions | is searched by |"
    yield "|---|---|---|---|---|"
    found = find(ROOTS)
    for path, collection in found:
        if not is_empty(collection):
            yield _row(path, collection)
    yield "\nNothing is in these, which clients look into:\n"
    yield from _empty(found)
    yield _TYPES.rstrip("\n")
    for name in sorted(_served(found)):
        yield from _type(TYPES[name])


def _row(path: str, collection: Collection[Any]) -> str:
    can = [
        word
        for word, how in (
            ("added to", collection.add),
            ("edited", collection.edit),
            ("removed from", collection.remove),
        )
        if how
    ]
    kind = f"[{collection.type}](#{collection.type})"
    actions = ", ".join(f"`{name}`" for name in collection.actions)
    fields = ", ".join(f"`{name}`" for name in collection.fields)
    return f"| `{path}` | {kind} | {', '.join(can) or 'read'} | {actions} | {fields} |"


def _empty(found: Sequence[tuple[str, Collection[Any]]]) -> Iterator[str]:
    """What is empty, by what it is below."""
    below: dict[str, list[str]] = {}
    for path, collection in found:
        parent, _, name = path.rpartition("/")
        if is_empty(collection):
            below.setdefault(parent, []).append(f"`{name}`")
    for parent, names in sorted(below.items()):
        where = f"`{parent}`" if parent else "the root"
        yield f"- below {where}: {', '.join(sorted(names))}"


def _served(found: Sequence[tuple[str, Collection[Any]]]) -> set[str]:
    """The types of what may be in a collection, and those that they hold."""
    pending = {one.type for _, one in found if not is_empty(one)} | {"api", "action", "fault"}
    served: set[str] = set()
    while pending:
        name = pending.pop()
        served.add(name)
        pending |= {field.of for field in TYPES[name].fields if field.of} - served
    return served


def _type(declared: Type) -> Iterator[str]:
    yield f"\n### {declared.name}\n"
    if declared.root:
        yield f"At the top of a document of version 4: `{declared.root}`, `{declared.roots}`.\n"
    yield "| field | kind | in version 3 |\n|---|---|---|"
    for field in declared.fields:
        yield f"| `{field.name}` | {_kind(field)} | {_third(field)} |"


def _kind(field: Field) -> str:
    if field.kind is Kind.ONE:
        return f"[{field.of}](#{field.of})"
    if field.kind is Kind.MANY:
        return f"list of [{field.of}](#{field.of})"
    if field.words:
        return "enum: " + ", ".join(f"`{word}`" for word in field.words)
    if field.state:
        return "status"
    return "secret text" if field.secret else field.kind.value


def _third(field: Field) -> str:
    told = []
    if field.v3 != field.name:
        told.append(f"`{field.v3}`")
    if field.echo:
        told.append(f"`{field.echo}`, too")
    if field.attribute:
        told.append("an attribute")
    return ", ".join(told)


if __name__ == "__main__":
    print(page(), end="")
