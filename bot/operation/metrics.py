"""What the bot counts, for Prometheus. Labels are few and never come from a message."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Info, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
LAG = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5, 1)


class Metrics:
    """One registry of its own, so that two bots in a process do not share it."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.messages = Counter(
            "mlpy_messages", "Messages with pictures, by what became of them", ["outcome"], registry=self.registry
        )
        self.pictures = Counter(
            "mlpy_pictures",
            "Pictures, by verdict and by how it was found",
            ["verdict", "origin"],
            registry=self.registry,
        )
        self.actions = Counter("mlpy_actions", "Actions by result", ["action", "result"], registry=self.registry)
        self.reviews = Counter("mlpy_reviews", "Moderators' clicks", ["choice", "result"], registry=self.registry)
        self.errors = Counter("mlpy_errors", "What went wrong, by where", ["where"], registry=self.registry)
        self.gateway = Counter("mlpy_gateway", "Connects, resumes, disconnects", ["event"], registry=self.registry)
        self.seconds = Histogram(
            "mlpy_picture_seconds", "From a picture's arrival to its verdict", buckets=SECONDS, registry=self.registry
        )
        self.lag = Histogram(
            "mlpy_loop_lag_seconds", "How late the event loop runs", buckets=LAG, registry=self.registry
        )
        self.queue = Gauge("mlpy_queue", "Pictures on their way to a verdict", registry=self.registry)
        self.waiting = Gauge("mlpy_store_waiting", "Rows that wait for the database", registry=self.registry)
        self.model = Info("mlpy_model", "The model that is served", registry=self.registry)

    def exposition(self) -> bytes:
        """All of it in Prometheus' text format."""
        return generate_latest(self.registry)
