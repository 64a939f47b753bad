"""A clone of this checkout, with real DVC in it, for tests of the whole."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import forks
import psutil
import pytest
from filelock import FileLock

from stages.workspace.cache import cache_root

ROOT = Path(__file__).parents[1]


class Clone:
    """A clone of this checkout, with what is not committed yet, and a cache root of its own; or the one in `folder`.

    In `environment` each stage runs on a new Python, as a user's does; in `forking`, those that import torch are forks.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "a clone"
        self.environment = {
            **os.environ,
            "MLPY_CACHE": str(folder / "cache"),
            "PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}",
        }
        if not self.folder.exists():
            self._make(folder)

    def _make(self, folder: Path) -> None:
        # An identity of its own: DVC's experiments are commits, and a new machine's git has none.
        identity = ["--config", "user.name=test", "--config", "user.email=test@localhost"]
        subprocess.run(["git", "clone", "-q", "--no-hardlinks", *identity, str(ROOT), str(self.folder)], check=True)
        self._bring_uncommitted_changes()
        (folder / "cache").mkdir()
        # The sample board's pictures are the same for every clone; the crawl, the database and the features are not.
        (cache_root() / "sample").mkdir(exist_ok=True)
        (folder / "cache/sample").symlink_to(cache_root() / "sample")

    def _bring_uncommitted_changes(self) -> None:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--modified", "--others", "--exclude-standard"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        )
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                (self.folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(ROOT / name, self.folder / name)
            else:
                (self.folder / name).unlink(missing_ok=True)
        self.run("git", "add", "--all")
        self.run("git", "commit", "--allow-empty", "-qm", "As it stands")

    @property
    def forking(self) -> dict[str, str]:
        return {**self.environment, "PATH": f"{forks.forking(*forks.TRAINING)}:{self.environment['PATH']}"}

    def run(self, *command: str, forking: bool = False) -> str:
        if (
            command[0] == "dvc"
        ):  # which else waits three seconds for another DVC to finish, and a busy machine takes longer
            command = ("dvc", "--wait-for-lock", *command[1:])
        done = subprocess.run(
            command,
            cwd=self.folder,
            env=self.forking if forking else self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def experiment(self, *overrides: str, forking: bool = False) -> set[str]:
        """`dvc exp run` of the smoke experiment with more overrides -> the stages that really ran."""
        words = [word for override in ("experiment=smoke", *overrides) for word in ("-S", override)]
        return set(
            re.findall(r"Running stage '(?:[\w/.]+:)?(\w+)'", self.run("dvc", "exp", "run", *words, forking=forking))
        )

    def json(self, path: Path) -> Any:
        return json.loads((self.folder / path).read_text())


def ended(processes: Iterable[psutil.Process]) -> None:
    """Return when all of these processes have ended."""
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
                time.sleep(0.02)


def after_smoke(factory: pytest.TempPathFactory) -> Clone:
    """A clone in which the smoke experiment ran, to do with as one likes: a copy of one that is made once a session."""
    # All of pytest-xdist's processes have their folders in one.
    session = factory.getbasetemp().parent if "PYTEST_XDIST_WORKER" in os.environ else factory.getbasetemp()
    first, ran = session / "after smoke", session / "smoke ran"
    with FileLock(session / "smoke.lock"):
        if not ran.exists():
            shutil.rmtree(first, ignore_errors=True)
            first.mkdir()
            assert Clone(first).experiment() >= {"restore", "extract", "download", "split", "train", "test"}
            ran.touch()
    copy = factory.mktemp("copy")
    # Links stay links, and PostgreSQL's files its user's.
    subprocess.run(["cp", "-a", f"{first}/.", str(copy)], check=True)
    return Clone(copy)
