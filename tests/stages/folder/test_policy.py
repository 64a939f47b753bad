"""Policies for a folder's labels: composed by Hydra as any other, whatever the folders are called."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from folders import write

from stages.config.compose import compose
from stages.folder import policy
from stages.folder.policy import propose, survey
from stages.workspace import paths
from stages.workspace.errors import FolderError, ParamsError

ROOT = Path(__file__).parents[3]


def files(**counts: int) -> dict[str, bytes | str]:
    """As many files for each label; none of them is opened."""
    return {f"{label}/{number}.png": "" for label, count in counts.items() for number in range(count)}


def proposed(folder: Path, *chosen: str, harmless: str | None = None) -> dict[str, Any]:
    return propose("mine", survey(folder), folder, chosen, harmless)


def labels(found: dict[str, Any]) -> dict[str, list[str]]:
    return {label: rule.get("any", ["rest"]) for label, rule in found["labels"].items()}


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the repository's `conf/`."""
    shutil.copytree(ROOT / "conf", tmp_path / "conf")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_two_labels_are_binary_and_the_most_frequent_is_harmless(tmp_path: Path) -> None:
    found = proposed(write(tmp_path, files(memes=2, cats=3)))
    assert (found["kind"], list(found["labels"])) == ("binary", ["memes", "cats"])


def test_a_name_tells_what_is_harmless_and_a_flag_decides(tmp_path: Path) -> None:
    folder = write(tmp_path, files(Memes=3, Safe=1, gore=2))
    found = proposed(folder)
    assert (found["kind"], list(found["labels"])) == ("multiclass", ["gore", "memes", "safe"])
    assert list(proposed(folder, harmless="memes")["labels"]) == ["gore", "safe", "memes"]


def test_several_labels_of_a_picture_are_multilabel(tmp_path: Path) -> None:
    folder = write(tmp_path, {**files(x=3), "metadata.csv": "file_name,labels\nx/0.png,b|a\nx/1.png,a\nx/2.png,\n"})
    found = proposed(folder)
    assert (found["kind"], labels(found)) == ("multilabel", {"a": ["a"], "b": ["b"]})


def test_without_labels_all_tags_are_labels_but_no_artists(tmp_path: Path) -> None:
    text = "file_name,tags,artist\nx/0.png,b|a,zoe\nx/1.png,a,zoe\n"
    found = proposed(write(tmp_path, {**files(x=2), "metadata.csv": text}))
    assert (found["kind"], labels(found)) == ("multilabel", {"a": ["a"], "b": ["b"]})


def test_one_tag_is_told_from_the_rest(tmp_path: Path) -> None:
    folder = write(tmp_path, files(**{"cats/old": 1, "cats/new": 2, "dogs": 1}))
    found = proposed(folder, "old")
    assert (found["kind"], labels(found)) == ("binary", {"old": ["old"], "others": ["rest"]})
    assert proposed(folder, "old", "dogs")["kind"] == "multilabel"


def test_a_label_among_others_is_not_harmless(tmp_path: Path) -> None:
    folder = write(tmp_path, files(**{"cats/old": 1, "cats/new": 2, "dogs": 1}))
    for chosen, harmless in (((), "old"), (("cats", "dogs"), "dogs")):
        with pytest.raises(FolderError, match=r"cannot be the harmless label: .*; leave --harmless out"):
            proposed(folder, *chosen, harmless=harmless)


@pytest.mark.parametrize(
    ("counts", "chosen", "message"),
    [
        ({}, (), "has no file with a label; put pictures into a folder for each label"),
        ({"cats": 2}, (), r"all 2 files of .* have the label cats; add a folder of pictures without it"),
        ({"cats": 2, "dogs": 1}, ("cat",), r"no picture of .* has the tag 'cat'; did you mean cats\?"),
        ({"cats": 2, "dogs": 1}, ("xyz",), r"has the tag 'xyz'; look at the names of its folders"),
        ({f"label {number}": 1 for number in range(51)}, (), "has 51 labels or tags; choose those to tell apart"),
        ({"${oc.env:HOME}": 1, "b": 1}, (), "cannot be a label, since Hydra reads it as a reference; rename it"),
        ({"???": 1, "b": 1}, (), "cannot be a label, since Hydra reads it as a reference; rename it"),
    ],
)
def test_what_cannot_be_a_policy_is_one_sentence(
    tmp_path: Path, counts: dict[str, int], chosen: tuple[str, ...], message: str
) -> None:
    with pytest.raises(FolderError, match=message):
        proposed(write(tmp_path, files(**counts)), *chosen)


def test_any_names_become_a_policy_that_composes(workplace: Path) -> None:
    names = [
        "none",
        "Yes",
        "1",
        "null",
        "~",
        "a: b",
        "#x",
        "- y",
        "{z}",
        "'q'",
        "R&B!",
        "r_b_",
        "*",
        "\N{CAT}",
        "x" * 200,
    ]
    folder = write(workplace / "pictures", {f"{name}/0.png": "" for name in names})
    found = proposed(folder)
    text = policy._text(found, survey(folder), folder)
    policy.check(text, "mine")
    (paths.CONF / "policy/mine.yaml").write_text(text)
    composed = yaml.safe_load(compose(["source=folder", "policy=mine"]))["extract"]["policy"]
    assert [rule["any"][0] for rule in composed["labels"].values()] == [
        next(iter(rule["any"])) for rule in found["labels"].values()
    ]
    assert {rule["any"][0] for rule in composed["labels"].values()} == {name.lower() for name in names}
    assert len(composed["labels"]) == len(names)


def test_the_command_writes_it_once(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(Path("data/folder/pictures"), files(cats=1, dogs=2))
    monkeypatch.setattr(sys, "argv", ["policy", "mine"])
    policy.main()
    text = (paths.CONF / "policy/mine.yaml").read_text()
    assert text.startswith(
        "# @package _global_\n# Labels of data/folder/pictures, in order of severity: 1 cats, 2 dogs.\nextract:\n"
    )
    with pytest.raises(ParamsError, match=r"conf/policy/mine\.yaml exists already; choose another name, or remove it"):
        policy.main()
    monkeypatch.setattr(sys, "argv", ["policy", "../mine"])
    with pytest.raises(ParamsError, match="is not a valid policy name"):
        policy.main()


def test_names_that_dvc_cannot_take_are_told_before_dvc_is_asked(workplace: Path) -> None:
    folder = write(Path("data/folder/pictures"), files(cats=1, dogs=2))
    (folder / os.fsdecode(b"cats/\xff.png")).write_text("")
    done = subprocess.run(
        [sys.executable, "-m", "stages.folder.policy", "mine"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr == (
        "error: data/folder/pictures/cats/\\xff.png has a name that is not UTF-8 (as have 0 others), which `dvc add` "
        "cannot take; rename it, for example with convmv\n"
    )
