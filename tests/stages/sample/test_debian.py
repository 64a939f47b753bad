"""Package files: found, downloaded, checked, read; and the errors if that fails."""

from __future__ import annotations

import os
import random
from pathlib import Path

import debs
import pytest

from stages.sample import debian
from stages.sample.debian import contents, fetch
from stages.workspace.errors import SampleError

FILES = {"usr/share/doc/tiny/readme": b"read me\n" * 500, "usr/share/tiny/a picture.png": b"\x89PNG" + bytes(1001)}
LINKS = {"usr/share/tiny/link.png": "a picture.png"}
BODY = debs.deb(FILES, LINKS)
TINY = debs.package("tiny", BODY)
OTHER = debs.deb({"other": b"other"})
TWO = (TINY, debs.package("other", OTHER))


@pytest.fixture
def named_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that `MLPY_SAMPLE_DEBS` names."""
    folder = tmp_path / "packages by hand"
    folder.mkdir()
    monkeypatch.setenv(debian.FOLDER_VARIABLE, str(folder))
    return folder


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder that programs are found in, with nothing in it; no folder of packages is named."""
    monkeypatch.delenv(debian.FOLDER_VARIABLE, raising=False)
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def apt(path: Path, script: str) -> Path:
    """Put an apt-get on the PATH that notes its words in the file returned, and does what the script says."""
    program, noted = path / "apt-get", path.parent / "words"
    program.write_text(f'#!/bin/sh\necho "$@" >> "{noted}"\nPATH=/usr/bin:/bin\n{script}\n')
    program.chmod(0o755)
    return noted


def bringing(folder: Path, *bodies: bytes) -> str:
    """A script that brings these files as apt does, into the folder that it runs in."""
    for package, body in zip(TWO, bodies, strict=False):
        debs.put(folder, package, body)
    return f'cp "{folder}"/* .'


@pytest.mark.parametrize("spelling", range(3), ids=["%3a", "colon", "%3A"])
def test_a_named_folder_is_asked_under_every_spelling(named_folder: Path, tmp_path: Path, spelling: int) -> None:
    file = debs.put(named_folder, TINY, BODY, spelling)
    assert fetch([TINY], tmp_path / "kept") == [file]
    assert not (tmp_path / "kept").exists()


def test_apts_name_of_a_file_has_its_colon_quoted() -> None:
    assert TINY.files[0] == "tiny_1%3a0.18-1_all.deb"
    assert str(TINY) == "tiny=1:0.18-1"


