"""What ``/metrics`` tells, in a registry of its own; labels are pipelines and statuses, never what clients make up."""

from __future__ import annotations

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
_ROWS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """Counters; where several workers share a folder for them (BentoML sets it up), any worker tells the sum."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        by = {"registry": self.registry}
        self.requests = Counter("ferroflow_requests", "Requests answered.", ["pipeline", "route", "status"], **by)
        self.seconds = Histogram(
            "ferroflow_request_seconds", "From the first byte to the answer.", ["pipeline"], buckets=_BUCKETS, **by
        )
        self.rows = Histogram("ferroflow_request_rows", "Rows a request.", ["pipeline"], buckets=_ROWS, **by)
        self.predictions = Counter("ferroflow_predictions_logged", "Predictions on the disk.", ["pipeline"], **by)
        self.labels = Counter("ferroflow_labels", "Labels that came back.", ["pipeline", "outcome"], **by)
        self.swaps = Counter("ferroflow_swaps", "Models that took over.", ["pipeline"], **by)
        newest = {**by, "multiprocess_mode": "livemax"}
        self.degraded = Gauge("ferroflow_degraded", "1: answers may not be the champion's.", ["pipeline"], **newest)
        self.version = Gauge("ferroflow_model_info", "1 for what answers.", ["pipeline", "version"], **newest)
        self.features = Counter(
            "ferroflow_features_missing", "Rows whose stored features were null.", ["pipeline", "view", "why"], **by
        )

        self.complete = Gauge(
            "ferroflow_features_complete_until_seconds",
            "Unix time up to which a view was complete when it was last read.",
            ["pipeline", "view"],
            **newest,
        )
        every = {**by, "multiprocess_mode": "livesum"}
        self.cache = Gauge(
            "ferroflow_features_cache",
            "Rows of a server's online store that a cache had, or had not, and how many it holds.",
            ["pipeline", "what"],
            **every,
        )

    def text(self) -> bytes:
        """All of it in Prometheus' text format."""
        if not os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            return generate_latest(self.registry)
        everyone = CollectorRegistry()
        MultiProcessCollector(everyone)
        return generate_latest(everyone)
