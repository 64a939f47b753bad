"""What a command costs: seconds and memory, its programs' included."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

WATCH = """
import json, resource, subprocess, sys, time
start = time.perf_counter()
code = subprocess.call(sys.argv[2:])
took, used = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
told = {"code": code, "seconds": took, "cpu": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss}
json.dump(told, open(sys.argv[1], "w"))
"""
"""Runs a command from a process so small that the command's peak of memory does not begin at ours."""


@dataclass(frozen=True)
class Watched:
    """A command that ended."""

    code: int
    seconds: float
    """By the clock."""
    cpu: float
    """Seconds of the command and of all that it waited for, but no server."""
    megabytes: float
    """The greatest memory of any one of these processes."""


def watch(
    words: Sequence[str | Path], folder: Path, environment: Mapping[str, str], said: IO[str] | None = None
) -> Watched:
    """Run a command in a folder, to its end. `said`: takes what it prints; None: our own output does."""
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        small = [sys.executable, "-I", "-S", "-c", WATCH, report.name, *words]
        subprocess.run(small, cwd=folder, env=environment, stdout=said, stderr=said, check=True)
        told = json.load(report)
    megabytes = told.pop("peak") / (2**20 if sys.platform == "darwin" else 2**10)
    return Watched(**told, megabytes=megabytes)
