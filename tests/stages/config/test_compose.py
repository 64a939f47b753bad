"""Composing `conf/`: which file wins, and how two sets of parameters are compared."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.config.compose import compose, diff, differences
from stages.config.train import FineTunedModel, MiniXceptionModel, ProbeModel

CONF = Path(__file__).parents[3] / "conf"
MODELS = {
    "probe": ProbeModel,
    "probe_lite2": ProbeModel,
    "probe_dinov2": ProbeModel,
    "probe_siglip": ProbeModel,
    "finetune": FineTunedModel,
    "mini_xception": MiniXceptionModel,
}


def composed(*overrides: str, conf: Path = CONF) -> dict[str, Any]:
    values: dict[str, Any] = yaml.safe_load(compose(overrides, conf))
    return values


@pytest.fixture
def conf(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CONF, tmp_path / "conf"))


@pytest.mark.parametrize(
    ("group", "body", "key", "value"),
    [
        ("policy", {"extract": {"min_side": 64}}, "extract.min_side", 64),
        ("policy", {"extract": {"formats": ["gif"]}}, "extract.formats", ["gif"]),
        ("source", {"split": {"phash_max_distance": 8}}, "split.phash_max_distance", 8),
        ("source", {"download": {"max_pixels": 1000}}, "download.max_pixels", 1000),
        ("model", {"train": {"threshold_objective": "recall"}}, "train.threshold_objective", "recall"),
        ("trainer", {"train": {"seed": 3}}, "train.seed", 3),
        ("experiment", {"test": {"bootstrap": 100}}, "test.bootstrap", 100),
    ],
)
def test_a_groups_file_wins_over_config_yaml(
    conf: Path, group: str, body: dict[str, Any], key: str, value: object
) -> None:
    first = {"policy": "people", "source": "sample", "model": "probe", "trainer": "cpu", "experiment": "smoke"}[group]
    text = yaml.safe_dump({"defaults": [first, "_self_"], **body})
    (conf / group / "mine.yaml").write_text(f"# @package _global_\n{text}")
    values: Any = composed(f"{group}=mine", conf=conf)
    for name in key.split("."):
        values = values[name]
    assert values == value


@pytest.mark.parametrize("model", sorted(path.stem for path in (CONF / "model").glob("*.yaml")))
def test_a_models_section_has_the_keys_of_that_model_alone(model: str) -> None:
    keys = composed(f"model={model}")["train"]["model"].keys()
    assert keys == {field.name for field in dataclasses.fields(MODELS[model])}


@pytest.mark.parametrize(
    ("ours", "theirs", "keys"),
    [
        ({"a": 1}, {"a": 1}, set()),
        ({"a": 1}, {"a": 2}, {"a"}),
        ({"a": {"b": 1}}, {"a": {"b": 2, "c": 3}}, {"a.b", "a.c"}),
        ({"b": 1, "a": 2}, {"a": 2, "b": 1}, set()),
        ({"a": [1, 2]}, {"a": [2, 1]}, {"a"}),
        (
            {"extract": {"policy": {"labels": {"x": {"any": ["t"]}, "y": {"rest": True}}}}},
            {"extract": {"policy": {"labels": {"y": {"rest": True}, "x": {"any": ["t"]}}}}},
            {"extract.policy.labels"},
        ),
    ],
    ids=["equal", "a value", "nested", "order of keys", "order of a list", "order of labels: severity"],
)
def test_two_sets_of_parameters_differ_in_these_keys(
    ours: dict[str, Any], theirs: dict[str, Any], keys: set[str]
) -> None:
    assert diff(ours, theirs).keys() == keys


def test_labels_in_another_order_are_a_difference() -> None:
    values = composed("policy=ratings")
    labels = values["extract"]["policy"]["labels"]
    values["extract"]["policy"]["labels"] = dict(reversed(labels.items()))
    (line,) = differences(values, compose(["policy=ratings"], CONF))
    assert line.startswith("extract.policy.labels: params.yaml has ")
