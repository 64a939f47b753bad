"""A tiny Open Clip Art Library, from its two packages to what is known of each picture."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import clipart
import debs
import numpy as np
import pytest
from clipart import DRAWINGS, SHOWN
from PIL import Image

from stages.philomena import intensities
from stages.sample import debian, image_statistics, openclipart
from stages.sample.openclipart import Library
from stages.sample.works import Work
from stages.workspace.errors import SampleError

ROOT = Path(__file__).parents[3]
FOUND = sorted(f"{name}.png" for name in (*SHOWN, "tools/clip", "tools/mute"))


@pytest.fixture(scope="module")
def works(library: Library) -> dict[str, Work]:
    """What each name's SVG says."""
    contents = library.contents
    return {item.name: item.work for item in (*contents.pictures, *contents.duplicates)}


def test_every_drawing_is_a_picture_but_for_stars_and_icons(library: Library) -> None:
    assert [picture.name for picture in library.contents.pictures] == FOUND


def test_only_pictures_of_the_library_are_unpacked(library: Library) -> None:
    files = [file for file in (library.folder / "png").rglob("*") if file.is_file() or file.is_symlink()]
    assert sorted(file.relative_to(library.folder / "png").as_posix() for file in files) == FOUND


def test_a_link_is_a_duplicate_of_what_it_leads_to(library: Library) -> None:
    assert [(duplicate.name, duplicate.of) for duplicate in library.contents.duplicates] == [
        ("animals/kitty.png", "animals/cat.png"),
        ("people/lady.png", "people/woman.png"),
        ("pets/kitten.png", "animals/cat.png"),
        ("weapons/katana.png", "weapons/sword.png"),
    ]


