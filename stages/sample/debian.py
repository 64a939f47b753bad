"""Debian packages as sources of data: fetched by apt without being installed, checked, read without dpkg."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
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

FOLDER = "MLPY_SAMPLE_DEBS"
"""Environment variable: a folder that holds the packages' files, for a machine without apt or network."""
MINUTES = 30
ADVICE = f"fetch it elsewhere with `apt-get download` and set {FOLDER} to the folder that holds it"


@dataclass(frozen=True)
class Package:
    """One version of a package for all architectures."""

    name: str
    version: str
    sha256: str

    @property
    def files(self) -> tuple[str, ...]:
        """The names its file may have: apt writes the version's colon as %3a, mirrors and people do not."""
        return tuple(f"{self.name}_{self.version.replace(':', colon)}_all.deb" for colon in ("%3a", ":", "%3A"))

    def __str__(self) -> str:
        return f"{self.name}={self.version}"


def fetched(packages: Sequence[Package], folder: Path) -> list[Path]:
    """The packages' files, checked: from the folder that `MLPY_SAMPLE_DEBS` names, else kept in `folder` by apt.

    Raises:
        SampleError: if a file cannot be had, or is not the package it should be.
    """
    if named := os.environ.get(FOLDER):
        return [_checked(package, _given(package, Path(named).expanduser())) for package in packages]
    folder.mkdir(parents=True, exist_ok=True)
    missing = [package for package in packages if _found(package, folder) is None]
    if missing:
        _download(missing, folder)
    return [_checked(package, _given(package, folder)) for package in packages]


def _found(package: Package, folder: Path) -> Path | None:
    return next((folder / name for name in package.files if (folder / name).is_file()), None)


def _given(package: Package, folder: Path) -> Path:
    file = _found(package, folder)
    if file is None:
        raise SampleError(
            f"{folder} ({FOLDER}) lacks {package.files[0]}; put it there, or unset {FOLDER} to have apt fetch it"
        )
    return file


def _checked(package: Package, file: Path) -> Path:
    with file.open("rb") as opened:
        actual = hashlib.file_digest(opened, "sha256").hexdigest()
    if actual != package.sha256:
        raise SampleError(
            f"{file} is not {package}: its SHA-256 is {actual}, not {package.sha256}; delete it and run again"
        )
    return file


def _download(packages: Sequence[Package], folder: Path) -> None:
    """Have apt fetch files into `folder`, whole or not at all. Needs no root and installs nothing."""
    if shutil.which("apt-get") is None:
        raise SampleError(f"there is no apt-get here to fetch {packages[0]} with; {ADVICE}")
    log.info("fetching %s with apt-get", " and ".join(package.name for package in packages))
    with tempfile.TemporaryDirectory(prefix=".apt-", dir=folder) as aside:
        Path(aside).chmod(0o755)
        command = ["apt-get", "download", *map(str, packages)]
        complaint = _apt(command, Path(aside))
        if complaint and os.geteuid() == 0:  # a fresh machine has no list of packages yet, and only root may get it
            complaint = _apt(["apt-get", "update"], Path(aside)) or _apt(command, Path(aside))
        if complaint:
            raise SampleError(
                f"apt-get cannot fetch {packages[0]} ({complaint}); run `apt-get update` as root and try again, "
                f"or {ADVICE}"
            )
        for package in packages:
            file = _found(package, Path(aside))
            if file is None:
                raise SampleError(f"apt-get did not bring {package}; {ADVICE}")
            _checked(package, file).replace(folder / package.files[0])


def _apt(command: Sequence[str], folder: Path) -> str | None:
    """Run apt -> its first complaint, or None when it did what it should."""
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=60 * MINUTES,
            check=False,
            env={**os.environ, "LC_ALL": "C"},
        )
    except subprocess.TimeoutExpired:
        return f"no end after {MINUTES} minutes"
    if done.returncode == 0:
        return None
    errors = [line for line in done.stderr.splitlines() if line.startswith("E:")]
    return (errors or [f"exit code {done.returncode}"])[0].removeprefix("E: ")


@contextlib.contextmanager
def contents(file: Path) -> Iterator[tarfile.TarFile]:
    """A package's files as a tar stream: iterate over it once.

    Raises:
        SampleError: if the file is no Debian package.
    """
    with file.open("rb") as opened:
        section = _Section(opened, _find_data(opened, file))
        try:
            with tarfile.open(fileobj=section, mode="r|*") as stream:
                yield stream
        except tarfile.TarError as error:
            raise SampleError(f"{file} cannot be unpacked ({error}); delete it and run again") from error


def _find_data(opened: IO[bytes], file: Path) -> int:
    """Go to the part of an ar archive that holds the package's files -> its length in bytes."""
    if opened.read(8) != b"!<arch>\n":
        raise SampleError(f"{file} is no Debian package; delete it and run again")
    while len(header := opened.read(60)) == 60:
        if not (header.endswith(b"`\n") and header[48:58].strip().isdigit()):
            raise SampleError(f"{file} is damaged; delete it and run again")
        size = int(header[48:58])
        if header.startswith(b"data.tar"):
            return size
        opened.seek(size + size % 2, os.SEEK_CUR)
    raise SampleError(f"{file} holds no files; delete it and run again")


class _Section(io.BufferedIOBase):
    """The next `left` bytes of a file, as a file."""

    def __init__(self, opened: IO[bytes], left: int) -> None:
        self.opened, self.left = opened, left

    def read(self, size: int | None = -1, /) -> bytes:
        data = self.opened.read(self.left if size is None or size < 0 else min(size, self.left))
        self.left -= len(data)
        return data
