"""A git repository, read by git itself in child processes: one on this machine, or a bare copy of one with a URL."""

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

from bot.model.subprocesses import Done, redacted, run
from stages.inference import ModelError

CAP = 2_000_000
"""Bytes of a file that is read from a repository into memory."""
SECONDS = 30.0
"""For a question to a repository on this machine."""
FETCH_SECONDS = 300.0
URL = re.compile(r"(https?|ssh|git|file)://\S+|(\w[\w.-]*@)?\w[\w.-]*:(?!:|//)\S+")
"""What is fetched, and not used in place: also host:path for ssh. git's other transports can run programs."""
HASH = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
REFS = ("+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*")
"""Not all refs: hosts keep every pull request in others."""
TRIES = 5


class Git:
    """One repository."""

    def __init__(self, folder: Path, root: Path | None, name: str) -> None:
        """Use `local` or `mirrored`."""
        self.folder = folder
        """Where git, gto and DVC find it."""
        self.root = root
        """Of its working tree; None: it has none."""
        self.name = name
        """For people."""

    def commit(self, rev: str) -> str:
        """The full hash of the commit that `rev` names.

        Raises:
            ModelError: if there is none.
        """
        if rev and rev.isprintable() and not rev.startswith("-"):
            done = self._ask("rev-parse", "--verify", "--quiet", "--end-of-options", f"{rev}^{{commit}}")
            found = done.out.decode(errors="replace").strip()
            if done.code == 0 and HASH.fullmatch(found):
                return found
        raise ModelError(
            f"{self.name} has no branch, tag or commit {rev!r}; `git tag` lists the tags, and a model is named as in "
            "moderator#prod (a stage) or moderator@v1.2.0 (a version)"
        )

    def text(self, commit: str, path: str) -> bytes | None:
        """A file of a commit; None if the commit has no such file.

        Raises:
            ModelError: if it is too large.
        """
        size = self._ask("cat-file", "-s", f"{commit}:{path}")
        if size.code:
            return None
        if int(size.out) > CAP:
            raise ModelError(f"{path} of {self.at(commit)} has {int(size.out):,} bytes, more than {CAP:,} are not read")
        done = self._ask("cat-file", "blob", f"{commit}:{path}")
        return None if done.code else done.out

    def at(self, commit: str) -> str:
        """The repository and the commit, for people."""
        return f"{self.name} at {commit[:12]}"

    def version(self, name: str, commit: str) -> str:
        """The version of the artifact `name` that gto's tags give to a commit; "" if none.

        gto would take a second to say so; all that it does is to take a version's last tag, the one with ! cancels.
        """
        done = self._ask(
            "for-each-ref",
            f"--points-at={commit}",
            "--format=%(objecttype) %(taggerdate:unix) %(refname:strip=2)",
            f"refs/tags/{name}@v*",
        )
        last: dict[str, tuple[int, bool]] = {}
        for line in done.out.decode(errors="replace").splitlines():
            kind, at, tag = line.split(" ", 2)
            match = re.fullmatch(r"(v[^!#]+)(!?)(#\d+)?", tag.removeprefix(f"{name}@"))
            if kind == "tag" and match:  # gto passes over tags without a date of their own
                last[match[1]] = max(last.get(match[1], (0, False)), (int(at), match[2] == "!"))
        valid = [(at, version) for version, (at, cancelled) in last.items() if not cancelled]
        return max(valid)[1] if valid else ""

    def state(self) -> str:
        """Changes whenever a tag or the checked out commit does."""
        return hashlib.sha256(self._ask("show-ref", "--head", "--tags").out).hexdigest()

    def _ask(self, *words: str) -> Done:
        return run(["git", "-C", str(self.folder), *words], SECONDS, f"reading {self.name}")


def local(folder: Path) -> Git:
    """The repository that a folder on this machine is in, used in place.

    Raises:
        ModelError: if it is in none.
    """
    words = ["rev-parse", "--is-inside-work-tree", "--absolute-git-dir", "--show-toplevel"]  # a bare one has no third
    done = run(["git", "-C", str(folder), *words], SECONDS, f"reading {folder}")
    found = [Path(line) for line in os.fsdecode(done.out).splitlines()[1:]]
    if not found:
        raise ModelError(
            f"{folder} is not in a git repository that can be read ({done.said}); "
            "name one with --repo, by its folder or URL"
        )
    root = found[1] if len(found) > 1 else None
    return Git(root or found[0], root, str(root or folder))


def mirrored(url: str, folder: Path) -> Git:
    """A bare copy in `folder` of a repository with a URL, as that is now: moved and deleted tags are followed.

    Raises:
        ModelError: if it cannot be fetched.
    """
    name = redacted(url)
    if not folder.exists():
        _begin(url, folder, name)
    # Not -C: were the copy broken and the cache in a repository, git would find that one, and prune its branches.
    command = ["git", f"--git-dir={folder}", "-c", "gc.auto=0", "fetch", "--quiet", "--force", "--prune", "--no-tags"]
    command += ["--no-write-fetch-head", "--", url, *REFS]
    for left in reversed(range(TRIES)):
        done = run(command, FETCH_SECONDS, f"fetching {name}")
        if done.code == 0:
            return Git(folder, None, name)
        if "cannot lock" not in done.err or not left:
            break
        time.sleep(random.uniform(0.1, 0.5))  # noqa: S311 - another process fetches the same refs
    raise _unfetched(name, done, folder)


def _unfetched(name: str, done: Done, folder: Path) -> ModelError:
    then = "check the address, the network and git's credentials for it"
    if folder.exists():
        then += f"; if they are right, delete its copy {folder}"
    return ModelError(f"{name} cannot be fetched ({done.said}); {then}")


def _begin(url: str, folder: Path, name: str) -> None:
    """An empty bare repository, with the same default branch. The URL, which may hold a password, is not kept."""
    head = run(["git", "ls-remote", "--symref", "--", url, "HEAD"], FETCH_SECONDS, f"fetching {name}")
    if head.code:
        raise _unfetched(name, head, folder)
    branch = re.match(rb"ref: (refs/heads/\S+)\tHEAD", head.out)
    try:
        aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise ModelError(f"{name} cannot be copied to {folder} ({error}); free the disk") from error
    try:
        made = run(["git", "init", "--quiet", "--bare", "--template=", str(aside)], SECONDS, f"fetching {name}")
        if made.code:
            raise ModelError(f"{name} cannot be copied to {folder} ({made.said}); free the disk")
        if branch:
            words = ["symbolic-ref", "HEAD", branch[1].decode()]
            run(["git", f"--git-dir={aside}", *words], SECONDS, f"fetching {name}")
        with contextlib.suppress(OSError):  # another process was first
            aside.rename(folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
