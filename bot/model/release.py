"""The release that a git tag points to: resolve the tag, get the files through DVC, check them against `dvc.lock`."""

from __future__ import annotations

import contextlib
import hashlib
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bot.model import git, subprocesses
from bot.model.git import Git
from bot.model.lock import LockedFile, locked_files
from bot.model.subprocesses import redacted
from stages.inference import ModelError, cache_root

ARTIFACT = "moderator"
"""The artifact in `dvc.yaml` that a plain git revision, or the workspace, stands for."""
WORKSPACE = "workspace"
GTO_SECONDS = 60.0
DVC_SECONDS = 900.0

_NAME = r"[a-zA-Z0-9](?:[a-zA-Z0-9/_-]*[a-zA-Z0-9])?"
_GTO_NAME = re.compile(rf"({_NAME})(?:#{_NAME}|@(?:latest|greatest|v\d+\.\d+\.\d+[0-9A-Za-z.+-]*))")
"""A stage or version, which gto resolves. Git resolves everything else."""


@dataclass(frozen=True)
class Release:
    """A model and its side-car, with checked md5s."""

    version: str
    """For people: moderator@v1.2.0 if the commit has a registered version, otherwise moderator@ and 12 digits of the
    commit, or moderator@workspace."""
    commit: str
    """Full hash; empty for the workspace."""
    md5: str
    """Of the model."""
    model: Path
    sidecar: Path


@dataclass(frozen=True)
class ResolvedName:
    """The commit that a stage, version or revision names."""

    artifact: str
    version: str
    """Empty if none is registered."""
    commit: str


class Repository:
    """The source of releases. Its methods block. Threads and processes may share the cache."""

    def __init__(self, address: str | None = None) -> None:
        """Nothing is read yet.

        Args:
            address: a folder in a git repository, used in place, or a URL, of which a mirror is kept in the cache and
                fetched each time. None: the current folder.
        """
        self._address = address
        self._folder = Path.cwd()  # now: the process may change it later
        self._resolved: dict[str, tuple[str, ResolvedName]] = {}

    def release(self, requested: str) -> Release:
        """The release that `requested` names now.

        Args:
            requested: a stage (`moderator#prod`), a version (`moderator@v1.2.0`), a git revision, or `workspace`.

        Raises:
            ModelError: if there is none, or a file is missing or does not match `dvc.lock`.
        """
        repository = self._open()
        if requested == WORKSPACE:  # no commit, so neither gto nor DVC has it
            return _workspace_release(repository)
        resolved = self._resolve(repository, requested)
        commit, at = resolved.commit, repository.describe(resolved.commit)
        files = locked_files(
            repository.read(commit, "dvc.yaml"), repository.read(commit, "dvc.lock"), resolved.artifact, at
        )

        def fetch(targets: Mapping[Path, LockedFile]) -> None:
            _fetch_through_dvc(repository, resolved, targets)

        model, sidecar = _cached_files(files, fetch, at)
        version = f"{resolved.artifact}@{resolved.version or commit[:12]}"
        return Release(version, commit, files[0].md5, model, sidecar)

    def latest(self, requested: str) -> str:
        """The commit that `requested` names now, without getting its files; empty for the workspace.

        Raises:
            ModelError: if there is none.
        """
        return "" if requested == WORKSPACE else self._resolve(self._open(), requested).commit

    def _open(self) -> Git:
        address = self._address
        if address is None:
            return git.local(self._folder)
        with contextlib.suppress(OSError, RuntimeError):  # many URLs are not valid paths
            if (folder := self._folder / Path(address).expanduser()).is_dir():
                return git.local(folder)
        if address.isprintable() and git.URL.fullmatch(address):
            key = hashlib.sha256(address.encode()).hexdigest()
            return git.mirrored(address, _cache_folder("repositories") / f"{key}.git")
        raise ModelError(
            f"--repo {redacted(address)!r} is neither a folder nor a URL that git can fetch; "
            "write it as https://, ssh://, git://, file:// or user@host:path"
        )

    def _resolve(self, repository: Git, requested: str) -> ResolvedName:
        if len(requested) <= 256 and (match := _GTO_NAME.fullmatch(requested)):
            return self._resolve_by_gto(repository, match[1], requested)
        commit = repository.commit(requested)
        return ResolvedName(ARTIFACT, repository.version(ARTIFACT, commit), commit)

    def _resolve_by_gto(self, repository: Git, artifact: str, requested: str) -> ResolvedName:
        # Only tags and checkouts can change gto's answer, so a poll without a change does not start it.
        state = repository.state()
        if requested in self._resolved and self._resolved[requested][0] == state:
            return self._resolved[requested][1]
        answer = subprocesses.call_dvc_worker(
            "find_versions",
            {"repository": str(repository.folder), "name": artifact, "requested": requested},
            GTO_SECONDS,
            f"asking gto for {requested} in {repository.name}",
            f"check the output of `gto show {artifact}` there",
        )
        if not answer["matches"]:
            raise _unregistered(answer, repository, artifact, requested)
        match = _newest_match(answer["matches"], repository, artifact, requested)
        commit = repository.commit(match["commit"])  # for a tag of a tag, gto returns the inner tag
        # A stage without a version: gto puts the commit in its place.
        version = match["version"] if match["version"].startswith("v") else ""
        resolved = ResolvedName(artifact, version, commit)
        self._resolved[requested] = state, resolved
        return resolved


