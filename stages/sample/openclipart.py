"""The sample board's pictures: the Open Clip Art Library 0.18, public-domain drawings with their authors' metadata, and
pictures by other hands (`others`).

They are unpacked from Debian packages and measured once; the cache keeps the result for later runs.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import functools
import hashlib
import inspect
import operator
import posixpath
import shutil
import tarfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from multiprocessing import get_context
from pathlib import Path
from typing import IO

import PIL
from pydantic import TypeAdapter

from stages.philomena import intensities
from stages.sample import debian, image_statistics, others, readers, tables
from stages.sample.debian import Package
from stages.sample.image_statistics import PROCESSES, ImageStatistics
from stages.sample.tables import Origin
from stages.sample.works import Work
from stages.workspace.cache import cache_root
from stages.workspace.errors import SampleError

VERSION = "1:0.18+dfsg-19"
PACKAGES = (
    Package("openclipart-png", VERSION, "f07f1545a2970c2cf3fa339bc2405da1a95cf2b1827bfa05bf73eb1c20291c02"),
    Package("openclipart-svg", VERSION, "989712d90d57dfa3230049f553bb43b76c30ee4d4b8c5f6e106e33f7db5cbdc5"),
)
"""The rendered pictures, and the SVG drawings with the metadata; names differ in the extension only."""
INSIDE = "usr/share/openclipart"
LEFT_OUT = (
    *("shapes/stars/", "computer/icons/"),
    *("transportation/roadsigns/stop_sign_right_font_mig_.png", "signs_and_symbols/stop_sign_miguel_s_nchez_.png"),
)
"""Generated polygons, many near-identical icons of one desktop, and two pictures that take 2.5 GB of memory each."""
MOST_PIXELS = 110_000_000
"""Larger pictures are withdrawn: these twelve would take half of the time that all others together take to measure."""

DC = "{http://purl.org/dc/elements/1.1/}"
RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"


@dataclass(frozen=True)
class Picture:
    """A PNG file, named by its path in the library, for example `animals/cat.png`, or `tango/folder.png`."""

    name: str
    work: Work
    statistics: ImageStatistics


@dataclass(frozen=True)
class Duplicate:
    """Another name of the picture `of`, with metadata of its own."""

    name: str
    of: str
    work: Work


@dataclass(frozen=True)
class Contents:
    """Everything in the library, sorted by name."""

    pictures: tuple[Picture, ...]
    duplicates: tuple[Duplicate, ...]
    withdrawn: tuple[str, ...] = ()
    """Names of pictures that are too large for the board, and their other names: only their ids are left."""


@dataclass(frozen=True)
class Library:
    """The unpacked library in its folder."""

    folder: Path
    contents: Contents

    def file(self, name: str) -> Path:
        """A picture's file, as packaged."""
        return self.folder / "png" / name

    def source(self, name: str) -> Path:
        """The file to scale smaller versions from: the picture's, or the reduced copy of a huge one."""
        reduced = self.folder / "reduced" / name
        return reduced if reduced.exists() else self.file(name)


JSON = TypeAdapter(Contents)


def read(folder: Path) -> Library:
    """The library that `gather` left in `folder`."""
    return Library(folder, JSON.validate_json((folder / "library.json").read_bytes()))


def gather(packages: Sequence[Package] = PACKAGES, origins: Sequence[Origin] | None = None) -> Library:
    """The library from the cache, or else downloaded, unpacked and measured, which takes about a minute.

    Args:
        packages: Open Clip Art's package of pictures and its package of drawings.
        origins: the tables of other packages; None for all that are written.

    Raises:
        SampleError: if a package cannot be downloaded or fails its check, or the disk is full.
    """
    origins = tables.read() if origins is None else origins
    home = cache_root() / "sample"
    folder = home / _key(packages, origins)
    try:
        home.mkdir(exist_ok=True)
        with _lock(home):
            if not folder.exists():
                files = debian.fetch(packages, home / "packages")
                available = debian.fetch_available([origin.debian for origin in origins], home / "packages")
                folder = _created(home, packages, files, {origin: available.get(origin.debian) for origin in origins})
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise SampleError(
            f"the disk is full: the sample board's pictures take 500 MB in {home}; "
            "free some space, or set MLPY_CACHE to a folder on a larger disk"
        ) from error
    return read(folder)


def _created(
    home: Path, packages: Sequence[Package], files: Sequence[Path], others: Mapping[Origin, Path | None]
) -> Path:
    """The library's folder, created unless it exists; without the origins that have no file."""
    available = {origin: file for origin, file in others.items() if file}
    folder = home / _key(packages, tuple(available))
    if not folder.exists():
        aside = home / f"{folder.name}.partial"
        shutil.rmtree(aside, ignore_errors=True)  # a killed run's
        _unpack_and_measure(files, available, aside)
        aside.rename(folder)
    return folder


