"""Numbers for Prometheus."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """What a server has done; each server has a registry of its own."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "slowwave_requests", "Requests answered", ["route", "status"], registry=registry
        )
        self.tokens_read = Counter(
            "slowwave_tokens_read", "Tokens that were told and read", registry=registry
        )
        self.tokens_remembered = Counter(
            "slowwave_tokens_remembered",
            "Tokens that requests repeated and memories had already",
            registry=registry,
        )
        self.tokens_written = Counter(
            "slowwave_tokens_written", "Tokens of replies", registry=registry
        )
        self.sleeps = Counter(
            "slowwave_sleeps", "Sleeps by what called for them", ["trigger"], registry=registry
        )
        self.sleep_seconds = Counter(
            "slowwave_sleep_seconds", "Seconds of work on sleeps", registry=registry
        )
        self.first_token = Histogram(
            "slowwave_first_token_seconds",
            "Seconds from a request to the first token of its reply",
            buckets=SECONDS,
            registry=registry,
        )

    def watch(self, name: str, what: str, value: Callable[[], float]) -> None:
        """A gauge that is looked up when it is asked for."""
        Gauge(f"slowwave_{name}", what, registry=self._registry).set_function(value)

    def text(self) -> bytes:
        """All of it in Prometheus' format."""
        return generate_latest(self._registry)
