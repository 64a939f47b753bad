"""A tiny Open Clip Art Library, gathered once for the whole session."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import clipart
import pytest

from stages.sample import debian, openclipart
from stages.sample.debian import Package
from stages.sample.openclipart import Library
from stages.sample.uploads import Upload, uploads


@dataclass(frozen=True)
class Tiny:
    """The library, and where it came from and lies."""

    packages: tuple[Package, Package]
    debs: Path
    """The folder that `MLPY_SAMPLE_DEBS` names."""
    cache: Path
    library: Library


@pytest.fixture(scope="session")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Tiny:
    """The tiny library, gathered from its packages into a cache root of its own."""
    folders = [tmp_path_factory.mktemp(name) for name in ("debs", "cache")]
    packages = clipart.packages(folders[0])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(debian.FOLDER_VARIABLE, str(folders[0]))
        patch.setenv("MLPY_CACHE", str(folders[1]))
        library = openclipart.gather(packages, ())
    return Tiny(packages, *folders, library)


@pytest.fixture(scope="session")
def library(tiny: Tiny) -> Library:
    return tiny.library


@pytest.fixture(scope="session")
def uploaded(library: Library) -> list[Upload]:
    """The images of the tiny library's board."""
    return uploads(library.contents)
