"""A small repository with what a release takes: a DVC pipeline with a remote, and real models and side-cars."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tiny import redness

BIN = Path(sys.executable).parent
CONFIG = """[core]
    analytics = false
    check_update = false
    remote = storage
[cache]
    type = "reflink,hardlink,copy"
['remote "storage"']
    url = {storage}
"""
PIPELINE = """artifacts:
  moderator:
    type: model
    path: models/moderator.onnx
stages:
  train:
    cmd: mkdir -p models && cp source/moderator.* models/
    deps: [source]
    outs: [models/moderator.onnx, models/moderator.json]
"""


def run(folder: Path, *command: str, **variables: str) -> str:
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", **variables}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


class Project:
    """A git repository that trains such models, with DVC's remote in the folder `storage`."""

    def __init__(self, folder: Path, storage: Path) -> None:
        self.folder = folder
        self.storage = storage

    @classmethod
    def begin(cls, folder: Path, storage: Path) -> Project:
        folder.mkdir()
        run(folder, "git", "init", "--quiet", "--initial-branch=main")
        run(folder, "dvc", "init", "--quiet")
        (folder / ".dvc/config").write_text(CONFIG.format(storage=storage))
        (folder / "dvc.yaml").write_text(PIPELINE)
        return cls(folder, storage)

    def copy(self, folder: Path) -> Project:
        """With its cache, on the same remote."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return Project(folder, self.storage)

    def clone(self, folder: Path) -> Project:
        """As on another machine: without its cache."""
        self.git("clone", "--quiet", str(self.folder), str(folder))
        return Project(folder, self.storage)

    def git(self, *words: str) -> str:
        return run(self.folder, "git", *words)

    def commit(self, message: str = "x") -> str:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", message)
        return self.git("rev-parse", "HEAD")

    def train(self, sharpness: float) -> str:
        """The commit of a model."""
        redness(self.folder / "source/moderator.onnx", sharpness)
        run(self.folder, "dvc", "repro", "--quiet")
        return self.commit(f"sharpness {sharpness}")

    def push(self) -> None:
        """The models of all commits, to the remote."""
        run(self.folder, "dvc", "push", "--quiet", "--all-commits")

    def gto(self, *words: str) -> None:
        """Its tags are dated in whole seconds, and what happens in one second has no order: so each has its own."""
        time.sleep(1.01 - time.time() % 1)
        run(self.folder, "gto", *words)

    def tag(self, name: str, rev: str, date: int) -> None:
        """A tag as gto makes it, in a hundredth of the time."""
        when = {"GIT_COMMITTER_DATE": f"{1_700_000_000 + date} +0000"}
        run(self.folder, "git", "tag", "--annotate", "--message", "x", name, rev, **when)

    @property
    def url(self) -> str:
        return f"file://{self.folder}"
