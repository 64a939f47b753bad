"""Debian packages as sources of data: downloaded by apt without installing them, checked, and read without dpkg."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import posixpath
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from stages.workspace.errors import SampleError

log = logging.getLogger(__name__)

FOLDER_VARIABLE = "MLPY_SAMPLE_DEBS"
"""Environment variable with a folder of package files, for a machine without apt or network."""
TIMEOUT_MINUTES = 30
ADVICE = f"run `apt-get download` on another machine and set {FOLDER_VARIABLE} to the folder with the file"


@dataclass(frozen=True)
class Package:
    """One version of an architecture-independent package."""

    name: str
    version: str
    sha256: str

    @property
    def files(self) -> tuple[str, ...]:
        """Possible file names: apt quotes the version's colon as %3a; mirrors and browsers may not."""
        return tuple(f"{self.name}_{self.version.replace(':', colon)}_all.deb" for colon in ("%3a", ":", "%3A"))

    def __str__(self) -> str:
        return f"{self.name}={self.version}"


def fetch(packages: Sequence[Package], folder: Path) -> list[Path]:
    """The packages' files, checked: from the folder that `MLPY_SAMPLE_DEBS` names, or downloaded by apt to `folder`.

    Raises:
        SampleError: if a file cannot be found or downloaded, or its checksum is wrong.
    """
    if named := os.environ.get(FOLDER_VARIABLE):
        return [_checked(package, _existing(package, Path(named).expanduser())) for package in packages]
    folder.mkdir(parents=True, exist_ok=True)
    missing = [package for package in packages if _find(package, folder) is None]
    if missing:
        _download(missing, folder)
    return [_checked(package, _existing(package, folder)) for package in packages]


def fetch_available(packages: Sequence[Package], folder: Path) -> dict[Package, Path]:
    """As `fetch`, without the packages that cannot be had, each of which is a warning.

    A Debian release has one version of each package, so another release than the one that was pinned lacks some.
    """
    with contextlib.suppress(SampleError):  # apt downloads all of them or none
        return dict(zip(packages, fetch(packages, folder), strict=True))
    files = {}
    for package in packages:
        try:
            (files[package],) = fetch([package], folder)
        except SampleError as error:
            log.warning("the sample board is built without %s: %s", package, error)
    return files


def _find(package: Package, folder: Path) -> Path | None:
    return next((folder / name for name in package.files if (folder / name).is_file()), None)


def _existing(package: Package, folder: Path) -> Path:
    file = _find(package, folder)
    if file is None:
        raise SampleError(
            f"{folder} ({FOLDER_VARIABLE}) lacks {package.files[0]}; put it there, "
            f"or unset {FOLDER_VARIABLE} to download it with apt"
        )
    return file


def _checked(package: Package, file: Path) -> Path:
    with file.open("rb") as opened:
        actual = hashlib.file_digest(opened, "sha256").hexdigest()
    if actual != package.sha256:
        raise SampleError(
            f"{file} is not {package}: its SHA-256 is {actual}, not {package.sha256}; "
            "delete it and run the command again"
        )
    return file


def _download(packages: Sequence[Package], folder: Path) -> None:
    """Download packages to `folder` with apt, completely or not at all. Needs no root and installs nothing."""
    if shutil.which("apt-get") is None:
        raise SampleError(f"apt-get, which downloads {packages[0]}, is not installed; {ADVICE}")
    log.info("downloading %s with apt-get", " and ".join(package.name for package in packages))
    with tempfile.TemporaryDirectory(prefix=".apt-", dir=folder) as aside:
        Path(aside).chmod(0o755)  # apt downloads as the user _apt where it can
        command = ["apt-get", "download", *map(str, packages)]
        error = _run_apt(command, Path(aside))
        if error and os.geteuid() == 0:  # a fresh machine has no package lists yet, and only root may update them
            error = _run_apt(["apt-get", "update"], Path(aside)) or _run_apt(command, Path(aside))
        if error:
            raise SampleError(
                f"apt-get cannot download {packages[0]} ({error}); run `apt-get update` as root and try again, "
                f"or {ADVICE}"
            )
        for package in packages:
            file = _find(package, Path(aside))
            if file is None:
                raise SampleError(f"apt-get did not download {package}; {ADVICE}")
            _checked(package, file).replace(folder / package.files[0])


def _run_apt(command: Sequence[str], folder: Path) -> str | None:
    """Run apt and return its first error message, or None if it succeeded."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60 * TIMEOUT_MINUTES,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        return f"timed out after {TIMEOUT_MINUTES} minutes"
    if done.returncode == 0:
        return None
    errors = [line for line in done.stderr.splitlines() if line.startswith("E:")]
    return (errors or [f"exit code {done.returncode}"])[0].removeprefix("E: ")


@contextlib.contextmanager
def contents(file: Path) -> Iterator[tarfile.TarFile]:
    """Open a package's files as a tar stream, which can be iterated over once.

    Raises:
        SampleError: if the file is not a Debian package, or is damaged.
    """
    with file.open("rb") as opened:
        section = _Section(opened, _find_data(opened, file))
        try:
            with tarfile.open(fileobj=section, mode="r|*") as stream:
                yield stream
        except tarfile.TarError as error:
            raise SampleError(f"{file} cannot be unpacked ({error}); delete it and run the command again") from error


def files(file: Path, inside: str) -> dict[str, bytes]:
    """The regular files below a package's folder, by their paths in it.

    Raises:
        SampleError: if the file is not a Debian package, or is damaged.
    """
    start = f"{inside}/"
    found = {}
    with contents(file) as stream:
        for member in stream:
            path = posixpath.normpath(member.name)
            if path.startswith(start) and (body := stream.extractfile(member) if member.isfile() else None):
                found[path.removeprefix(start)] = body.read()
    return found


def _find_data(opened: IO[bytes], file: Path) -> int:
    """Seek to the member `data.tar.*` of the ar archive that a package is; returns its length in bytes."""
    if opened.read(8) != b"!<arch>\n":
        raise SampleError(f"{file} is not a Debian package; delete it and run the command again")
    while len(header := opened.read(60)) == 60:
        if not (header.endswith(b"`\n") and header[48:58].strip().isdigit()):
            raise SampleError(f"{file} is damaged; delete it and run the command again")
        size = int(header[48:58])
        if header.startswith(b"data.tar"):
            return size
        opened.seek(size + size % 2, os.SEEK_CUR)  # members are padded to an even length
    raise SampleError(f"{file} contains no files; delete it and run the command again")


class _Section(io.BufferedIOBase):
    """The next `left` bytes of a file, as a file of their own."""

    def __init__(self, opened: IO[bytes], left: int) -> None:
        self.opened, self.left = opened, left

    def read(self, size: int | None = -1, /) -> bytes:
        data = self.opened.read(self.left if size is None or size < 0 else min(size, self.left))
        self.left -= len(data)
        return data
