"""A folder of one's own, as conf/README.md says: real DVC, real PostgreSQL, real HTTP, up to the splits."""

from __future__ import annotations

import shlex
from pathlib import Path

import pandas as pd
import pytest
from clones import ROOT, Clone
from folders import picture, write

from stages.workspace import paths

GUIDE = (ROOT / "conf/README.md").read_text()


def commands(pictures: Path) -> list[list[str]]:
    """The guide's commands, up to the stage that would train."""
    section = GUIDE.partition("\n## A folder of your own\n")[2].partition("```sh\n")[2].partition("```")[0]
    lines = section.replace("~/pictures", f"'{pictures}'").replace("dvc repro", "dvc repro split").splitlines()
    return [shlex.split(line, comments=True) for line in lines]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    """A clone in which the guide's commands ran on a folder of 61 files."""
    folder = tmp_path_factory.mktemp("folder")
    files = {f"memes/{number}.png": picture(f"meme {number}", size=(60, 40)) for number in range(24)}
    files |= {f"fine/drawn/{number}.jpg": picture(f"fine {number}", "WEBP", size=(50, 50)) for number in range(35)}
    write(folder / "a pictures", {**files, "memes/again.png": files["memes/0.png"], "fine/Thumbs.db": b"x"})
    clone = Clone(folder)
    for words in commands(folder / "a pictures"):
        clone.run(*words)
    return clone


def test_the_guides_commands_make_a_data_set(clone: Clone) -> None:
    images = pd.read_parquet(clone.folder / paths.IMAGES)
    assert dict(images.label.value_counts()) == {"fine": 35, "memes": 24}
    assert {tuple(tags) for tags in images.tags} == {("memes",), ("drawn", "fine")}
    assert clone.json(paths.FOLDER_SUMMARY)["left_out"] == {"hidden": 1}
    assert clone.json(paths.CRAWL) == {"pictures": {"ok": 59}}
    splits = clone.json(paths.SPLIT_SUMMARY)["splits"]
    assert all(split["labels"][label] for split in splits.values() for label in ("memes", "fine"))
    assert "up to date" in clone.run("dvc", "repro", "split")


def test_git_has_what_it_takes_and_no_picture(clone: Clone) -> None:
    staged = clone.run("git", "diff", "--cached", "--name-only").split()
    assert {
        "conf/policy/mine.yaml",
        "conf/experiment/mine.yaml",
        "data/folder/dvc.lock",
        "data/folder/pictures.dvc",
        "data/folder/summary.json",
        "dvc.lock",
        "params.yaml",
    } <= set(staged)
    assert not [name for name in staged if name.endswith((".png", ".jpg", ".pgdump", ".csv"))]
    assert clone.run("git", "status", "--porcelain", "--untracked-files=normal", "data").count("??") == 0


def test_more_pictures_move_hardly_any_other_one_and_are_alone_downloaded(clone: Clone) -> None:
    def splits() -> dict[int, str]:
        return {
            row.image_id: name
            for name, path in paths.SPLITS.items()
            for row in pd.read_parquet(clone.folder / path).itertuples()
        }

    before = splits()
    new = {f"memes/new/{number}.png": picture(f"new {number}", size=(60, 40)) for number in range(4)}
    write(clone.folder / "data/folder/pictures", new)
    clone.run("dvc", "add", "data/folder/pictures")
    clone.run("dvc", "repro", "split")
    after = splits()
    assert len(after.keys() - before.keys()) == 4
    assert sum(after.get(number) != name for number, name in before.items()) <= 2
    statistics = next((clone.folder.parent / "cache").glob("crawl-folder*.json")).read_text()
    assert '"requests": 4,' in statistics


def test_the_sample_is_as_it_was(clone: Clone) -> None:
    assert "folder@pictures" in clone.run("dvc", "stage", "list", "--all")
    clone.run("python", "-m", "stages.config", "source=sample", "policy=house")
    assert "folder@pictures" not in clone.run("dvc", "stage", "list", "--all")
