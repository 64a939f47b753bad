"""Child processes with a time limit, and what may be shown of what they say."""

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

PATIENCE = 5
"""Seconds that a child has to remove its lock files before it is killed."""
DETAIL = 300
"""Characters shown of what a child said."""


@dataclass(frozen=True)
class Done:
    """How a child ended."""

    code: int
    out: bytes
    err: str
    """May hold passwords."""

    @property
    def said(self) -> str:
        """The line of `err` that tells most: of several git's verdict, else the last. Without passwords."""
        lines = [line.strip() for line in self.err.splitlines() if line.strip()]
        verdicts = [line for line in lines if line.startswith(("fatal: ", "error: "))]
        return _short((verdicts or lines or [f"exit code {self.code}"])[-1])


def redacted(text: str) -> str:
    """Without the user and password of any URL in it; rather a part of the path too than a part of a password."""
    return re.sub(r"(?<=://)\S*@", "", text)


def run(command: Sequence[str], limit: float, doing: str, given: bytes = b"") -> Done:
    """Run a command to its end, or for `limit` seconds.

    Args:
        command: the program and its arguments.
        limit: seconds.
        doing: what for, at the head of an error's sentence.
        given: its stdin.

    Raises:
        ModelError: if there is no such program, or it was stopped.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=_environment(),
            start_new_session=True,  # one group to stop, helpers included, and no terminal to ask a password at
        )
    except FileNotFoundError:
        raise ModelError(f"{doing} takes {command[0]}, which is not installed") from None
    except OSError as error:
        raise ModelError(f"{doing} failed ({error}); try again") from error
    _running.add(process)
    try:
        out, err = process.communicate(given, timeout=0 if _ending.is_set() else limit)
    except subprocess.TimeoutExpired:
        raise ModelError(
            f"{doing} took longer than {limit:g} s and was stopped; see whether the host answers, then try again"
        ) from None
    finally:
        _running.discard(process)
        _stop(process)
    return Done(process.returncode, out, err.decode(errors="replace"))


def stop_all() -> None:
    """End the children that other threads wait for, and each that begins later: the bot's own end waits for none."""
    _ending.set()
    for process in list(_running):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)


_running: set[subprocess.Popen[bytes]] = set()
_ending = threading.Event()


def ask(verb: str, request: Mapping[str, object], limit: float, doing: str, then: str) -> Mapping[str, Any]:
    """Put a request to `bot/model/dvc_worker.py`.

    Args:
        verb: a function of it.
        request: that function's arguments.
        limit: seconds.
        doing: what for, at the head of an error's sentence.
        then: what to do next, at its end.

    Raises:
        ModelError: if it has no answer.
    """
    script = Path(__file__).with_name("dvc_worker.py")
    command = [sys.executable, "-P", str(script)]  # -P: the modules beside the script are not to hide others' modules
    done = run(command, limit, doing, json.dumps({"verb": verb, **request}).encode())
    try:
        answer = json.loads(done.out)
        failure = answer.get("error")
    except ValueError:
        failure = done.said
    if failure:
        raise ModelError(f"{doing} failed ({_short(failure)}); {then}")
    return dict(answer)


def _environment() -> dict[str, str]:
    """Ours, without the bot's secrets, and what a git hook that started us would make git believe of where it is."""
    kept = {name: value for name, value in os.environ.items() if name not in _OF_A_HOOK and name not in _SECRET}
    return kept | {"GIT_TERMINAL_PROMPT": "0", "GIT_OPTIONAL_LOCKS": "0", "LC_ALL": "C.UTF-8"}


_SECRET = {"MLPY_DISCORD_TOKEN", "MLPY_BOT_DATABASE"}
_OF_A_HOOK = {"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX", "GIT_NAMESPACE", "GIT_OBJECT_DIRECTORY"}


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a child that still runs, and its helpers: first so that it removes its locks, then for good."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(PATIENCE)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe:
            with contextlib.suppress(OSError):
                pipe.close()


def _short(text: str) -> str:
    line = redacted(" ".join(text.split()))
    return line if len(line) <= DETAIL else line[: DETAIL - 3] + "..."
