"""A git repository, read through the git command: a local one in place, or a bare mirror of one with a URL."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import re
import shutil
import tempfile
import time
from pathlib import Path

from bot.model.subprocesses import SubprocessResult, redacted, run
from stages.inference import ModelError

MAX_FILE_BYTES = 2_000_000
"""Of a file that is read into memory."""
LOCAL_SECONDS = 30.0
"""Limit of a command that reads a local repository."""
FETCH_SECONDS = 300.0
URL = re.compile(r"(https?|ssh|git|file)://\S+|(\w[\w.-]*@)?\w[\w.-]*:(?!:|//)\S+")
"""Addresses that are mirrored, including ssh's host:path. Git's other transports, such as ext::, can run programs."""
HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
REFSPECS = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
"""Not all refs: hosting services keep every pull request in others."""
FETCH_TRIES = 5


class Git:
    """One repository."""

    def __init__(self, folder: Path, root: Path | None, name: str) -> None:
        """Use `local` or `mirrored` instead."""
        self.folder = folder
        """For git, gto and DVC."""
        self.root = root
        """Of the working tree; None in a bare repository."""
        self.name = name
        """For errors."""

    def commit(self, revision: str) -> str:
        """The full hash of the commit that a revision names.

        Raises:
            ModelError: if there is none.
        """
        # A dash would be read as an option, and a NUL byte cannot be passed at all.
        if revision and revision.isprintable() and not revision.startswith("-"):
            result = self._git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
            commit = result.stdout.decode(errors="replace").strip()
            if result.returncode == 0 and HASH.fullmatch(commit):
                return commit
        raise ModelError(
            f"{self.name} has no branch, tag or commit {revision!r}; list the tags with `git tag`, or name a model as "
            "in moderator#prod (a stage) or moderator@v1.2.0 (a version)"
        )

    def read(self, commit: str, path: str) -> bytes | None:
        """The contents of a file in a commit; None if the commit does not have it.

        Raises:
            ModelError: if it is too large.
        """
        size = self._git("cat-file", "-s", f"{commit}:{path}")
        if size.returncode:
            return None
        if int(size.stdout) > MAX_FILE_BYTES:
            raise ModelError(
                f"{path} of {self.describe(commit)} has {int(size.stdout):,} bytes, over the limit of "
                f"{MAX_FILE_BYTES:,}; choose another commit"
            )
        blob = self._git("cat-file", "blob", f"{commit}:{path}")
        return None if blob.returncode else blob.stdout

    def describe(self, commit: str) -> str:
        """The repository and the commit, for errors."""
        return f"{self.name} at {commit[:12]}"

    def version(self, name: str, commit: str) -> str:
        """The newest version of the artifact `name` that gto's tags register for a commit; empty if there is none.

        Asking gto would take a second. Its rule is simple: a version's last tag counts, and ! in it deregisters.
        """
        result = self._git(
            "for-each-ref",
            f"--points-at={commit}",
            "--format=%(objecttype) %(taggerdate:unix) %(refname:strip=2)",
            f"refs/tags/{name}@v*",
        )
        last_tags: dict[str, tuple[int, bool]] = {}  # version -> time, deregistered
        for line in result.stdout.decode(errors="replace").splitlines():
            kind, time_, tag = line.split(" ", 2)
            match = re.fullmatch(r"(v[^!#]+)(!?)(#\d+)?", tag.removeprefix(f"{name}@"))
            if kind == "tag" and match:  # like gto, skip lightweight tags, which have no date
                last_tags[match[1]] = max(last_tags.get(match[1], (0, False)), (int(time_), match[2] == "!"))
        active = [(time_, version) for version, (time_, deregistered) in last_tags.items() if not deregistered]
        return max(active)[1] if active else ""

    def state(self) -> str:
        """A hash that changes with every tag and with the checked-out commit."""
        return hashlib.sha256(self._git("show-ref", "--head", "--tags").stdout).hexdigest()

    def _git(self, *arguments: str) -> SubprocessResult:
        return run(["git", "-C", str(self.folder), *arguments], LOCAL_SECONDS, f"reading {self.name}")


def local(folder: Path) -> Git:
    """The repository that contains a local folder, used in place.

    Raises:
        ModelError: if there is none.
    """
    # A bare repository prints no third line, and git ends with an error after the second.
    arguments = ["rev-parse", "--is-inside-work-tree", "--absolute-git-dir", "--show-toplevel"]
    result = run(["git", "-C", str(folder), *arguments], LOCAL_SECONDS, f"reading {folder}")
    paths = [Path(line) for line in os.fsdecode(result.stdout).splitlines()[1:]]
    if not paths:
        raise ModelError(
            f"{folder} is not in a readable git repository ({result.summary}); "
            "name one with --repo, by its folder or its URL"
        )
    root = paths[1] if len(paths) > 1 else None
    return Git(root or paths[0], root, str(root or folder))


def mirrored(url: str, folder: Path) -> Git:
    """A bare mirror in `folder` of a repository with a URL, fetched now. Moved and deleted tags are followed.

    Raises:
        ModelError: if it cannot be fetched.
    """
    name = redacted(url)
    if not folder.exists():
        _create_mirror(url, folder, name)
    # Not -C: if the mirror were broken and inside another repository, git would find that one and prune its branches.
    command = ["git", f"--git-dir={folder}", "-c", "gc.auto=0", "fetch", "--quiet", "--force", "--prune", "--no-tags"]
    command += ["--no-write-fetch-head", "--", url, *REFSPECS]
    for left in reversed(range(FETCH_TRIES)):
        result = run(command, FETCH_SECONDS, f"fetching {name}")
        if result.returncode == 0:
            return Git(folder, None, name)
        if "cannot lock" not in result.stderr or not left:
            break
        time.sleep(random.uniform(0.1, 0.5))  # noqa: S311 - another process is fetching the same refs
    raise _fetch_error(name, result, folder)


def _fetch_error(name: str, result: SubprocessResult, folder: Path) -> ModelError:
    advice = "check the address, the network and git's credentials"
    if folder.exists():
        advice += f"; if they are right, delete the mirror {folder}"
    return ModelError(f"{name} cannot be fetched ({result.summary}); {advice}")


def _create_mirror(url: str, folder: Path, name: str) -> None:
    """Create an empty bare repository with the same default branch. The URL may hold a password and is not stored."""
    head = run(["git", "ls-remote", "--symref", "--", url, "HEAD"], FETCH_SECONDS, f"fetching {name}")
    if head.returncode:
        raise _fetch_error(name, head, folder)
    branch = re.match(rb"ref: (refs/heads/\S+)\tHEAD", head.stdout)
    # Created beside the mirror and renamed, so that no process finds half of one.
    try:
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise ModelError(f"{name} cannot be copied to {folder} ({error}); free disk space there") from error
    try:
        command = ["git", "init", "--quiet", "--bare", "--template=", str(aside)]
        result = run(command, LOCAL_SECONDS, f"fetching {name}")
        if result.returncode:
            raise ModelError(f"{name} cannot be copied to {folder} ({result.summary}); free disk space there")
        if branch:
            command = ["git", f"--git-dir={aside}", "symbolic-ref", "HEAD", branch[1].decode()]
            run(command, LOCAL_SECONDS, f"fetching {name}")
        with contextlib.suppress(OSError):  # another process was faster
            aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
