"""What every test stands on."""

from __future__ import annotations

import gc
import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

HERE = Path(__file__).parent

# A shell starts what it puts into the background with Ctrl-C ignored, and so would every command that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# A busy machine is slow, which is no error, so that Hypothesis has no bound of time. In CI each run draws the same.
SLOW = [HealthCheck.too_slow]
settings.register_profile(
    "mlpy", deadline=None, derandomize="CI" in os.environ, suppress_health_check=SLOW, database=None
)
settings.load_profile("mlpy")

# What the tests import stays: to look through it while it grows takes a fifth of all that collecting them does.
gc.disable()


# The longest modules begin first, so that none of them is what is left at the end; of those that stand on the smoke
# experiment the second is not at once, for it runs once and is waited for.
FIRST = ("test_pipeline.py", "stages/test_train.py", "test_experiments.py", "test_remote.py", "bot/test_release.py")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {str(HERE / name): number for number, name in enumerate(FIRST)}
    items.sort(key=lambda item: order.get(str(item.path), len(FIRST)))


def pytest_collection_finish() -> None:
    gc.enable()
