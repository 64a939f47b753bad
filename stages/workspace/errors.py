"""Errors that a user can fix, and how a command exits on one: one sentence, exit code 1, no traceback."""

from __future__ import annotations

import atexit
import functools
import logging
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from stages.workspace.stopping import Stop
from stages.workspace.storage import storage_trouble

log = logging.getLogger(__name__)


class MLpyError(Exception):
    """Base class of all errors that a user can fix. The message says what was wrong, where, and what to do next."""


class ParamsError(MLpyError):
    """A key or value in `params.yaml` or `conf/` is invalid; the message names the key."""


class SampleError(MLpyError):
    """The sample board's packages cannot be fetched, or fail their checks."""


class FolderError(MLpyError):
    """A folder of labelled pictures, its metadata, or a policy for its labels cannot be used."""


class DumpError(MLpyError):
    """The board's dump is missing, damaged, in another format, or lacks what a stage needs.

    Args:
        problem: what is wrong, and with which file.
        remedy: what to do about it.
    """

    def __init__(self, problem: str, remedy: str) -> None:
        super().__init__(f"{problem}: {remedy}")
        self.problem = problem


class DatabaseError(MLpyError):
    """PostgreSQL did not start, cannot be reached, or closed the connection."""


class PolicyError(MLpyError):
    """The policy names a tag that the board does not have, or a label matches no image."""


class CorrectionsError(MLpyError):
    """The file of corrections cannot be read, or a row of it does not fit the board or the policy.

    Args:
        path: of the file.
        line: that is wrong, from 1; 0 for the file as a whole.
        problem: what is wrong with it.
        remedy: what to do about it.
    """

    def __init__(self, path: Path, line: int, problem: str, remedy: str) -> None:
        super().__init__(f"{path}{f', line {line}' if line else ''}: {problem}; {remedy}")


class CrawlError(MLpyError):
    """The board refused the crawl, more pictures failed than allowed, or stored pictures are damaged."""


class PictureError(MLpyError):
    """A picture cannot be used. `reason` is `corrupt`, `too_large`, or `timed_out`: decoding it takes too long."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class ModelError(MLpyError):
    """A model, its side-car or a checkpoint is missing, or does not match the data or the code."""


WAY_BACK = (
    "`dvc exp run` has written its parameters to params.yaml, and deleted the outs of the stage that did not finish: "
    "run it again to continue, or go back to the last commit with "
    "`git restore params.yaml dvc.lock data && dvc checkout`"
)


def _with_way_back(
    run: Callable[[Callable[[], int | None]], NoReturn],
) -> Callable[[Callable[[], int | None]], NoReturn]:
    """Have a stage that fails or is stopped say last how to come back, if `dvc exp run` started it in the workspace."""

    @functools.wraps(run)
    def wrapped(main: Callable[[], int | None]) -> NoReturn:
        def noted() -> int | None:
            code = main()
            if not code:
                atexit.unregister(_say_way_back)
            return code

        atexit.register(_say_way_back)
        run(noted)

    return wrapped


def _say_way_back() -> None:
    # A queued experiment has a folder of its own, which DVC removes.
    if "DVC_EXP_NAME" in os.environ and os.environ.get("DVC_ROOT") == os.getcwd():  # noqa: PTH109 (text is compared)
        log.error(WAY_BACK)


@_with_way_back
def run(main: Callable[[], int | None]) -> NoReturn:
    """Run a command's `main` and exit: with its exit code, 130 on Ctrl-C, 143 on SIGTERM.

    An `MLpyError`, or a disk or folder that cannot be used, is one sentence and exit code 1. Any other exception is a
    bug and keeps its traceback. After a signal nothing else counts: other errors are its consequences.
    """
    logging.basicConfig(level=os.environ.get("MLPY_LOG", "INFO"), format="%(message)s", stream=sys.stderr)
    stop = Stop()
    stop.listen()
    try:
        code = main() or 0
    except BaseException as error:
        if not stop.number:
            code = _exit_code(error)
    finally:
        stop.leave()
    if stop.number == signal.SIGINT:
        log.error("interrupted; finished work is kept")
    sys.exit(stop.exit_code or code)


def _exit_code(error: BaseException) -> int:
    """The exit code for an error, after its sentence is logged; a bug is raised again."""
    sentence = str(error) if isinstance(error, MLpyError) else storage_trouble(error)
    if not sentence:
        raise error
    log.error("error: %s", sentence)
    return 1
