"""Subprocesses with a time limit, and errors from their output without passwords."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.inference import ModelError

STOP_SECONDS = 5
"""Time for a subprocess to remove its lock files after SIGTERM, before it is killed."""
MAX_DETAIL = 300
"""Characters of a subprocess's output in an error."""
SECRET_VARIABLES = {"MLPY_DISCORD_TOKEN", "MLPY_BOT_DATABASE"}
GIT_HOOK_VARIABLES = {
    "GIT_DIR",
    "GIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_PREFIX",
    "GIT_NAMESPACE",
    "GIT_OBJECT_DIRECTORY",
}
"""What git sets for its hooks. A git that a hook starts would work on the hook's repository instead of ours."""

_running: set[subprocess.Popen[bytes]] = set()
_stopping = threading.Event()


@dataclass(frozen=True)
class SubprocessResult:
    """How a subprocess ended."""

    returncode: int
    stdout: bytes
    stderr: str
    """May contain passwords."""

    @property
    def summary(self) -> str:
        """The most informative line of `stderr`: git's last fatal error, otherwise the last line. Without passwords."""
        lines = [line.strip() for line in self.stderr.splitlines() if line.strip()]
        errors = [line for line in lines if line.startswith(("fatal: ", "error: "))]
        return _shorten((errors or lines or [f"exit code {self.returncode}"])[-1])


def redacted(text: str) -> str:
    """A text without the user and password of any URL in it. In doubt, a part of the path is removed, too."""
    return re.sub(r"(?<=://)\S*@", "", text)


def run(command: Sequence[str], limit: float, purpose: str, stdin: bytes = b"") -> SubprocessResult:
    """Run a command and wait for its end.

    Args:
        command: the program and its arguments.
        limit: seconds before it is stopped.
        purpose: begins the sentence of an error, such as "fetching https://...".
        stdin: its input.

    Raises:
        ModelError: if the program is missing, cannot be started, or takes too long.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
            start_new_session=True,  # one process group to stop with all its helpers, and no terminal for prompts
        )
    except FileNotFoundError:
        raise ModelError(f"{purpose} needs {command[0]}, which is not installed; install it") from None
    except OSError as error:
        raise ModelError(f"{purpose} failed ({error}); try again") from error
    _running.add(process)
    try:
        stdout, stderr = process.communicate(stdin, timeout=0 if _stopping.is_set() else limit)
    except subprocess.TimeoutExpired:
        raise ModelError(
            f"{purpose} took longer than {limit:g} s; check that the host answers, then try again"
        ) from None
    finally:
        _running.discard(process)
        _stop(process)
    return SubprocessResult(process.returncode, stdout, stderr.decode(errors="replace"))


def stop_all() -> None:
    """Stop all subprocesses, current and future, so that the bot can exit without waiting for them."""
    _stopping.set()
    for process in list(_running):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)


def call_dvc_worker(
    function: str, arguments: Mapping[str, object], limit: float, purpose: str, advice: str
) -> Mapping[str, Any]:
    """Call a function of `bot/model/dvc_worker.py` in a subprocess.

    Args:
        function: its name.
        arguments: its keyword arguments.
        limit: seconds before it is stopped.
        purpose: begins the sentence of an error.
        advice: ends it: what to do next.

    Raises:
        ModelError: if the call fails.
    """
    script = Path(__file__).with_name("dvc_worker.py")
    command = [sys.executable, "-P", str(script)]  # -P: modules beside the script must not hide installed ones
    result = run(command, limit, purpose, json.dumps({"function": function, **arguments}).encode())
    try:
        answer = json.loads(result.stdout)
        failure = answer.get("error")
    except ValueError:
        failure = result.summary
    if failure:  # of gto or DVC, or of Python itself if there is no answer
        raise ModelError(f"{purpose} failed ({_shorten(failure)}); {advice}")
    return dict(answer)


def _environment() -> dict[str, str]:
    """The bot's environment without its secrets and without variables of a git hook that started the bot."""
    removed = SECRET_VARIABLES | GIT_HOOK_VARIABLES
    # Never a prompt for a password, no optional locks in somebody's working tree, and messages in English.
    inherited = {name: value for name, value in os.environ.items() if name not in removed}
    return inherited | {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C.UTF-8"}


def _stop(process: subprocess.Popen[bytes]) -> None:
    """Stop a subprocess and its helpers, if it still runs: SIGTERM, so that it removes its locks, then SIGKILL."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
    # A helper that outlived its parent may still hold the other ends open; do not wait for it.
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe:
            with contextlib.suppress(OSError):
                pipe.close()


def _shorten(text: str) -> str:
    line = redacted(" ".join(text.split()))
    return line if len(line) <= MAX_DETAIL else line[: MAX_DETAIL - 3] + "..."
