"""Fixtures that make pictures and side-cars."""

from __future__ import annotations

import io
from collections.abc import Callable

import pytest
from PIL import Image

from stages.inference.sidecar import Sidecar


def made(
    kind: str = "binary",
    labels: tuple[str, ...] = ("flagged", "clean"),
    thresholds: dict[str, float] | None = None,
    size: int = 32,
) -> Sidecar:
    return Sidecar(
        name="house",
        kind=kind,
        labels=labels,
        size=size,
        background=128,
        thresholds={"flagged": 0.5} if thresholds is None else thresholds,
        calibration={"temperature": 1.0, "bias": [0.0], "threshold_objective": "f1", "target_rate": None},
        policy={"name": "house", "kind": kind, "labels": list(labels), "note": "Größe"},
        data={"train": "0" * 32, "val": "1" * 32},
        code="unknown",
        params={"model": {"name": "probe"}},
        metrics={"auroc": 0.9},
    )


@pytest.fixture(scope="session")
def sidecar() -> Callable[..., Sidecar]:
    """Makes a side-car: `sidecar(kind, labels, thresholds, size)`."""
    return made


def encoded_in(colour: object, kind: str = "PNG", side: int = 40, height: int | None = None) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, height or side), colour).save(file, kind)
    return file.getvalue()


@pytest.fixture(scope="session")
def encoded() -> Callable[..., bytes]:
    """Makes a picture file, by default a square: `encoded("red", "JPEG", side=100, height=50)`."""
    return encoded_in
