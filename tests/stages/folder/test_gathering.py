"""A folder that anybody may have filled -> its pictures by content, and a reason for everything else."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from folders import MAX_BYTES, gathered, picture, write
from PIL import Image as Pillow

from stages.folder import listing
from stages.folder.contents import IDS, Image
from stages.workspace.errors import FolderError


def images(folder: Path) -> dict[str, Image]:
    with gathered(folder) as contents:
        return {image.path: image for image in contents.images()}


@pytest.fixture(scope="module")
def messy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two good pictures, and whatever else a folder may hold."""
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret.png").write_bytes(picture("secret"))
    folder = write(
        tmp_path_factory.mktemp("messy"),
        {
            "cats/good.png": picture("good"),
            "dogs/good.png": picture("other"),
            "top.png": picture("top"),
            "cats/.hidden.png": picture("hidden"),
            "cats/Thumbs.db": b"x",
            ".git/config": "x",
            "cats/text.png": "no picture",
            "cats/empty.png": b"",
            "cats/half.png": picture("half", size=(140, 140))[:150],
            "cats/heavy.png": bytes(MAX_BYTES + 1),
            "cats/wide.png": picture("wide", size=(30_000, 1)),
            "cats/Stra\N{LATIN SMALL LETTER SHARP S}e/\N{CAT}.png": picture("deep"),
        },
    )
    (folder / os.fsdecode(b"cats/\xff.png")).write_bytes(picture("latin"))
    (folder / "cats/out.png").symlink_to(outside / "secret.png")
    (folder / "cats/up").symlink_to(outside)
    (folder / "cats/round").symlink_to(folder)
    (folder / "cats/nowhere.png").symlink_to("gone.png")
    (folder / "cats/again.png").symlink_to("good.png")
    os.mkfifo(folder / "cats/pipe.png")
    return folder


def test_everything_is_a_picture_or_has_a_reason(messy: Path) -> None:
    with gathered(messy) as contents:
        assert sorted((path, reason) for path, reason, _ in contents.left_out()) == [
            (".git", "hidden"),
            ("cats/.hidden.png", "hidden"),
            ("cats/Thumbs.db", "hidden"),
            ("cats/\\xff.png", "not_utf8"),
            ("cats/empty.png", "corrupt"),
            ("cats/half.png", "corrupt"),
            ("cats/heavy.png", "too_large"),
            ("cats/nowhere.png", "link"),
            ("cats/out.png", "link"),
            ("cats/pipe.png", "special"),
            ("cats/round", "link"),
            ("cats/text.png", "corrupt"),
            ("cats/up", "link"),
            ("cats/wide.png", "too_large"),
            ("top.png", "no_label"),
        ]
        found = {image.path: (image.files, image.tags) for image in contents.images()}
    assert found == {
        "cats/again.png": (2, ("cats",)),  # a link within the folder
        "cats/Stra\N{LATIN SMALL LETTER SHARP S}e/\N{CAT}.png": (1, ("cats", "stra\N{LATIN SMALL LETTER SHARP S}e")),
        "dogs/good.png": (1, ("dogs",)),
    }


def test_a_file_is_what_its_bytes_say(tmp_path: Path) -> None:
    kinds = ("PNG", "JPEG", "GIF", "WEBP", "AVIF", "BMP", "TIFF")
    folder = write(tmp_path, {f"a/{kind}.txt": picture(kind, kind) for kind in kinds})
    found = images(folder)
    assert {path: image.measured.format for path, image in found.items()} == {
        f"a/{kind}.txt": kind.lower() for kind in kinds
    }
    for path, image in found.items():
        data = (folder / path).read_bytes()
        assert image.measured[:5] == (hashlib.sha512(data).hexdigest(), image.measured.format, 30, 20, len(data))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "I;16"])