def _newest_match(
    matches: Sequence[Mapping[str, Any]], repository: Git, artifact: str, requested: str
) -> Mapping[str, Any]:
    """The version that was assigned last.

    Raises:
        ModelError: if several were assigned at once, for different commits.
    """
    newest = max(match["at"] for match in matches)
    tied = [match for match in matches if match["at"] == newest]
    if len({match["commit"] for match in tied}) > 1:
        versions = " and ".join(sorted({match["version"] for match in tied}))
        raise ModelError(
            f"{requested} is ambiguous in {repository.name}: {versions} were tagged in the same second or for several "
            f"commits; assign the right one again with `gto assign {artifact} --version ... --stage ... --force`"
        )
    return tied[0]


def _unregistered(answer: Mapping[str, Any], repository: Git, artifact: str, requested: str) -> ModelError:
    """The error for a name that gto does not know, with the versions that it knows."""
    registered = [
        row["version"]
        + ("" if row["active"] else " (deregistered)")
        + (f" ({', '.join(sorted(set(row['stages'])))})" if row["stages"] else "")
        for row in answer["registered"]
    ]
    problem = f"{requested} names no version in {repository.name}"
    if not registered:
        return ModelError(
            f"{problem}: no version of {artifact} is registered; tag one with `gto register {artifact}` and "
            f"`gto assign {artifact}`"
        )
    if answer["deprecated"]:
        return ModelError(f"{problem}: {artifact} is deprecated; to undo that, register or assign a version again")
    return ModelError(
        f"{problem}, which has {', '.join(registered)}; tag one with `gto assign {artifact} --version ... --stage ...`"
    )


def _fetch_through_dvc(repository: Git, resolved: ResolvedName, targets: Mapping[Path, LockedFile]) -> None:
    """Copy files of a commit from DVC's cache or remote to `targets`."""
    at = repository.describe(resolved.commit)
    call = partial(
        subprocesses.call_dvc_worker,
        "fetch_files",
        {
            "repository": str(repository.folder),
            "commit": resolved.commit,
            "files": {file.path: str(target) for target, file in targets.items()},
        },
        DVC_SECONDS,
        f"getting {resolved.artifact} of {at} through DVC",
        "check the remote's address and credentials, which `dvc pull` needs, too",
    )
    try:
        answer = call()
    except ModelError as error:
        if "database is locked" not in str(error):  # DVC's own: another process fetches at the same time
            raise
        answer = call()
    if "missing" in answer:
        raise ModelError(
            f"neither DVC's cache nor its remote has {answer['missing']} of {at}; `dvc push` it from the machine that "
            "trained it, and check that the committed .dvc/config names a remote that this machine can reach"
        )