def _key(packages: Sequence[Package], origins: Sequence[Origin]) -> str:
    """Name of the library's folder: a hash of everything that determines its content."""
    modules = (__file__, image_statistics.__file__, intensities.__file__, debian.__file__, others.__file__)
    files = [
        *map(Path, modules),
        Path(tables.__file__),
        Path(inspect.getfile(Work)),
        *sorted(Path(readers.__path__[0]).glob("*.py")),
    ]
    code = [file.read_bytes() for file in files]
    determinants = (tuple(packages), tuple(origins), code, PIL.__version__, metadata.version("resvg-py"))
    return hashlib.sha256(repr(determinants).encode()).hexdigest()[:16]


@contextlib.contextmanager
def _lock(home: Path) -> Iterator[None]:
    """Let one process create the library; others wait for it."""
    with (home / "lock").open("a") as mutex:
        fcntl.flock(mutex, fcntl.LOCK_EX)
        yield


def _unpack_and_measure(files: Sequence[Path], origins: Mapping[Origin, Path], folder: Path) -> None:
    """Create the library in `folder`: `png`, `reduced` and `library.json`."""
    pictures, drawings = files
    target = folder / "png"
    target.mkdir(parents=True)
    # Spawned, as those that measure are.
    with ProcessPoolExecutor(PROCESSES, get_context("spawn"), image_statistics.lift_pixel_limit) as pool:
        unpacked, read = pool.submit(_unpack, pictures, target), pool.submit(_read_works, drawings)
        tasks = [pool.submit(others.unpack, origin, package, target) for origin, package in origins.items()]
        links = unpacked.result()
        works = functools.reduce(operator.or_, (task.result() for task in tasks), read.result())
    files_by_name = {path.relative_to(target).as_posix(): path for path in target.rglob("*.png")}
    names = sorted(name for name, path in files_by_name.items() if image_statistics.area(path) <= MOST_PIXELS)
    if not names:
        raise SampleError(f"{pictures} contains no pictures in {INSIDE}/png; delete it and run the command again")
    measured = image_statistics.measure_all(folder / "png", names, folder / "reduced")
    originals = {name: _resolve(name, links) for name in sorted(links)}
    withdrawn = files_by_name.keys() - measured.keys()
    contents = Contents(
        tuple(Picture(name, works.get(name, Work()), measured[name]) for name in names),
        tuple(Duplicate(name, of, works.get(name, Work())) for name, of in originals.items() if of in measured),
        tuple(sorted({*withdrawn, *(name for name, of in originals.items() if of in withdrawn)})),
    )
    (folder / "library.json").write_bytes(JSON.dump_json(contents))


def _unpack(package: Path, folder: Path) -> dict[str, str]:
    """Unpack the pictures; returns the symbolic links, name -> the name that it points to."""
    links: dict[str, str] = {}
    with debian.contents(package) as stream:
        for member in stream:
            name = _name(member, "png")
            if name is None:
                continue
            if member.issym():
                links[name] = posixpath.normpath(posixpath.join(posixpath.dirname(name), member.linkname))
            elif member.isfile() and not name.startswith(LEFT_OUT):
                member.name = name  # the "data" filter refuses names that lead out of the folder
                stream.extract(member, folder, filter="data")
    return links


def _name(member: tarfile.TarInfo, kind: str) -> str | None:
    """The name in the library of a package's file, or None if it is not a `kind` file of the library."""
    path = posixpath.normpath(member.name)
    start = f"{INSIDE}/{kind}/"
    return path.removeprefix(start) if path.startswith(start) and path.endswith(f".{kind}") else None


def _resolve(name: str, links: dict[str, str]) -> str:
    """The end of a chain of links."""
    for _ in range(10):  # a cycle must not hang
        if name not in links:
            break
        name = links[name]
    return name


def _read_works(package: Path) -> dict[str, Work]:
    """The metadata of every drawing, by its picture's name."""
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
                works[name] = _read_work(file)
    # After all files: a link may come before its target.
    works |= {name: works[of] for name in links if (of := _resolve(name, links)) in works}
    return {name.removesuffix(".svg") + ".png": work for name, work in works.items()}


def _read_work(drawing: IO[bytes]) -> Work:
    """A drawing's metadata. The package's checksum was verified, so its XML can be trusted."""
    root = ET.parse(drawing).getroot()  # noqa: S314 (the checksum was verified)
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
    """An element's text on one line."""
    return " ".join("".join(element.itertext()).split()) if element is not None else ""