def test_a_named_folder_may_be_in_the_users_home(
    named_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = debs.put(named_folder, TINY, BODY)
    monkeypatch.setenv("HOME", str(named_folder.parent))
    monkeypatch.setenv(debian.FOLDER_VARIABLE, f"~/{named_folder.name}")
    assert fetch([TINY], tmp_path / "kept") == [file]


def message(error: pytest.ExceptionInfo[SampleError]) -> str:
    """The error message, which must be one line."""
    text = str(error.value)
    assert "\n" not in text
    return text


def test_a_file_that_is_not_in_the_named_folder(named_folder: Path, tmp_path: Path) -> None:
    debs.put(named_folder, TINY, BODY)
    with pytest.raises(SampleError) as caught:
        fetch(TWO, tmp_path / "kept")
    assert message(caught) == (
        f"{named_folder} (MLPY_SAMPLE_DEBS) lacks other_1%3a0.18-1_all.deb; put it there, or unset MLPY_SAMPLE_DEBS to "
        "download it with apt"
    )


def test_a_named_folder_that_is_none(named_folder: Path, tmp_path: Path) -> None:
    named_folder.rmdir()
    with pytest.raises(SampleError, match=r"lacks tiny_1%3a0\.18-1_all\.deb; put it there"):
        fetch([TINY], tmp_path / "kept")


def test_a_file_of_another_checksum(named_folder: Path, tmp_path: Path) -> None:
    file = debs.put(named_folder, TINY, BODY[:-1] + b"!")
    with pytest.raises(SampleError) as caught:
        fetch([TINY], tmp_path / "kept")
    assert message(caught).startswith(f"{file} is not tiny=1:0.18-1: its SHA-256 is ")
    assert message(caught).endswith(f"not {TINY.sha256}; delete it and run the command again")


def test_without_apt(path: Path, tmp_path: Path) -> None:
    with pytest.raises(SampleError) as caught:
        fetch([TINY], tmp_path / "kept")
    assert message(caught) == (
        "apt-get, which downloads tiny=1:0.18-1, is not installed; run `apt-get download` on another machine and set "
        "MLPY_SAMPLE_DEBS to the folder with the file"
    )


def test_apt_fetches_once_what_is_not_there(path: Path, tmp_path: Path) -> None:
    noted = apt(path, bringing(tmp_path / "mirror", BODY, OTHER))
    kept = tmp_path / "a cache/packages"
    files = fetch(TWO, kept)
    assert [file.read_bytes() for file in files] == [BODY, OTHER]
    assert fetch(TWO, kept) == files
    assert noted.read_text() == "download tiny=1:0.18-1 other=1:0.18-1\n"
    assert sorted(kept.iterdir()) == sorted(files), "nothing else is left behind"


def test_apt_is_asked_for_the_missing_one_only(path: Path, tmp_path: Path) -> None:
    noted = apt(path, bringing(tmp_path / "mirror", BODY))
    debs.put(tmp_path / "kept", TWO[1], OTHER)
    fetch(TWO, tmp_path / "kept")
    assert noted.read_text() == "download tiny=1:0.18-1\n"


def test_apt_that_fails(path: Path, tmp_path: Path) -> None:
    noted = apt(path, "echo 'W: no network' >&2; echo 'E: Unable to locate package tiny' >&2; exit 100")
    with pytest.raises(SampleError) as caught:
        fetch([TINY], tmp_path / "kept")
    assert message(caught) == (
        "apt-get cannot download tiny=1:0.18-1 (Unable to locate package tiny); run `apt-get update` as root and try "
        "again, or run `apt-get download` on another machine and set MLPY_SAMPLE_DEBS to the folder with the file"
    )
    assert noted.read_text().splitlines()[1:] == ["update"] * (os.geteuid() == 0), "only root may update"
    assert list((tmp_path / "kept").iterdir()) == []


def test_apt_that_brings_nothing(path: Path, tmp_path: Path) -> None:
    apt(path, "exit 0")
    with pytest.raises(
        SampleError, match=r"apt-get did not download tiny=1:0\.18-1; run `apt-get download` on another machine"
    ):
        fetch([TINY], tmp_path / "kept")


def test_apt_that_brings_another_file(path: Path, tmp_path: Path) -> None:
    apt(path, bringing(tmp_path / "mirror", b"another"))
    with pytest.raises(SampleError, match=r"is not tiny=1:0\.18-1: its SHA-256 is .*; .* run the command again"):
        fetch([TINY], tmp_path / "kept")
    assert list((tmp_path / "kept").iterdir()) == []


@pytest.mark.parametrize("packing", ["xz", "gz"])
def test_contents_are_the_packages_files_in_order(tmp_path: Path, packing: str) -> None:
    file = debs.put(tmp_path, TINY, debs.deb(FILES, LINKS, packing))
    read: dict[str, bytes | str] = {}
    with contents(file) as stream:
        for member in stream:
            opened = stream.extractfile(member) if member.isfile() else None
            read[member.name] = opened.read() if opened else member.linkname
    expected = {f"./{name}": body for name, body in FILES.items()} | {"./usr/share/tiny/link.png": "a picture.png"}
    assert list(read.items()) == list(expected.items())


def names(file: Path) -> list[str]:
    with contents(file) as stream:
        return [member.name for member in stream]


WITHOUT_DATA = b"!<arch>\n" + debs.member("debian-binary", b"2.0\n")


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"", "is not a Debian package"),
        (b"<html>not found</html>", "is not a Debian package"),
        (WITHOUT_DATA, "contains no files"),
        (WITHOUT_DATA + b"x" * 60, "is damaged"),
        (WITHOUT_DATA + debs.member("data.tar.xz", b"\xfd7zXZ\0" + b"x" * 900), "cannot be unpacked"),
        (WITHOUT_DATA + debs.member("data.tar.gz", b"\x1f\x8b" + b"x" * 900), "cannot be unpacked"),
        (WITHOUT_DATA + debs.member("data.tar.zst", b"\x28\xb5\x2f\xfd" + b"x" * 900), "cannot be unpacked"),
    ],
    ids=["empty", "html", "no-data", "bad-header", "bad-xz", "bad-gz", "bad-packing"],
)
def test_a_file_that_is_not_a_package(tmp_path: Path, body: bytes, complaint: str) -> None:
    file = debs.put(tmp_path, TINY, body)
    with pytest.raises(SampleError) as caught:
        names(file)
    assert message(caught).startswith(f"{file} {complaint}")
    assert message(caught).endswith("; delete it and run the command again")


@pytest.mark.parametrize("packing", ["xz", "gz"])
def test_a_package_that_is_cut_off(tmp_path: Path, packing: str) -> None:
    chance = random.Random(0)
    body = debs.deb({f"file {number}": chance.randbytes(3000) for number in range(20)}, packing=packing)
    assert len(names(debs.put(tmp_path, TINY, body))) == 20
    for length in range(0, len(body) * 9 // 10, 997):
        with pytest.raises(SampleError, match="; delete it and run the command again"):
            names(debs.put(tmp_path, TINY, body[:length]))


def test_an_error_of_the_reader_is_not_taken_for_one_of_the_package(tmp_path: Path) -> None:
    file = debs.put(tmp_path, TINY, BODY)
    with pytest.raises(KeyError, match="mine"), contents(file):
        raise KeyError("mine")
