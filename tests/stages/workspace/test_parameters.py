"""Invalid parameters are refused with a message that names the key."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.config.compose import SECTIONS, check, compose
from stages.config.split import Split
from stages.workspace import parameters
from stages.workspace.errors import ParamsError

ROOT = Path(__file__).parents[3]


@pytest.fixture
def values() -> dict[str, Any]:
    return parameters.read(ROOT / "params.yaml")


def put(key: str, value: object) -> Callable[[dict[str, Any]], None]:
    def change(values: dict[str, Any]) -> None:
        *path, last = key.split(".")
        for name in path:
            values = values[name]
        values[last] = value

    return change


def test_the_committed_params_are_valid(values: dict[str, Any]) -> None:
    check(values)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("split.flods", 5, "split.flods is not a parameter; did you mean split.folds?"),
        ("splti", {}, "splti is not a stage's section; did you mean split?"),
        ("split.folds", "five", "split.folds: Input should be a valid integer; it is 'five'"),
        ("split.folds", 2.5, "split.folds: Input should be a valid integer"),
        ("train.lr", 0, "train.lr: Input should be greater than 0; it is 0"),
        ("train.lr", None, "train.lr: Input should be a valid number; it is None"),
        ("train.balance", "yes", "train.balance: Input should be a valid boolean; it is 'yes'"),
        ("split.fold", 5, "split.fold must be below split.folds (5); it is 5"),
        ("restore.dump", "???", "restore.dump has no value; set it in conf/ or with -S restore.dump=..."),
        ("restore.sha256", "abc", "restore.sha256: "),
        ("extract.policy.labels.flagged.some", [], "extract.policy.labels.flagged.some is not a parameter"),
        ("extract.policy.labels.more", {"rest": True}, "exactly 2 labels"),
        ("extract.policy.labels", {"a/b": {"any": ["a"]}, "clean": {"rest": True}}, "'a/b' cannot be a label"),
        ("extract.policy.labels", {"none": {"any": ["a"]}, "clean": {"rest": True}}, "'none' cannot be a label"),
        ("extract.policy.labels.clean", {"any": ["a"], "rest": True}, "either tags (any, all, none) or `rest: true`"),
        ("download.faults.throttled", 2, "download.faults.throttled: Input should be less than or equal to 1; it is 2"),
        ("download.faults.slow", 0.99, "the shares of faults add up to 1.0313, more than 1"),
        ("download.contact", "two\nlines", "download.contact: "),
        (
            "train.model.name",
            "prob",
            "train.model.name must be one of 'probe', 'finetune', 'mini_xception'; it is 'prob'",
        ),
        ("train.model", {}, "train.model.name has no value; set it in conf/ or with -S train.model.name=..."),
        ("train.model", "probe", "train.model must be a section with keys of its own; it is 'probe'"),
    ],
)
def test_a_mistake_is_an_error_that_names_the_key(
    values: dict[str, Any], key: str, value: object, message: str
) -> None:
    put(key, value)(values)
    with pytest.raises(ParamsError) as caught:
        check(values)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("key", "advice"),
    [
        ("split.phash_bit", "did you mean split.phash_bits?"),
        ("train.hidden", "did you mean train.model.hidden?"),
        ("train.name", "did you mean train.model.name?"),
        ("train.hiden", "did you mean train.model.hidden?"),
        ("train.model.hiden", "did you mean train.model.hidden?"),
        ("train.model.size", "did you mean train.size?"),
        ("extract.min_tags", "did you mean extract.policy.min_tags?"),
        ("extract.policy.labels.flagged.nome", "did you mean extract.policy.labels.flagged.none?"),
        ("download.throttled", "did you mean download.faults.throttled?"),
        ("train.trained_blocks", "stages/config/train.py lists the parameters"),  # of a model that is not chosen
        ("train.xyzzy", "stages/config/train.py lists the parameters"),
    ],
)
def test_an_unknown_key_gets_the_whole_place_of_the_likely_one(values: dict[str, Any], key: str, advice: str) -> None:
    put(key, 1)(values)
    with pytest.raises(ParamsError) as caught:
        check(values)
    assert str(caught.value) == f"{key} is not a parameter; {advice}"


@pytest.mark.parametrize(
    ("model", "key", "owners"),
    [
        ("probe", "trained_blocks", "finetune"),
        ("probe", "augment", "finetune and mini_xception"),
        ("finetune", "hidden", "probe"),
    ],
)
def test_a_key_of_another_model_is_one_sentence(values: dict[str, Any], model: str, key: str, owners: str) -> None:
    values["train"] = yaml.safe_load(compose([f"model={model}"], ROOT / "conf"))["train"]
    put(f"train.model.{key}", 2)(values)
    with pytest.raises(ParamsError) as caught:
        check(values)
    assert str(caught.value) == (
        f"train.model.{key} is a parameter of {owners}, not of {model}; "
        "remove it, or change the model with -S model=NAME"
    )


def test_a_model_changed_by_its_name_alone_is_one_sentence(values: dict[str, Any]) -> None:
    put("train.model.name", "finetune")(values)  # the other keys are still those of probe
    with pytest.raises(ParamsError, match=r"^train\.model\.\w+ is a parameter of probe, not of finetune; "):
        check(values)


@pytest.mark.parametrize("name", list(SECTIONS))
def test_a_missing_key_is_named(values: dict[str, Any], name: str) -> None:
    required = [
        field.name
        for field in dataclasses.fields(SECTIONS[name])
        if field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    for key in required:
        shorter = {**values, name: {other: value for other, value in values[name].items() if other != key}}
        with pytest.raises(ParamsError, match=f"{name}.{key} has no value"):
            check(shorter)


def test_parameters_are_frozen() -> None:
    loaded = parameters.load(Split, ROOT / "params.yaml")
    with pytest.raises(dataclasses.FrozenInstanceError):
        loaded.folds = 3  # type: ignore[misc]


def command(folder: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "stages.config", *words],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT), "PATH": "", **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    (tmp_path / "conf").symlink_to(ROOT / "conf")
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    return tmp_path


def test_check_passes_on_what_was_composed(clone: Path) -> None:
    assert command(clone, "policy=people").returncode == 0
    assert yaml.safe_load((clone / "params.yaml").read_text())["extract"]["policy"]["name"] == "people"
    assert command(clone, "--check", "policy=people").returncode == 0


def test_writing_names_the_keys_that_change(clone: Path) -> None:
    done = command(clone, "split.seed=7")
    assert done.stderr == "split.seed: 0 -> 7\nwrote params.yaml\n"
    assert command(clone, "split.seed=7").stderr == "wrote params.yaml\n"


def test_check_names_the_keys_that_differ(clone: Path) -> None:
    done = command(clone, "--check", "split.seed=7")
    assert done.returncode == 1
    assert done.stderr == "split.seed: params.yaml has 0, conf/ composes 7\n"


def test_check_refuses_an_edit_by_hand_without_effect(clone: Path) -> None:
    with (clone / "params.yaml").open("a") as file:
        file.write("# mine\n")
    assert command(clone, "--check").returncode == 1


@pytest.mark.parametrize("override", ["train.lrr=1", "polcy=people", "policy=nobody", "train.lr=fast"])
def test_a_bad_override_is_one_sentence_and_changes_nothing(clone: Path, override: str) -> None:
    before = (clone / "params.yaml").read_text()
    done = command(clone, override)
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert "Traceback" not in done.stderr
    assert (clone / "params.yaml").read_text() == before


LOADS = """
import logging
from stages.config.split import Split
from stages.workspace.parameters import load
logging.basicConfig(format="%(message)s")
load(Split)
"""


@pytest.mark.parametrize(
    ("environment", "warns"),
    [({}, False), ({"DVC_STAGE": "split"}, True), ({"DVC_STAGE": "split", "DVC_EXP_NAME": "x"}, False)],
    ids=["by hand", "dvc repro", "dvc exp run"],
)
def test_dvc_repro_warns_that_params_yaml_differs_from_conf(
    clone: Path, environment: dict[str, str], warns: bool
) -> None:
    text = (clone / "params.yaml").read_text()
    (clone / "params.yaml").write_text(text.replace("folds: 5", "folds: 4"))
    done = subprocess.run(
        [sys.executable, "-c", LOADS],
        cwd=clone,
        env={"PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    assert ("split.folds: params.yaml has 4, conf/ composes 5" in done.stderr) == warns


@pytest.mark.parametrize(
    "words", ["yes: {any: [flag]}\n      no: {rest: true}", "null: {any: [flag]}\n      1: {rest: true}"]
)
def test_a_label_that_yaml_reads_as_a_value_is_to_be_quoted(tmp_path: Path, words: str) -> None:
    conf = Path(shutil.copytree(ROOT / "conf", tmp_path / "conf"))
    text = f"# @package _global_\nextract:\n  policy:\n    name: norway\n    kind: binary\n    labels:\n      {words}\n"
    (conf / "policy/norway.yaml").write_text(text)
    (tmp_path / "params.yaml").write_text((ROOT / "params.yaml").read_text())
    done = command(tmp_path, "policy=norway")
    assert done.returncode == 1
    assert "extract.policy.labels has the key " in done.stderr
    assert "put the name in quotes" in done.stderr