def _workspace_release(repository: Git) -> Release:
    """The release of the working tree.

    Raises:
        ModelError: if there is no working tree, or its files do not match its `dvc.lock`.
    """
    root = repository.root
    if root is None:
        raise ModelError(f"{repository.name} has no working tree; instead of `workspace`, name a stage or a revision")
    at = f"the working tree {root}"
    files = locked_files(_read(root / "dvc.yaml"), _read(root / "dvc.lock"), ARTIFACT, at)
    for file in files:
        if (md5 := _md5(root / file.path)) != file.md5:
            raise ModelError(
                f"{file.path} in {at} {_describe_md5(md5)}, but its dvc.lock has {file.md5}; "
                "restore the locked file with `dvc checkout`, or lock this one with `dvc commit`"
            )

    def copy(targets: Mapping[Path, LockedFile]) -> None:
        for target, file in targets.items():
            target.write_bytes((root / file.path).read_bytes())

    # Load copies: `dvc repro` may replace the files between the check and the loading.
    model, sidecar = _cached_files(files, copy, at)
    return Release(f"{ARTIFACT}@{WORKSPACE}", "", files[0].md5, model, sidecar)


def _cached_files(
    files: tuple[LockedFile, LockedFile], fetch: Callable[[Mapping[Path, LockedFile]], None], at: str
) -> tuple[Path, Path]:
    """Model and side-car in the cache, in a folder named by their md5s; `fetch` is called if they are not there.

    Raises:
        ModelError: if a fetched file does not have its md5, or the cache cannot be written.
    """
    folder = _cache_folder("releases") / "-".join(file.md5 for file in files)
    names = (f"{ARTIFACT}.onnx", f"{ARTIFACT}.json")
    model, sidecar = (folder / name for name in names)
    # Check even what is there: the cache may have been damaged.
    if all(_md5(folder / name) == file.md5 for name, file in zip(names, files, strict=True)):
        return model, sidecar
    try:
        # Fetched beside the folder and moved into it: another process may be doing the same.
        with tempfile.TemporaryDirectory(prefix=".", dir=folder.parent) as aside:
            targets = {Path(aside, name): file for name, file in zip(names, files, strict=True)}
            fetch(targets)
            _check_fetched(targets, at)
            folder.mkdir(exist_ok=True)
            for target in targets:  # one by one: a rename cannot replace a folder with files in it
                target.replace(folder / target.name)
    except OSError as error:
        raise ModelError(f"{folder} cannot be written ({error}); free disk space, or delete the folder") from error
    return model, sidecar


def _check_fetched(targets: Mapping[Path, LockedFile], at: str) -> None:
    for target, file in targets.items():
        if (md5 := _md5(target)) != file.md5:
            raise ModelError(
                f"DVC's copy of {file.path} of {at} {_describe_md5(md5)}, but dvc.lock has {file.md5}: it was damaged "
                "or replaced; delete it from DVC's cache and remote, then `dvc push` the right file"
            )


def _cache_folder(name: str) -> Path:
    try:
        folder = cache_root() / name
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ModelError(f"the cache cannot be written ({error}); set MLPY_CACHE to another folder") from error
    return folder


def _read(path: Path) -> bytes | None:
    """The contents of a file in the working tree; None if it is missing."""
    try:
        with path.open("rb") as file:
            data = file.read(git.MAX_FILE_BYTES + 1)
    except OSError:
        return None
    if len(data) > git.MAX_FILE_BYTES:
        raise ModelError(f"{path} is over the limit of {git.MAX_FILE_BYTES:,} bytes; restore it with `git checkout`")
    return data


def _md5(path: Path) -> str:
    """Of a file; empty if it is missing."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError:
        return ""


def _describe_md5(md5: str) -> str:
    return f"has the md5 {md5}" if md5 else "is missing"
