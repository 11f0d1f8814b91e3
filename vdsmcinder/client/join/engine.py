# SPDX-License-Identifier: GPL-2.0-or-later
"""The engine over HTTPS: first known by its authority's fingerprint, then asked to sign.

Nothing but the question for the authority's certificate is sent before the engine is known.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from cryptography.hazmat.primitives import hashes

from vdsmcinder.client.exit_codes import InputRefused, UsageError
from vdsmcinder.client.pki import certificates as issuing
from vdsmcinder.client.session import Unreachable
from vdsmcinder.tls_errors import reason

AUTHORITY_PATH = "/ovirt-engine/services/pki-resource?resource=ca-certificate&format=X509-PEM-CA"
JOIN_PATH = "/ovirt-engine/hosts/join"
_LONGEST_ANSWER = 1024 * 1024


@dataclass(frozen=True)
class Address:
    """Where an engine is."""

    host: str
    port: int

    @classmethod
    def of(cls, url: str) -> Address:
        """From https://HOST[:PORT][/…]. Raises UsageError."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port or 443
        except ValueError:
            host = None
        if not host or parts.scheme != "https" or parts.username is not None:
            raise UsageError(f"{url!r} is no engine's URL; give https://HOST or https://HOST:PORT")
        return cls(host, port)

    def __str__(self) -> str:
        return f"https://{f'[{self.host}]' if ':' in self.host else self.host}:{self.port}"


class Engine:
    """One that has the authority of this fingerprint (SHA-256), or none."""

    def __init__(self, address: Address, fingerprint: bytes, timeout_s: float) -> None:
        self._address = address
        self._fingerprint = fingerprint
        self._timeout_s = timeout_s

    def authority(self) -> bytes:
        """The certificate of its authority, PEM. Raises InputRefused if it has another one."""
        nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        nobody.check_hostname, nobody.verify_mode = False, ssl.CERT_NONE
        status, body = self._ask("GET", AUTHORITY_PATH, nobody)
        with contextlib.suppress(InputRefused):
            found = issuing.certificates_of(body if status == http.client.OK else b"", "it")
            for certificate in found:
                if certificate.fingerprint(hashes.SHA256()) == self._fingerprint:
                    return issuing.certificate_pem(certificate)
        raise InputRefused(
            f"what answers at {self._address} is not the engine that gave the token: it has not "
            "the authority that the token names; check the URL, and that nobody is in between"
        )

    def join(self, request: Mapping[str, Any], authority: bytes, other_ca: Path | None) -> Any:
        """What the engine answers, as JSON. other_ca: of its HTTPS certificate, if not its own.

        Raises InputRefused with the engine's words, Unreachable.
        """
        trusting = ssl.create_default_context(cadata=authority.decode())
        if other_ca is not None:
            try:
                trusting = ssl.create_default_context(cafile=str(other_ca))
            except OSError as e:
                raise InputRefused(
                    f"{other_ca} cannot be used ({reason(e)}); give a PEM file with the CA of the "
                    "engine's HTTPS certificate"
                ) from e
        status, body = self._ask("POST", JOIN_PATH, trusting, json.dumps(request).encode())
        try:
            answer = json.loads(body)
        except ValueError:
            answer = None
        if status == http.client.OK and isinstance(answer, dict):
            return answer
        detail = _detail(answer)
        raise InputRefused(
            f"the engine refused: {detail}"
            if detail
            else f"{self._address} answered {status} to the request to join; check that it is an "
            "engine of this version, and its log"
        )

    def _ask(
        self, method: str, path: str, context: ssl.SSLContext, body: bytes | None = None
    ) -> tuple[int, bytes]:
        address = self._address
        connection = http.client.HTTPSConnection(
            address.host, address.port, timeout=self._timeout_s, context=context
        )
        headers = {} if body is None else {"Content-Type": "application/json"}
        try:
            connection.request(method, path, body, {"Accept": "*/*", **headers})
            answer = connection.getresponse()
            return answer.status, answer.read(_LONGEST_ANSWER)
        except ssl.SSLCertVerificationError as e:
            raise InputRefused(
                f"the HTTPS certificate of {address} is not of the engine's authority, or not for "
                f"that name ({e.verify_message}); use the URL that it gave, or name its CA with "
                "--engine-ca"
            ) from e
        except (OSError, http.client.HTTPException) as e:
            raise Unreachable(
                f"the engine at {address} cannot be reached ({reason(e)}); check the URL and the "
                "network to it, and that cinder-engine runs there"
            ) from e
        finally:
            connection.close()


def _detail(answer: Any) -> str:
    """The words of a fault, as oVirt's API writes it."""
    fault = answer.get("fault", answer) if isinstance(answer, dict) else None
    detail = fault.get("detail") if isinstance(fault, dict) else None
    return detail if isinstance(detail, str) else ""
