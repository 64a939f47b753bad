"""Prometheus metrics. Labels have few values, and none comes from a message."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

PICTURE_BUCKETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
LAG_BUCKETS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1)


class Metrics:
    """All metrics, in a registry of their own so that two bots in one process do not share it.

    Dashboards and alerts depend on the names and the labels: never change them.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(name, text, labels, registry=registry)

        self.messages = counter("mlpy_messages", "Messages with pictures, by outcome", "outcome")
        self.pictures = counter("mlpy_pictures", "Pictures, by verdict and its origin", "verdict", "origin")
        self.actions = counter("mlpy_actions", "Actions, by result", "action", "result")
        self.reviews = counter("mlpy_reviews", "Clicks on review buttons, by choice and result", "choice", "result")
        self.recovered = counter("mlpy_recovered", "Work of an earlier time, by kind and result", "kind", "result")
        self.errors = counter("mlpy_errors", "Errors, by component", "where")
        self.gateway = counter("mlpy_gateway", "Gateway connects, resumes and disconnects", "event")
        self.seconds = Histogram(
            "mlpy_picture_seconds",
            "Seconds from a message to the verdicts on its pictures",
            buckets=PICTURE_BUCKETS,
            registry=registry,
        )
        self.lag = Histogram(
            "mlpy_loop_lag_seconds", "Delay of the event loop in seconds", buckets=LAG_BUCKETS, registry=registry
        )
        self.queue = Gauge("mlpy_queue", "Pictures in progress", registry=registry)
        self.waiting = Gauge("mlpy_store_waiting", "Rows waiting for the database", registry=registry)
        self.store_errors = Gauge("mlpy_store_errors", "Failed statements since the start", registry=registry)
        self.model = Info("mlpy_model", "The model that is serving", registry=registry)

    def exposition(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)
