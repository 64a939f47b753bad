"""Parameters of the download stage."""

from __future__ import annotations

import dataclasses
from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field

from stages.workspace.parameters import Count, Positive, Share, section


@section
class Faults:
    """Shares of first answers that the sample board spoils, as a real board does on a bad day."""

    throttled: Share = 0.0
    """429 with Retry-After."""
    overloaded: Share = 0.0
    """501 with html."""
    unavailable: Share = 0.0
    """503."""
    cut_off: Share = 0.0
    slow: Share = 0.0

    def __post_init__(self) -> None:
        if (total := sum(dataclasses.astuple(self))) > 1:
            raise ValueError(f"the shares of first answers to spoil sum to {total:g}, over 1")


@section
class Download:
    host: Literal["stages/sample", "stages/crawl/remote.py"]
    """The code that opens the picture host, and so a dep of the stage: the sample board's on loopback, or one that is
    out on the network."""
    hosts: Annotated[list[str], Field(min_length=1)]
    """The only hosts that are ever asked."""
    rate: Positive
    """Requests a second, at most."""
    concurrency: Count
    tries: Count
    timeout: Positive
    """Seconds for one answer, in all."""
    backoff: Positive
    """Seconds: the first wait's upper bound; it doubles with each try, up to `max_wait`."""
    max_wait: Positive
    pause_overloaded: Positive
    """Seconds that the whole crawl stops for after a 501."""
    pause_blocked: Positive
    """Seconds that the whole crawl stops for after an empty 500: each request meanwhile would restart the block."""
    max_bytes: Count
    max_pixels: Count
    max_failed: Share
    """Share of pictures that may fail before the stage does."""
    shard_size: Count
    """Ids that a shard covers."""
    contact: Annotated[str, Field(pattern=r"^[ -~]+$")] | None = None
    """An address for the board's staff to write to, sent in the User-Agent."""
    faults: Faults = field(default_factory=Faults)
