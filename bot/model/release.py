"""The model that a git tag names: what the tag means, and the files, checked against the `dvc.lock` of its commit."""

from __future__ import annotations

import contextlib
import hashlib
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bot.model import git, subprocesses
from bot.model.git import Git
from bot.model.lock import Entry, locked
from bot.model.subprocesses import redacted
from stages.inference import ModelError, cache_root

ARTIFACT = "moderator"
"""The name in `dvc.yaml`'s artifacts that a plain git rev, or the workspace, is asked for."""
WORKSPACE = "workspace"
GTO_SECONDS = 60.0
DVC_SECONDS = 900.0

_NAME = r"[a-zA-Z0-9](?:[a-zA-Z0-9/_-]*[a-zA-Z0-9])?"
_REGISTERED = re.compile(rf"({_NAME})(?:#{_NAME}|@(?:latest|greatest|v\d+\.\d+\.\d+[0-9A-Za-z.+-]*))")
"""What gto is asked about; all else is for git."""


@dataclass(frozen=True)
class Release:
    """A model whose two files have been checked."""

    version: str
    """For people: moderator@v1.2.0 if a version is registered for the commit, else moderator@ and the commit's first
    12 digits, or moderator@workspace."""
    commit: str
    """Its full hash; "" for the workspace."""
    md5: str
    """Of the model."""
    model: Path
    sidecar: Path


