# SPDX-License-Identifier: GPL-2.0-or-later
"""Certificates that end soon: told when it is found out, once a day, and until they are renewed."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from vdsmcinder.monitoring.certificate_expiry import DAY_S, Expiry
from vdsmcinder.rpc.events import Events
from vdsmcinder.tasks import Tasks
from vdsmcinder.transport.certificates import Held, Owner


class Certificates:
    """Certificates in force that end so many days from now."""

    def __init__(self, host: float, *cas: float) -> None:
        now = time.time()
        self.held = (
            Held(Owner.HOST, "/host.pem", "", now + host * DAY_S),
            *(
                Held(Owner.CA, "/ca.pem", f"CN=CA {i}", now + days * DAY_S)
                for i, days in enumerate(cas)
            ),
        )


class Told:
    """What subscribers hear and the log says, of certificates that end within 30 days."""

    def __init__(self, certificates: Certificates, caplog: pytest.LogCaptureFixture) -> None:
        self.events, self.caplog = Events(), caplog
        self.heard: list[dict[str, Any]] = []
        self.events.subscribe(lambda body: self.heard.append(json.loads(body)))
        self.expiry = Expiry(self.events, 30, Tasks("expiry"))
        self.certificates = certificates
        self.expiry.use(certificates)  # type: ignore[arg-type]

    def after(self, days: float) -> list[str]:
        """The names of what is heard when it is looked, so many days on; as often it is logged."""
        self.heard.clear()
        self.caplog.clear()
        self.expiry.tell(days * DAY_S)
        assert len(self.caplog.records) == len(self.heard)
        return [event["method"].removeprefix("|host|certificate_expires|") for event in self.heard]


@pytest.fixture
def told(caplog: pytest.LogCaptureFixture, request: pytest.FixtureRequest) -> Told:
    return Told(Certificates(*request.param), caplog)


@pytest.mark.parametrize("told", [(20, 100)], indirect=True)
def test_it_is_told_once_a_day(told: Told) -> None:
    assert told.after(5) == ["host"]
    (event,) = told.heard
    assert event["params"]["host"]["daysLeft"] == 19
    assert "notify_time" in event["params"]
    assert told.after(5.99) == []
    assert told.after(6) == ["host"]
    assert told.after(6.5) == []
    assert told.after(7.1) == ["host"]


@pytest.mark.parametrize("told", [(100, 100, 3, -1)], indirect=True)
def test_each_ca_is_told_by_its_name(told: Told) -> None:
    assert told.after(0) == ["ca", "ca"]
    soon, ended = (event["params"]["ca"] for event in told.heard)
    assert (soon["subject"], soon["daysLeft"]) == ("CN=CA 1", 2)
    assert soon["message"].startswith("the certificate of the CA CN=CA 1 (/ca.pem) expires in 3.0")
    assert "pki renew --with-ca" in soon["message"]
    assert (ended["subject"], ended["daysLeft"]) == ("CN=CA 2", -2)
    assert " has expired; " in ended["message"]


@pytest.mark.parametrize("told", [(20,)], indirect=True)
def test_a_renewed_one_is_told_of_no_more_and_a_bad_renewal_at_once(told: Told) -> None:
    assert told.after(0) == ["host"]
    told.certificates.held = Certificates(400).held
    assert told.after(2) == []
    assert told.events.greeting() == []
    told.certificates.held = Certificates(10).held
    assert told.after(2.1) == ["host"]


@pytest.mark.parametrize("told", [(20, 10)], indirect=True)
def test_a_subscriber_is_greeted_with_what_holds(told: Told) -> None:
    greeting = [json.loads(body)["method"] for body in told.events.greeting()]
    assert greeting == ["|host|certificate_expires|host", "|host|certificate_expires|ca"]


@pytest.mark.parametrize("told", [(31, 31)], indirect=True)
def test_there_is_nothing_to_tell_before_its_time(told: Told) -> None:
    assert told.after(0) == []
    assert told.events.greeting() == []