def test_a_picture_of_too_many_pixels_is_withdrawn_with_its_other_names(
    tiny: Any, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    areas = {each.name: each.statistics.width * each.statistics.height for each in library.contents.pictures}
    monkeypatch.setattr(openclipart, "MOST_PIXELS", areas["animals/cat.png"] - 1)
    monkeypatch.setenv("MLPY_CACHE", str(tmp_path))
    monkeypatch.setenv(debian.FOLDER_VARIABLE, str(tiny.debs))
    contents = openclipart.gather(tiny.packages, ()).contents
    large = {name for name, area in areas.items() if area >= areas["animals/cat.png"]}
    other_names = {duplicate.name for duplicate in library.contents.duplicates if duplicate.of in large}
    assert {"animals/cat.png", "animals/kitty.png", "pets/kitten.png"} <= large | other_names
    assert set(contents.withdrawn) == large | other_names
    assert {picture.name for picture in contents.pictures} == areas.keys() - large
    assert {duplicate.of for duplicate in contents.duplicates}.isdisjoint(large)


def test_a_drawing_says_what_its_author_wrote(works: dict[str, Work]) -> None:
    assert works["animals/cat.png"] == Work(
        title="The cat",
        description="Drawn by hand",
        tags=("Cat", "animal"),
        creators=("Zoe <zoe@example.org>",),
        licences=(clipart.PUBLIC,),
    )
    assert works["buildings/tower.png"].tags == ("tower", "high tower"), "in one line"
    assert works["buildings/tower.png"].creators == ()
    assert works["signs/flag.png"].tags == ("Étoile", "flags")
    assert works["recreation/junk.png"].tags == ("hash(0x8a3b2c)",), "junk is the board's matter"
    assert works["tools/clip.png"].licences == (clipart.BY_SA,)


def test_a_drawing_without_metadata_says_nothing(works: dict[str, Work]) -> None:
    assert works["tools/mute.png"] == Work()


def test_a_duplicate_says_what_its_own_drawing_or_the_linked_one_says(works: dict[str, Work]) -> None:
    assert works["weapons/katana.png"].tags == ("katana",)
    assert works["weapons/katana.png"].creators == ("Eve",)
    assert works["animals/kitty.png"] == works["pets/kitten.png"] == works["animals/cat.png"]


def test_size_and_hash_are_those_of_the_packaged_file(library: Library) -> None:
    for picture in library.contents.pictures:
        drawing = DRAWINGS[picture.name.removesuffix(".png")]
        data = library.file(picture.name).read_bytes()
        assert data == clipart.png(picture.name.removesuffix(".png"), drawing)
        statistics = picture.statistics
        assert (statistics.width, statistics.height) == drawing.size
        assert (statistics.size, statistics.sha512) == (len(data), hashlib.sha512(data).hexdigest())


def quadrants(file: Path) -> list[float]:
    """Mean luma of the four quadrants on a white page, pixel by pixel."""
    with Image.open(file) as image:
        pixels = np.asarray(image.convert("RGBA")).astype(float)
    alpha = pixels[..., 3:] / 255
    luma = (pixels[..., :3] * alpha + 255 * (1 - alpha)) @ np.array([0.2126, 0.7152, 0.0722])
    height, width = luma.shape
    north, south = luma[: max(1, height // 2)], luma[height // 2 :]
    west, east = np.s_[:, : max(1, width // 2)], np.s_[:, -max(1, width // 2) :]
    return [float(part.mean()) for part in (north[west], north[east], south[west], south[east])]


@pytest.mark.parametrize("name", [name for name in SHOWN if name != "special/huge"])
def test_corners_are_mean_lumas_of_the_quadrants(library: Library, name: str) -> None:
    (picture,) = (candidate for candidate in library.contents.pictures if candidate.name == f"{name}.png")
    clear = DRAWINGS[name].mode in ("LA", "RGBA", "P")
    near = 0.5 if clear else 2e-6  # a half-transparent pixel is rounded to a whole number
    assert picture.statistics.corners == pytest.approx(quadrants(library.file(picture.name)), abs=near)
    assert len(set(picture.statistics.corners)) > 1


@pytest.mark.parametrize("mode", ["P", "LA", "RGBA"])
def test_what_is_transparent_is_white(tmp_path: Path, mode: str) -> None:
    image = Image.new("RGBA", (8, 8), (0, 0, 0, 255))
    image.paste((200, 10, 10, 0), (4, 0, 8, 4))
    if mode == "P":
        image = image.convert("RGB").quantize(2)
        image.info["transparency"] = image.getpixel((7, 0))
    image.convert(mode).save(tmp_path / "a.png", **image.info)
    assert image_statistics.measure(tmp_path / "a.png", tmp_path / "reduced.png").corners == (0, 255, 0, 0)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (2, 1), (3, 1), (5, 5)])
def test_a_picture_of_few_pixels_has_corners(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("L", size, 77).save(tmp_path / "a.png")
    assert image_statistics.measure(tmp_path / "a.png", tmp_path / "reduced.png").corners == pytest.approx((77,) * 4)


def test_corners_do_not_depend_on_how_the_picture_is_cut_up(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    for strip in (1, 1301 * 37):
        monkeypatch.setattr(intensities, "STRIP", strip)
        for name in ("people/woman.png", "buildings/tower.png"):
            (picture,) = (candidate for candidate in library.contents.pictures if candidate.name == name)
            assert image_statistics.measure(library.file(name), Path("unused")) == picture.statistics


def test_a_huge_picture_has_a_reduced_copy_and_others_have_none(library: Library) -> None:
    reduced = library.source("special/huge.png")
    assert reduced == library.folder / "reduced/special/huge.png"
    with Image.open(reduced) as image:
        assert image.size == (3000, 1750), "a whole fraction, and not under 2048"
        pixel = image.convert("L").getpixel((10, 10))
    with Image.open(library.file("special/huge.png")) as image:
        assert image.getpixel((20, 20)) == pixel
    others = [name for name in FOUND if name != "special/huge.png"]
    assert all(library.source(name) == library.file(name) for name in others)


def test_what_is_gathered_is_used_again_without_packages(
    tiny: Any, library: Library, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLPY_CACHE", str(tiny.cache))
    monkeypatch.setenv(debian.FOLDER_VARIABLE, str(tmp_path))
    before = [(file, file.stat().st_mtime_ns) for file in sorted((library.folder / "png").rglob("*"))]
    assert openclipart.gather(tiny.packages, ()) == library
    assert [(file, file.stat().st_mtime_ns) for file in sorted((library.folder / "png").rglob("*"))] == before
    assert openclipart.read(library.folder) == library


GATHER = """
import sys
from stages.sample.debian import Package
from stages.sample.openclipart import gather
if __name__ == "__main__":
    print(gather(tuple(Package(*words.split("/")) for words in sys.argv[1:]), ()).folder)
"""


def test_two_runs_at_once_after_a_killed_one_gather_the_same(tiny: Any, library: Library, tmp_path: Path) -> None:
    partial = tmp_path / f"cache/sample/{library.folder.name}.partial"
    (partial / "png").mkdir(parents=True)
    (partial / "png/half.png").write_bytes(b"half a pict")
    words = [f"{package.name}/{package.version}/{package.sha256}" for package in tiny.packages]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "MLPY_CACHE": str(tmp_path / "cache"),
        debian.FOLDER_VARIABLE: str(tiny.debs),
    }
    runs = [
        subprocess.Popen([sys.executable, "-c", GATHER, *words], env=environment, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    folders = {run.communicate()[0].strip() for run in runs}
    assert [run.returncode for run in runs] == [0, 0]
    (folder,) = map(Path, folders)
    assert not partial.exists()
    assert (folder / "library.json").read_bytes() == (library.folder / "library.json").read_bytes()


def test_a_package_without_pictures_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    body = debs.deb({"usr/share/doc/readme": b""})
    packages = [debs.package(name, body) for name in ("pixels", "drawings")]
    for package in packages:
        debs.put(tmp_path, package, body)
    monkeypatch.setenv(debian.FOLDER_VARIABLE, str(tmp_path))
    monkeypatch.setenv("MLPY_CACHE", str(tmp_path / "cache"))
    with pytest.raises(SampleError, match="contains no pictures in usr/share/openclipart/png"):
        openclipart.gather(packages, ())
