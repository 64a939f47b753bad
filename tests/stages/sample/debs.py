"""Debian packages for the tests: an ar archive of a version, a control file, and the compressed files."""

from __future__ import annotations

import gzip
import hashlib
import io
import lzma
import tarfile
from collections.abc import Mapping
from pathlib import Path

from stages.sample.debian import Package

VERSION = "1:0.18-1"


def member(name: str, body: bytes) -> bytes:
    """One file of an ar archive, padded to an even length."""
    header = f"{name:<16}{0:<12}{0:<6}{0:<6}{100644:<8}{len(body):<10}`\n"
    return header.encode() + body + b"\n" * (len(body) % 2)


def tar(files: Mapping[str, bytes], links: Mapping[str, str], packing: str) -> bytes:
    """A packed tar of files and symbolic links, with Debian's `./` before each name."""
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for name, body in files.items():
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(body)
            archive.addfile(info, io.BytesIO(body))
        for name, target in links.items():
            info = tarfile.TarInfo(f"./{name}")
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    data = plain.getvalue()
    return lzma.compress(data) if packing == "xz" else gzip.compress(data, mtime=0)


def deb(files: Mapping[str, bytes], links: Mapping[str, str] | None = None, packing: str = "xz") -> bytes:
    """A package's bytes; its data are packed with `xz` or `gz`, its control file has an odd length."""
    data = tar(files, links or {}, packing)
    control = tar({"control": b"Package: tiny\n"}, {}, "gz")
    control += b"\0" * (1 - len(control) % 2)
    parts = {"debian-binary": b"2.0\n", "control.tar.gz": control, f"data.tar.{packing}": data}
    return b"!<arch>\n" + b"".join(member(name, body) for name, body in parts.items())


def package(name: str, body: bytes) -> Package:
    """What a package of these bytes is known by."""
    return Package(name, VERSION, hashlib.sha256(body).hexdigest())


def put(folder: Path, package: Package, body: bytes, spelling: int = 0) -> Path:
    """Put a package's file into a folder, under one of the names that it may have."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / package.files[spelling]
    file.write_bytes(body)
    return file