def test_intensities_are_mean_lumas_of_the_quadrants(tmp_path: Path, mode: str) -> None:
    folder = write(tmp_path, {"a/b.png": picture("corners", mode=mode)})
    (image,) = images(folder).values()
    with Pillow.open(folder / "a/b.png") as opened:
        grey = opened.point(lambda value: value / 257).convert("L") if mode == "I;16" else opened
        on_white = Pillow.alpha_composite(Pillow.new("RGBA", grey.size, "white"), grey.convert("RGBA")).convert("RGB")
    luma = np.asarray(on_white, dtype=float) @ [0.2126, 0.7152, 0.0722]
    quadrants = [luma[rows, columns].mean() for rows in np.s_[:10, 10:] for columns in np.s_[:15, 15:]]
    assert image.measured[5:] == pytest.approx(quadrants, abs=0.6)


def test_doubles_are_one_picture_with_the_tags_of_all(tmp_path: Path) -> None:
    same = picture("same")
    folder = write(tmp_path, {"cats/a.png": same, "dogs/small/b.gif": same, "cats/c.png": picture("other")})
    found = images(folder)
    assert found.keys() == {"cats/a.png", "cats/c.png"}
    double = found["cats/a.png"]
    assert (double.files, double.labels, double.tags) == (2, ("cats", "dogs"), ("cats", "dogs", "small"))
    assert double.contradicted
    assert not found["cats/c.png"].contradicted


def test_an_id_does_not_depend_on_other_pictures(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", {f"a/{number}.png": picture(f"{number}") for number in range(20)})
    before = {path: image.id for path, image in images(folder).items()}
    write(folder, {f"b/{number}.png": picture(f"new {number}") for number in range(20)})
    (folder / "a/0.png").unlink()
    shutil.move(folder / "a/1.png", folder / "b/one.jpg")
    after = {path: image.id for path, image in images(folder).items()}
    assert len(set(after.values())) == 39
    assert all(0 < number < IDS for number in after.values())
    assert {path: after[path] for path in before.keys() - {"a/0.png", "a/1.png"}} == {
        path: number for path, number in before.items() if path not in ("a/0.png", "a/1.png")
    }
    assert after["b/one.jpg"] == before["a/1.png"]


def test_pictures_whose_hashes_collide_have_different_ids(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.folder.contents.IDS", 3)
    found = images(write(tmp_path, {f"a/{number}.png": picture(f"{number}") for number in range(9)}))
    assert len({image.id for image in found.values()}) == 9


def test_folders_of_splits_are_no_labels(tmp_path: Path) -> None:
    folder = write(tmp_path, {"train/cats/a.png": picture("a"), "Test/dogs/b.png": picture("b"), "__MACOSX/c": ""})
    assert {image.tags for image in images(folder).values()} == {("cats",), ("dogs",)}
    write(folder, {"boats/c.png": picture("c")})  # then `train` is a vehicle
    assert {image.labels for image in images(folder).values()} == {("train",), ("test",), ("boats",)}


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_folder_that_is_none_is_an_error(tmp_path: Path, kind: str) -> None:
    if kind == "file":
        (tmp_path / "pictures").write_text("")
    message = {"missing": "there is no folder .*; put pictures there", "file": "is a file; set download"}[kind]
    with pytest.raises(FolderError, match=message):
        listing.checked(tmp_path / "pictures")


def test_a_file_is_not_read_where_a_link_took_its_place(tmp_path: Path) -> None:
    folder = write(tmp_path / "pictures", {"a/b.png": picture("b")})
    (tmp_path / "secret").write_text("secret")
    assert listing.read(folder, "a/b.png", MAX_BYTES) == picture("b")
    assert listing.read(folder, "a/b.png", 10) is None
    for name in ("../secret", str(tmp_path / "secret")):
        with pytest.raises(PermissionError):
            listing.read(folder, name, MAX_BYTES)
    os.mkfifo(folder / "a/pipe")
    with pytest.raises(PermissionError):
        listing.read(folder, "a/pipe", MAX_BYTES)
