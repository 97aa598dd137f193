"""What the server counts, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from gp.serve.events import Begun, Ended

SECONDS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
CONTENT_TYPE = CONTENT_TYPE_LATEST


class Metrics:
    """Counters of one server, in a registry of their own.

    Args:
        num_open: requests that are worked on or wait.
        restarts: workers started again.
    """

    def __init__(self, num_open: Callable[[], int], restarts: Callable[[], int]) -> None:
        self.registry = CollectorRegistry()
        kwargs: dict[str, Any] = {"registry": self.registry}
        self._requests = Counter("gp_requests", "Chat completions, by HTTP status", ["status"], **kwargs)
        self._first = Histogram("gp_first_token_seconds", "From arrival to prefill's end", buckets=SECONDS, **kwargs)
        self._whole = Histogram("gp_answer_seconds", "From arrival to the whole answer", buckets=SECONDS, **kwargs)
        self._batch = Histogram("gp_batch_requests", "Requests answered together", buckets=BATCHES, **kwargs)
        self._tokens = Counter("gp_tokens", "Tokens, by kind", ["kind"], **kwargs)
        Gauge("gp_requests_open", "Requests worked on or waiting", **kwargs).set_function(num_open)
        Gauge("gp_worker_restarts", "Workers started again", **kwargs).set_function(restarts)

    def begun(self, event: Begun, seconds: float) -> None:
        """Counts a prompt that has been prefilled, so many seconds after its arrival."""
        self._first.observe(seconds)
        self._batch.observe(event.batch)
        counts = (event.prompt_tokens, event.visual_all, event.visual_kept)
        for kind, count in zip(("prompt", "visual", "visual_kept"), counts):
            self._tokens.labels(kind).inc(count)

    def ended(self, event: Ended, seconds: float) -> None:
        """Counts a whole answer."""
        self._whole.observe(seconds)
        self._tokens.labels("completion").inc(event.tokens)

    def status(self, status: int) -> None:
        """Counts a request by how it was answered; 499: the client went away."""
        self._requests.labels(str(status)).inc()

    def page(self) -> bytes:
        """All of it, as Prometheus reads it."""
        return generate_latest(self.registry)
