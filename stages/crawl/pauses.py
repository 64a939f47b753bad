"""Pauses that a host asked for, kept in the cache root: an impatient restart does not renew a block."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from stages.crawl.pace import LONGEST
from stages.workspace.cache import cache_root
from stages.workspace.files import replacing


class HostPause(NamedTuple):
    """A pause of the whole crawl."""

    seconds: float
    """That are left."""
    host: str
    reason: str


def keep(pause: HostPause) -> None:
    """Keep a pause that begins now, unless the host has a longer one."""
    known = _kept(pause.host)
    if known is None or known.seconds < pause.seconds:
        with replacing(_file(pause.host)) as aside:
            aside.write_text(json.dumps({"until": time.time() + pause.seconds, "reason": pause.reason}))


def longest(hosts: Iterable[str]) -> HostPause | None:
    """The longest pause of these hosts that is not over; a damaged file is none."""
    return max(filter(None, map(_kept, hosts)), default=None)


def _file(host: str) -> Path:
    return cache_root() / f"crawl-{host}.pause"


def _kept(host: str) -> HostPause | None:
    with contextlib.suppress(FileNotFoundError, IsADirectoryError, ValueError, TypeError, LookupError, OverflowError):
        values = json.loads(_file(host).read_text(encoding="utf-8"))
        seconds = float(values["until"]) - time.time()
        # The clock may have been set back meanwhile.
        if math.isfinite(seconds) and seconds > 0:
            return HostPause(min(seconds, LONGEST), host, str(values["reason"])[:200])
    return None
