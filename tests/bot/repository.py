"""A small repository with what a release takes: a DVC pipeline with a remote, gto's tags, and real models."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

from tiny import redness

BIN = Path(sys.executable).parent
IDENTITY = {
    f"GIT_{role}_{what}": value
    for role in ("AUTHOR", "COMMITTER")
    for what, value in (("NAME", "test"), ("EMAIL", "test@localhost"))
}
LONG_AGO = 1_600_000_000
"""When everything is committed; gto tells a version's events by their dates, so that its tags are later."""
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
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(folder.parent)}
    environment |= IDENTITY | variables
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout.strip()


class GitProject:
    """A git repository, and DVC's if `track` was called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"file://{folder}"

    @classmethod
    def begin(cls, folder: Path) -> GitProject:
        folder.mkdir()
        run(folder, "git", "init", "--quiet", "--initial-branch=main")
        return cls(folder)

    @classmethod
    def of_two_commits(cls, folder: Path) -> GitProject:
        """Tagged `first` and `second`, each with another content of `file`."""
        project = cls.begin(folder)
        for name in ("first", "second"):
            (folder / "file").write_text(name)
            project.commit()
            project.git("tag", name)
        return project

    def track(self, storage: Path) -> None:
        """With a pipeline, and DVC's remote in the folder `storage`."""
        run(self.folder, "dvc", "init", "--quiet")
        (self.folder / ".dvc/config").write_text(CONFIG.format(storage=storage))
        (self.folder / "dvc.yaml").write_text(PIPELINE)

    def copy(self, folder: Path) -> GitProject:
        """With its cache, on the same remote."""
        shutil.copytree(self.folder, folder, symlinks=True)
        return GitProject(folder)

    def clone(self, folder: Path) -> GitProject:
        """As on another machine: without its cache."""
        self.git("clone", "--quiet", str(self.folder), str(folder))
        return GitProject(folder)

    def git(self, *words: str) -> str:
        return run(self.folder, "git", *words)

    def commit(self) -> str:
        self.git("add", "--all")
        run(self.folder, "git", "commit", "-qm", "x", "--allow-empty", GIT_COMMITTER_DATE=f"{LONG_AGO} +0000")
        return self.git("rev-parse", "HEAD")

    def train(self, sharpness: float) -> str:
        """The commit of a model."""
        redness(self.folder / "source/moderator.onnx", sharpness)
        run(self.folder, "dvc", "repro", "--quiet")
        return self.commit()

    def push(self) -> None:
        """The models of all commits, to the remote."""
        run(self.folder, "dvc", "push", "--quiet", "--all-commits")

    def remote(self, folder: Path) -> None:
        """From now on DVC's remote is here, for this machine alone."""
        run(self.folder, "dvc", "remote", "modify", "--local", "storage", "url", str(folder))

    def gto(self, *words: str) -> None:
        """Its tags are dated in whole seconds, and what happens in one second has no order: so each has its own."""
        time.sleep(1.01 - time.time() % 1)
        run(self.folder, "gto", *words)

    def tag(self, name: str, rev: str, second: int) -> None:
        """A tag as gto makes it, in a hundredth of the time."""
        date = {"GIT_COMMITTER_DATE": f"{LONG_AGO + 1000 + second} +0000"}
        run(self.folder, "git", "tag", "--annotate", "--message", "x", name, rev, **date)

    def tags(self, named: Iterable[tuple[str, str]]) -> None:
        """Such tags of these names for these revs, a second apart."""
        for second, (name, rev) in enumerate(named):
            self.tag(name, rev, second)
