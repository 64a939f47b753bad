"""What every test stands on."""

from __future__ import annotations

import gc
import signal

# A shell starts what it puts into the background with Ctrl-C ignored, and so would every command that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# What the tests import stays: to look through it while it grows takes a fifth of all that collecting them does.
gc.disable()


def pytest_collection_finish() -> None:
    gc.enable()
