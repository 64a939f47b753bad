"""Errors a user can mend, and how a command ends on one: one sentence, exit code 1, no traceback."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable
from typing import NoReturn

log = logging.getLogger(__name__)


class MLpyError(Exception):
    """What was wrong, where, and what to do next, in one sentence. Every error a user can mend derives from it."""


class ParamsError(MLpyError):
    """`params.yaml` or `conf/` holds a key or value that cannot be used; the message names the key."""


class SampleError(MLpyError):
    """The packages of the sample board's pictures cannot be had, or are not what they should be."""


class DumpError(MLpyError):
    """The board's dump is missing, cut off, of another kind, or lacks what a stage needs."""


class DatabaseError(MLpyError):
    """PostgreSQL could not be started or reached, or went away."""


class PolicyError(MLpyError):
    """The policy names a tag that the board lacks, or selects nothing."""


class CrawlError(MLpyError):
    """The board refuses the crawl, or more pictures failed than allowed."""


class PictureError(MLpyError):
    """A picture that cannot be judged. `reason` is `corrupt` or `too_large`."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class ModelError(MLpyError):
    """A model, its side-car or a checkpoint is missing, or does not fit the data or the code."""


def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a command's `main` and leave the process: 0, 1 on an `MLpyError`, 130 on Ctrl-C, 143 on SIGTERM.

    Anything else is a defect of ours and keeps its traceback.
    """
    logging.basicConfig(level=os.environ.get("MLPY_LOG", "INFO"), format="%(message)s", stream=sys.stderr)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that `finally` blocks run and servers stop
    try:
        code = main() or 0
    except MLpyError as error:
        log.error("error: %s", error)
        code = 1
    except KeyboardInterrupt:
        log.error("stopped by Ctrl-C; what was finished is kept")
        code = 130
    sys.exit(code)
