"""Pictures by other hands in the library: unpacked by their tables, and left out where a machine cannot have them."""

from __future__ import annotations

import dataclasses
import io
import logging
from pathlib import Path
from typing import Any

import debs
import pytest
from PIL import Image

from stages.sample import debian, openclipart, others
from stages.sample.tables import Origin, Rule
from stages.sample.uploads import uploads
from stages.sample.works import Work
from stages.workspace.errors import SampleError

INSIDE = "usr/share/tiny cards"


def picture(shade: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (30, 40), shade).save(file, "PNG")
    return file.getvalue()


BODY = debs.deb(
    {f"{INSIDE}/{suit}/{rank}.png": picture(rank * 10) for suit in ("hearts", "spades") for rank in range(1, 11)}
    | {f"{INSIDE}/back.png": picture(200), "usr/share/elsewhere/hearts/ace.png": picture(7), f"{INSIDE}/LICENSE": b"x"},
    {f"{INSIDE}/link.png": "back.png"},
)
CARDS = Origin(
    package="tiny-cards",
    version=debs.VERSION,
    sha256=debs.package("tiny-cards", BODY).sha256,
    creator="Card Maker",
    licence="GPL-2+",
    homepage="http://cards.example.org",
    reader="files",
    inside=INSIDE,
    first_id=10_000,
    rules=(Rule(("hearts/.*",), ("card", "hearts"), 4), Rule(("back",), ("pattern",))),
    name="cards",
)


def test_the_pictures_that_the_table_names_are_written_with_its_tags(tmp_path: Path) -> None:
    package = debs.put(tmp_path / "debs", CARDS.debian, BODY)
    works = others.unpack(CARDS, package, tmp_path / "png")
    written = {file.relative_to(tmp_path / "png").as_posix() for file in (tmp_path / "png").rglob("*.png")}
    assert written == works.keys()
    assert works.pop("cards/back.png").tags == ("pattern",)
    assert len(works) == 4
    assert set(works.values()) == {
        Work("", "", ("card", "hearts"), ("Card Maker",), ("GPL-2+",), "cards", "http://cards.example.org", 10_000)
    }
    assert (tmp_path / "png/cards/back.png").read_bytes() == picture(200)


def test_a_table_without_a_picture_is_an_error(tmp_path: Path) -> None:
    package = debs.put(tmp_path, CARDS.debian, BODY)
    origin = dataclasses.replace(CARDS, rules=(Rule(("clubs/.*",), ("card",)),))
    with pytest.raises(SampleError, match=r"none of the pictures that cards\.yaml names"):
        others.unpack(origin, package, tmp_path / "png")


def test_a_file_of_another_package_is_not_read(tmp_path: Path) -> None:
    package = debs.put(tmp_path, CARDS.debian, BODY)
    assert "hearts/ace.png" not in debian.files(package, INSIDE)
    assert debian.files(package, "usr/share/elsewhere") == {"hearts/ace.png": picture(7)}


@pytest.fixture
def folder(tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of packages, with the tiny library's in it; the cache root is empty."""
    folder = tmp_path / "debs"
    folder.mkdir()
    for file in tiny.debs.iterdir():
        (folder / file.name).symlink_to(file)
    monkeypatch.setenv(debian.FOLDER_VARIABLE, str(folder))
    monkeypatch.setenv("MLPY_CACHE", str(tmp_path / "cache"))
    return folder


def test_the_library_and_its_board_have_the_other_pictures(tiny: Any, folder: Path) -> None:
    debs.put(folder, CARDS.debian, BODY)
    library = openclipart.gather(tiny.packages, (CARDS,))
    added = {picture.name: picture for picture in library.contents.pictures if picture.work.origin == "cards"}
    assert len(added) == 5
    assert added["cards/back.png"].statistics.corners == (200.0,) * 4
    assert library.file("cards/back.png").read_bytes() == picture(200)
    board = {image.picture.name: image for image in uploads(library.contents) if not image.merged_into}
    assert board.keys() > {picture.name for picture in tiny.library.contents.pictures}
    assert "origin:cards" in board["cards/back.png"].tags
    assert board["cards/back.png"].name == "back.png"
    assert openclipart.gather(tiny.packages, (CARDS,)) == library
    assert openclipart.read(library.folder) == library


def test_a_package_that_cannot_be_had_is_a_warning_and_moves_nothing(
    tiny: Any, folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        without = openclipart.gather(tiny.packages, (CARDS,))
    assert f"the sample board is built without {CARDS.debian}" in caplog.text
    assert without.contents == tiny.library.contents
    assert openclipart.gather(tiny.packages, ()).folder == without.folder
    debs.put(folder, CARDS.debian, BODY)
    whole = openclipart.gather(tiny.packages, (CARDS,))
    assert whole.folder != without.folder, "once it can be had, it is"
    ids = {image.id: image for image in uploads(whole.contents)}
    assert all(ids[image.id] == image for image in uploads(without.contents))


def test_a_table_that_changes_gives_another_library(tiny: Any, folder: Path) -> None:
    debs.put(folder, CARDS.debian, BODY)
    tagged = dataclasses.replace(CARDS, rules=(Rule(("hearts/.*",), ("card",), 4),))
    assert openclipart.gather(tiny.packages, (CARDS,)).folder != openclipart.gather(tiny.packages, (tagged,)).folder