class Repository:
    """Where releases come from. Its methods block; threads and processes may share one cache."""

    def __init__(self, where: str | None = None, cache: Path | None = None) -> None:
        """Nothing is read yet.

        Args:
            where: a folder in a git repository, used in place, or a URL, of which a copy is kept and fetched anew each
                time; by default the current folder.
            cache: the folder for both; by default the cache root.
        """
        self._where = where
        self._here = Path.cwd()
        self._cache = cache
        self._told: dict[str, tuple[str, tuple[str, str]]] = {}

    def release(self, asked: str) -> Release:
        """The model that `asked` names now.

        Args:
            asked: a stage (`moderator#prod`), a version (`moderator@v1.2.0`), a git rev, or `workspace`.

        Raises:
            ModelError: if it names none, or a file cannot be had or is not that of `dvc.lock`.
        """
        repository = self._open()
        if asked == WORKSPACE:
            return self._workspace(repository)
        name, version, commit = self._resolved(repository, asked)
        at = repository.at(commit)
        entries = locked(repository.text(commit, "dvc.yaml"), repository.text(commit, "dvc.lock"), name, at)

        def bring(targets: Mapping[Path, Entry]) -> None:
            files = {entry.path: str(target) for target, entry in targets.items()}
            doing = f"getting {name} of {at} through DVC"
            then = "check the remote's address and its credentials, as `dvc pull` takes them"
            request = {"repository": str(repository.folder), "commit": commit, "files": files}
            answer = subprocesses.ask("fetched", request, DVC_SECONDS, doing, then)
            if "missing" in answer:
                raise ModelError(
                    f"neither DVC's cache nor its remote has {answer['missing']} of {at}; `dvc push` it from where it "
                    "was trained, and see that the committed .dvc/config names the remote and this machine reaches it"
                )

        model, sidecar = self._kept(entries, bring, at)
        return Release(f"{name}@{version or commit[:12]}", commit, entries[0].md5, model, sidecar)

    def latest(self, asked: str) -> str:
        """The commit that `asked` names now, without its files; "" for the workspace.

        Raises:
            ModelError: if it names none.
        """
        return "" if asked == WORKSPACE else self._resolved(self._open(), asked)[2]

    def _folder(self, name: str) -> Path:
        try:
            folder = (self._cache or cache_root()) / name
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ModelError(f"the cache cannot be written ({error}); name another folder in MLPY_CACHE") from error
        return folder

    def _open(self) -> Git:
        where = self._where
        if where is None:
            return git.local(self._here)
        with contextlib.suppress(OSError, RuntimeError):  # a URL may be no path at all
            if (folder := self._here / Path(where).expanduser()).is_dir():
                return git.local(folder)
        if where.isprintable() and git.URL.fullmatch(where):
            key = hashlib.sha256(where.encode()).hexdigest()
            return git.mirrored(where, self._folder("repositories") / f"{key}.git")
        raise ModelError(
            f"--repo {redacted(where)!r} is neither a folder nor a URL that git can fetch: "
            "https://, ssh://, git://, file:// or user@host:path"
        )

    def _resolved(self, repository: Git, asked: str) -> tuple[str, str, str]:
        """The artifact's name, its version ("" if none is registered) and commit."""
        if len(asked) <= 256 and (match := _REGISTERED.fullmatch(asked)):
            version, commit = self._registered(repository, match[1], asked)
            return match[1], version, commit
        commit = repository.commit(asked)
        return ARTIFACT, repository.version(ARTIFACT, commit), commit

    def _registered(self, repository: Git, name: str, asked: str) -> tuple[str, str]:
        """What gto answers, which nothing but a tag or a checkout can change: a poll does not pay for it again."""
        state = repository.state()
        before = self._told.get(asked, ("", ("", "")))
        if before[0] == state:
            return before[1]
        doing = f"asking gto for {asked} in {repository.name}"
        request = {"repository": str(repository.folder), "name": name, "asked": asked}
        answer = subprocesses.ask("assigned", request, GTO_SECONDS, doing, f"see what `gto show {name}` says there")
        found = sorted(answer["found"], key=lambda each: each["at"], reverse=True)
        if not found:
            raise _unregistered(answer, repository, name, asked)
        last = [each for each in found if each["at"] == found[0]["at"]]
        if len({each["commit"] for each in last}) > 1:
            versions = " and ".join(sorted({each["version"] for each in last}))
            raise ModelError(
                f"{asked} is ambiguous in {repository.name}: {versions} were tagged in the same second or for several "
                f"commits; assign the right one anew with `gto assign {name} --version ... --stage ... --force`"
            )
        commit = repository.commit(last[0]["commit"])  # of a tag of a tag, gto tells the inner tag
        version = last[0]["version"] if last[0]["version"].startswith("v") else ""
        self._told[asked] = state, (version, commit)
        return version, commit

    def _workspace(self, repository: Git) -> Release:
        root = repository.root
        if root is None:
            raise ModelError(
                f"{repository.name} has no working tree, so no `workspace`; ask for a stage, version or rev"
            )
        at = f"the working tree {root}"
        entries = locked(_read(root / "dvc.yaml"), _read(root / "dvc.lock"), ARTIFACT, at)
        for entry in entries:
            if (found := _md5(root / entry.path)) != entry.md5:
                raise ModelError(
                    f"{entry.path} in {at} {_is(found)}, its dvc.lock says {entry.md5}; "
                    "`dvc checkout` puts the locked one back, `dvc repro` or `dvc commit` locks this one"
                )

        def bring(targets: Mapping[Path, Entry]) -> None:
            for target, entry in targets.items():
                target.write_bytes((root / entry.path).read_bytes())

        # Copied, so that what is loaded is what was checked, whatever `dvc repro` does to the working tree meanwhile.
        model, sidecar = self._kept(entries, bring, at)
        return Release(f"{ARTIFACT}@{WORKSPACE}", "", entries[0].md5, model, sidecar)

    def _kept(
        self, entries: tuple[Entry, Entry], bring: Callable[[Mapping[Path, Entry]], None], at: str
    ) -> tuple[Path, Path]:
        """The two files, in a folder named by their md5s. They are brought unless they are there and right."""
        folder = self._folder("releases") / "-".join(entry.md5 for entry in entries)
        names = (f"{ARTIFACT}.onnx", f"{ARTIFACT}.json")
        model, sidecar = (folder / name for name in names)
        if all(_md5(folder / name) == entry.md5 for name, entry in zip(names, entries, strict=True)):
            return model, sidecar
        try:
            with tempfile.TemporaryDirectory(prefix=".", dir=folder.parent) as aside:
                targets = {Path(aside, name): entry for name, entry in zip(names, entries, strict=True)}
                bring(targets)
                for target, entry in targets.items():
                    if (found := _md5(target)) != entry.md5:
                        raise ModelError(
                            f"DVC's copy of {entry.path} of {at} {_is(found)}, dvc.lock says {entry.md5}: it is "
                            "damaged or was replaced, and is not used; delete it from DVC's cache and remote, then "
                            "`dvc push` the right one"
                        )
                folder.mkdir(exist_ok=True)
                for target in targets:  # one by one: a folder with files cannot be replaced by a rename
                    target.replace(folder / target.name)
        except OSError as error:
            raise ModelError(f"{folder} cannot be written ({error}); free the disk, or delete the folder") from error
        return model, sidecar


def _unregistered(answer: Mapping[str, Any], repository: Git, name: str, asked: str) -> ModelError:
    """Why gto has nothing for `asked`, and what it has."""
    known = [
        each["version"]
        + ("" if each["registered"] else " (deregistered)")
        + (f" ({', '.join(sorted(set(each['stages'])))})" if each["stages"] else "")
        for each in answer["known"]
    ]
    where = f"{asked} names no version in {repository.name}"
    if not known:
        return ModelError(f"{where}: none of {name} is registered; `gto register {name}` and `gto assign` tag one")
    if answer["deprecated"]:
        return ModelError(f"{where}: {name} is deprecated; register or assign a version again to take it back")
    return ModelError(f"{where}; there are {', '.join(known)}; `gto assign {name} --version ... --stage ...` tags one")


def _read(path: Path) -> bytes | None:
    """A file of the working tree; None if there is none."""
    try:
        with path.open("rb") as file:
            text = file.read(git.CAP + 1)
    except OSError:
        return None
    if len(text) > git.CAP:
        raise ModelError(f"{path} has more than {git.CAP:,} bytes, which are not read")
    return text


def _md5(path: Path) -> str:
    """Of a file; "" if there is none."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    except OSError:
        return ""


def _is(md5: str) -> str:
    return f"has the md5 {md5}" if md5 else "is not there"
