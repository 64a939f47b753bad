"""The Open Clip Art Library 0.18 of two Debian packages: public-domain drawings with their authors' metadata.

What is known about them is gathered once, kept in the cache root, and reused by every later run.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import posixpath
import shutil
import tarfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import PIL
from pydantic import TypeAdapter

from stages.sample import debian, statistics
from stages.sample.debian import Package
from stages.sample.statistics import Measures
from stages.workspace.cache import cache_root
from stages.workspace.errors import SampleError

VERSION = "1:0.18+dfsg-19"
PACKAGES = (
    Package("openclipart-png", VERSION, "f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02"),
    Package("openclipart-svg", VERSION, "989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5"),
)
"""The pixels; and the drawings they were made of, whose metadata are under the same names."""
INSIDE = "usr/share/openclipart"
LEFT_OUT = ("shapes/stars/", "computer/icons/")
"""Machine-made polygons; one desktop's icons, many times over."""

DC = "{http://purl.org/dc/elements/1.1/}"
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"


@dataclass(frozen=True)
class Work:
    """What a drawing's RDF says, as its author wrote it."""

    title: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    creators: tuple[str, ...] = ()
    licences: tuple[str, ...] = ()


@dataclass(frozen=True)
class Picture:
    """A PNG file, named by its path in the library, as `animals/cat.png`."""

    name: str
    work: Work
    measures: Measures


@dataclass(frozen=True)
class Duplicate:
    """A further name of the picture `of`, with metadata of its own."""

    name: str
    of: str
    work: Work


@dataclass(frozen=True)
class Contents:
    """Both sorted by name."""

    pictures: tuple[Picture, ...]
    duplicates: tuple[Duplicate, ...]


@dataclass(frozen=True)
class Library:
    """The gathered library in its folder."""

    folder: Path
    contents: Contents

    def file(self, name: str) -> Path:
        """A picture's file, as it was packaged."""
        return self.folder / "png" / name

    def source(self, name: str) -> Path:
        """What to make smaller versions of: the file itself, or the handy copy of a huge one."""
        handy = self.folder / "handy" / name
        return handy if handy.exists() else self.file(name)


JSON = TypeAdapter(Contents)


def read(folder: Path) -> Library:
    """The library that was gathered in `folder`."""
    return Library(folder, JSON.validate_json((folder / "library.json").read_bytes()))


def gathered(packages: Sequence[Package] = PACKAGES) -> Library:
    """The library, from the cache root, or gathered into it: fetched, unpacked, measured. About a minute.

    Args:
        packages: the pictures' package and the drawings' package.

    Raises:
        SampleError: if a package cannot be had or is not what it should be, or the disk is full.
    """
    home = cache_root() / "sample"
    folder = home / _key(packages)
    try:
        home.mkdir(exist_ok=True)
        with _alone(home):
            if not folder.exists():
                files = debian.fetched(packages, home / "packages")
                aside = home / f"{folder.name}.partial"
                shutil.rmtree(aside, ignore_errors=True)  # of a killed run
                _gather(files, aside)
                aside.rename(folder)
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise SampleError(
            f"the disk is full: the sample's pictures take 500 MB in {home}; free some, or set MLPY_CACHE"
        ) from error
    return read(folder)


def _key(packages: Sequence[Package]) -> str:
    """A name for what is gathered: it follows from the packages, this code, and the decoder."""
    code = [Path(file).read_bytes() for file in (__file__, statistics.__file__, debian.__file__)]
    return hashlib.sha256(repr((tuple(packages), code, PIL.__version__)).encode()).hexdigest()[:16]


@contextlib.contextmanager
def _alone(home: Path) -> Iterator[None]:
    """One process gathers; others wait for it."""
    with (home / "lock").open("a") as mutex:
        fcntl.flock(mutex, fcntl.LOCK_EX)
        yield


def _gather(files: Sequence[Path], folder: Path) -> None:
    pixels, drawings = files
    links = _unpack(pixels, folder / "png")
    works = _works(drawings)
    names = sorted(path.relative_to(folder / "png").as_posix() for path in (folder / "png").rglob("*.png"))
    if not names:
        raise SampleError(f"{pixels} holds no pictures under {INSIDE}/png")
    measured = statistics.measured(folder / "png", names, folder / "handy")
    contents = Contents(
        tuple(Picture(name, works.get(name, Work()), measured[name]) for name in names),
        tuple(
            Duplicate(name, of, works.get(name, Work()))
            for name in sorted(links)
            if (of := _resolved(name, links)) in measured
        ),
    )
    (folder / "library.json").write_bytes(JSON.dump_json(contents))


def _unpack(package: Path, folder: Path) -> dict[str, str]:
    """Unpack the pictures -> the names that are links, each with the name it points to."""
    links: dict[str, str] = {}
    folder.mkdir(parents=True)
    with debian.contents(package) as stream:
        for member in stream:
            name = _name(member, "png")
            if name is None:
                continue
            if member.issym():
                links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
            elif member.isfile() and not name.startswith(LEFT_OUT):
                member.name = name
                stream.extract(member, folder, filter="data")
    return links


def _name(member: tarfile.TarInfo, kind: str) -> str | None:
    """The name in the library of a package's file; None for what is no `kind` of drawing."""
    path = posixpath.normpath(member.name)
    start = f"{INSIDE}/{kind}/"
    return path.removeprefix(start) if path.startswith(start) and path.endswith(f".{kind}") else None


def _resolved(name: str, links: dict[str, str]) -> str:
    """Where a chain of links ends."""
    for _ in range(10):
        if name not in links:
            break
        name = links[name]
    return name


def _works(package: Path) -> dict[str, Work]:
    """The metadata of every drawing, by the picture's name."""
    works: dict[str, Work] = {}
    links: dict[str, str] = {}
    with debian.contents(package) as stream:
        for member in stream:
            name = _name(member, "svg")
            if name is None:
                continue
            if member.issym():
                links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
            elif file := stream.extractfile(member):
                works[name] = _work(file)
    works |= {name: works[of] for name in links if (of := _resolved(name, links)) in works}
    return {name.removesuffix(".svg") + ".png": work for name, work in works.items()}


def _work(drawing: IO[bytes]) -> Work:
    """What a drawing's RDF says. The package's checksum stands for its XML: no outsider wrote it."""
    root = ET.parse(drawing).getroot()  # noqa: S314 (checked by SHA-256)
    work = next((element for element in root.iter() if element.tag.endswith("}Work")), None)
    if work is None:
        return Work()
    creators = [name for creator in work.iter(f"{DC}creator") for name in creator.iter(f"{DC}title")]
    return Work(
        title=_text(work.find(f"{DC}title")),
        description=_text(work.find(f"{DC}description")),
        tags=tuple(filter(None, map(_text, root.iter(f"{RDF}li")))),
        creators=tuple(filter(None, map(_text, creators))),
        licences=tuple(
            element.get(f"{RDF}resource", "") for element in root.iter() if element.tag.endswith("}license")
        ),
    )


def _text(element: ET.Element | None) -> str:
    """An element's text in one line."""
    return " ".join("".join(element.itertext()).split()) if element is not None else ""
