"""Waiting for a condition, however busy the machine is."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Any


async def until(condition: Callable[[], Any], seconds: float = 1800.0) -> None:
    """Wait until `condition` is true. `seconds` only ends a test that hangs."""
    async with asyncio.timeout(seconds):
        for pause in itertools.repeat(0.01):
            if condition():
                return
            await asyncio.sleep(pause)
