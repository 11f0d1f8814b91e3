# SPDX-License-Identifier: GPL-2.0-or-later
"""/health and /metrics: what whoever watches the engine asks. Nobody needs to log in for them.

They tell of numbers and states, and of no name, so that they are nobody's secret.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping

from aiohttp import web
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric

# A part that takes longer is unwell.
DEADLINE_S = 3.0

# Asks a part how it is: what is wrong, in one sentence; empty where nothing is.
Check = Callable[[], Awaitable[str]]
# Counts: the number of objects by kind and status.
Counts = Callable[[], Awaitable[Mapping[tuple[str, str], int]]]


class Pages:
    """Both of them. checks: by the name of the part. expiries: ends of certificates, in ms."""

    def __init__(
        self,
        checks: Mapping[str, Check],
        counts: Counts,
        expiries: Callable[[], Mapping[str, int]],
        version: str,
    ) -> None:
        self._checks = checks
        self._counts = counts
        self._expiries = expiries
        self._version = version
        self._process = CollectorRegistry()
        ProcessCollector(registry=self._process)
        PlatformCollector(registry=self._process)

    def add_to(self, application: web.Application) -> None:
        """Serve them."""
        application.router.add_get("/health", self.health)
        application.router.add_get("/metrics", self.metrics)

    async def health(self, request: web.Request) -> web.Response:
        """200 and "ok", or 503 and what is wrong with which part."""
        wrong = await self.wrong()
        body = {"status": "unwell" if wrong else "ok", "parts": wrong, "version": self._version}
        return web.json_response(body, status=503 if wrong else 200)

    async def wrong(self) -> dict[str, str]:
        """What is wrong, by the parts that something is wrong with."""
        answers = await asyncio.gather(*map(_told, self._checks.values()))
        return {name: told for name, told in zip(self._checks, answers, strict=True) if told}

    async def metrics(self, request: web.Request) -> web.Response:
        """In the format of Prometheus."""
        registry = CollectorRegistry()
        registry.register(_Fixed([*self._own(), *_objects(await self._counts())]))
        body = generate_latest(registry) + generate_latest(self._process)
        return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_LATEST})

    def _own(self) -> list[Metric]:
        built = GaugeMetricFamily(
            "cinder_engine_build_info", "Version of the program", labels=["version"]
        )
        built.add_metric([self._version], 1)
        ends = GaugeMetricFamily(
            "cinder_engine_certificate_expiry_timestamp_seconds",
            "End of a certificate of the engine's",
            labels=["certificate"],
        )
        for name, end_ms in self._expiries().items():
            ends.add_metric([name], end_ms / 1000)
        return [built, ends]


class _Fixed:
    """Metrics that are known already, as a registry wants them."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = list(metrics)

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def _objects(counts: Mapping[tuple[str, str], int]) -> list[Metric]:
    family = GaugeMetricFamily(
        "cinder_engine_objects", "Objects by kind and status", labels=["kind", "status"]
    )
    for labels, count in counts.items():
        family.add_metric(list(labels), count)
    return [family]


async def _told(check: Check) -> str:
    try:
        async with asyncio.timeout(DEADLINE_S):
            return await check()
    except TimeoutError:
        return f"does not answer within {DEADLINE_S:g} s"
