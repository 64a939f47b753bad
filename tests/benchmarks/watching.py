"""Measure a command's time and memory, including its child processes."""

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
report = {"code": code, "seconds": took, "cpu": used.ru_utime + used.ru_stime, "peak": used.ru_maxrss}
json.dump(report, open(sys.argv[1], "w"))
"""
"""Starts a command from a small process: a child's peak memory begins with its parent's size."""


@dataclass(frozen=True)
class Watched:
    """A finished command."""

    code: int
    seconds: float
    """Wall-clock time."""
    cpu: float
    """CPU seconds of the command and its child processes, but not of servers."""
    megabytes: float
    """Peak memory of the largest of these processes."""


def watch(
    words: Sequence[str | Path], folder: Path, environment: Mapping[str, str], output: IO[str] | None = None
) -> Watched:
    """Run a command in a folder. `output` receives what it prints; by default our own output does."""
    with tempfile.NamedTemporaryFile(suffix=".json") as report:
        small = [sys.executable, "-I", "-S", "-c", WATCH, report.name, *words]
        subprocess.run(small, cwd=folder, env=environment, stdout=output, stderr=output, check=True)
        measured = json.load(report)
    megabytes = measured.pop("peak") / (2**20 if sys.platform == "darwin" else 2**10)
    return Watched(**measured, megabytes=megabytes)
