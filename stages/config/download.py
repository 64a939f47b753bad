"""Parameters of the download stage."""

from __future__ import annotations

import dataclasses
from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field

from stages.workspace.parameters import Count, PathText, Positive, Share, section


@section
class Faults:
    """Faults that the sample board simulates: the share of pictures whose first response each one spoils."""

    throttled: Share = 0.0
    """Answers 429 with Retry-After."""
    overloaded: Share = 0.0
    """Answers 501 with HTML."""
    unavailable: Share = 0.0
    """Answers 503."""
    cut_off: Share = 0.0
    """Closes the connection halfway."""
    slow: Share = 0.0
    """Waits before it answers."""

    def __post_init__(self) -> None:
        if (total := sum(dataclasses.astuple(self))) > 1:
            raise ValueError(f"the shares of faults add up to {total:g}, more than 1")


@section
class Folder:
    """A folder of labelled pictures, if the host serves one; else empty: `data/folder/dvc.yaml` has a stage a key."""

    pictures: PathText = ""
    """Path of the folder."""


@section
class Download:
    host: Literal["stages/sample", "stages/folder", "stages/crawl/remote.py"]
    """The code behind the picture host, and so a dep of the stage: the local server of the sample board or of a folder,
    or a host on the network."""
    hosts: Annotated[list[str], Field(min_length=1)]
    """Hosts that may be requested; redirects to any other are refused."""
    rate: Positive
    """Most requests per second."""
    concurrency: Count
    """Most requests at the same time."""
    tries: Count
    """Attempts for each picture in one run; the next run tries again."""
    timeout: Positive
    """Seconds for one response, body included."""
    backoff: Positive
    """Upper bound of the first wait after a failure, in seconds; it doubles with each attempt, up to `max_wait`."""
    max_wait: Positive
    """Longest wait before another attempt, in seconds."""
    pause_overloaded: Positive
    """Seconds that the whole crawl pauses after a 501."""
    pause_blocked: Positive
    """Seconds that the whole crawl pauses after an empty 500: a request during the block would extend it."""
    max_bytes: Count
    """Largest file to download."""
    max_pixels: Count
    """Largest picture to decode."""
    max_failed: Share
    """Share of pictures that may fail; above it the stage fails."""
    shard_size: Count
    """Length of the id range that a shard covers."""
    contact: Annotated[str, Field(pattern=r"^[ -~]+$")] | None = None
    """How the board's staff can reach you: an e-mail address or a web page, sent in the User-Agent header."""
    folder: Folder = field(default_factory=Folder)
    """For `stages/folder` only."""
    faults: Faults = field(default_factory=Faults)
    """For the sample board only."""

    def __post_init__(self) -> None:
        if bool(self.folder.pictures) != (self.host == "stages/folder"):
            raise ValueError("download.folder.pictures and the host stages/folder need each other; set source=folder")
