"""Downloaded bytes -> whether they are a picture: decoded as all later stages do, in a process of their own."""

from __future__ import annotations

import hashlib

from stages.config.download import Download
from stages.crawl.results import DownloadResult
from stages.inference.decoding import Caps, check
from stages.inference.processes import Limits, Processes
from stages.workspace.errors import PictureError


def decoding_limits(params: Download) -> Limits:
    """What decoding one downloaded picture may take."""
    return Limits.of_pictures(params.max_bytes, params.max_pixels)


async def check_picture(processes: Processes, data: bytes, caps: Caps) -> DownloadResult:
    """The result of a response with these bytes: `ok`, `corrupt`, `too_large`, or `timed_out` in decoding."""
    try:
        kind, width, height = await processes.run(check, data, caps)
    except PictureError as error:
        return DownloadResult(error.reason, 200, error.detail)
    return DownloadResult("ok", 200, None, width, height, kind, hashlib.sha256(data).hexdigest())
