"""Downloaded bytes -> whether they are a picture: decoded as all later stages do, in a process of their own."""

from __future__ import annotations

import hashlib

from stages.config.download import Download
from stages.crawl.results import DownloadResult
from stages.inference.decoding import Caps, check
from stages.inference.processes import Limits, Processes
from stages.workspace.errors import PictureError

SECONDS = 5.0
"""CPU time for one picture; the largest that a board accepts takes about one second."""
PIXEL_BYTES = 20
"""Memory for each pixel of `download.max_pixels`: what WebP takes, which needs most."""
OVERHEAD = 64_000_000


def decoding_limits(params: Download) -> Limits:
    """What decoding one downloaded picture may take."""
    return Limits(SECONDS, params.max_pixels * PIXEL_BYTES + 3 * params.max_bytes + OVERHEAD)


async def check_picture(processes: Processes, data: bytes, caps: Caps) -> DownloadResult:
    """The result of a response with these bytes: `ok`, `corrupt`, `too_large`, or `timed_out` in decoding."""
    try:
        kind, width, height = await processes.run(check, data, caps)
    except PictureError as error:
        return DownloadResult(error.reason, 200, error.detail)
    return DownloadResult("ok", 200, None, width, height, kind, hashlib.sha256(data).hexdigest())
