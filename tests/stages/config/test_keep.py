"""Keeping an experiment in conf/."""

from __future__ import annotations

import contextlib
import functools
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from stages.config import keep as keeping
from stages.config.__main__ import main as check_params
from stages.config.compose import check, compose
from stages.config.keep import keep
from stages.workspace.errors import ParamsError
from stages.workspace.files import replacing

CONF = Path(__file__).parents[3] / "conf"


@pytest.fixture
def conf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of conf/ in the working directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(CONF, tmp_path / "conf")
    return tmp_path / "conf"


def texts(conf: Path) -> dict[str, str]:
    """What each file under conf/ holds, hidden and temporary ones included."""
    return {str(file.relative_to(conf)): file.read_text() for file in conf.rglob("*") if file.is_file()}


@functools.cache
def composed(*overrides: str) -> str:
    return compose(overrides, CONF)


@pytest.mark.parametrize(
    ("overrides", "content"),
    [
        (["model=finetune", "train.lr=0.5"], {"defaults": [{"override /model": "finetune"}], "train": {"lr": 0.5}}),
        (["policy=people", "extract.limit=7"], {"defaults": [{"override /policy": "people"}], "extract": {"limit": 7}}),
        (["experiment=baseline"], {"defaults": [{"override /model": "mini_xception"}], "train": {"epochs": 12}}),
    ],
    ids=" ".join,
)
def test_a_kept_experiment_composes_to_the_same_parameters(conf: Path, overrides: list[str], content: object) -> None:
    before = texts(conf)
    wanted = composed(*overrides)
    Path("params.yaml").write_text(wanted)
    file = keep("winner")
    assert (yaml.safe_load(file.read_text()) or {}) == content
    text = compose(conf=conf)
    assert yaml.safe_load(text) == yaml.safe_load(wanted)
    assert Path("params.yaml").read_text() == text
    changed = {name for name, text in texts(conf).items() if before.get(name) != text}
    assert changed == {"config.yaml", "experiment/winner.yaml"}


def with_labels(names: list[str]) -> dict[str, Any]:
    """Write a params.yaml with the policy `ratings`, reduced to these labels in this order."""
    values: dict[str, Any] = yaml.safe_load(composed("policy=ratings", "train.lr=0.5"))
    policy = values["extract"]["policy"]
    policy["labels"] = {name: policy["labels"][name] for name in names}
    Path("params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    return values


@pytest.mark.parametrize(
    "names",
    [["gross", "horror", "sexual"], ["horror", "sexual", "gross"], ["sexual", "gross"], ["gross", "sexual"]],
    ids=" ".join,
)
def test_labels_that_no_policy_has_become_a_policy(conf: Path, names: list[str]) -> None:
    before = texts(conf)
    values = with_labels(names)
    file = keep("winner")
    assert yaml.safe_load(file.read_text()) == {"defaults": [{"override /policy": "winner"}], "train": {"lr": 0.5}}
    assert yaml.safe_load((conf / "policy/winner.yaml").read_text()) == {
        "extract": {"policy": values["extract"]["policy"]}
    }
    text = compose(conf=conf)
    assert (kept := yaml.safe_load(text)) == values
    assert list(kept["extract"]["policy"]["labels"]) == names
    assert Path("params.yaml").read_text() == text
    changed = {name for name, text in texts(conf).items() if before.get(name) != text}
    assert changed == {"config.yaml", "experiment/winner.yaml", "policy/winner.yaml"}


def test_the_check_reports_labels_in_another_order(
    conf: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with_labels(["sexual", "horror", "gross"])
    monkeypatch.setattr("sys.argv", ["stages.config", "--check", "policy=ratings", "train.lr=0.5"])
    check_params()
    assert [record.message for record in caplog.records if "extract.policy.labels" in record.message] == []
    with_labels(["gross", "horror", "sexual"])
    assert check_params() == 1
    assert any("extract.policy.labels" in record.message for record in caplog.records)


def test_a_group_can_still_be_chosen_over_a_kept_experiment(conf: Path) -> None:
    Path("params.yaml").write_text(composed("model=finetune"))
    keep("winner")
    assert yaml.safe_load(compose(["model=probe"], conf))["train"]["model"]["name"] == "probe"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smoke", r"conf/experiment/smoke\.yaml exists already"),
        ("../x", "is not a valid experiment name"),
        ("Best", "lower-case letters"),
    ],
)
def test_an_invalid_or_taken_name_is_refused(conf: Path, name: str, message: str) -> None:
    before = texts(conf)
    Path("params.yaml").write_text(composed("train.lr=0.5"))
    with pytest.raises(ParamsError, match=message):
        keep(name)
    assert texts(conf) == before


@pytest.mark.parametrize("default", ["null", "smoke"])
def test_there_is_nothing_to_keep(conf: Path, default: str) -> None:
    config = conf / "config.yaml"
    config.write_text(config.read_text().replace("  - experiment: null\n", f"  - experiment: {default}\n"))
    before = texts(conf)
    Path("params.yaml").write_text(compose([], conf))
    with pytest.raises(ParamsError, match=r"there is nothing to keep: params\.yaml is what conf/ composes already"):
        keep("winner")
    assert texts(conf) == before


def test_a_policy_that_exists_is_not_overwritten(conf: Path) -> None:
    before = texts(conf)
    with_labels(["gross", "sexual"])
    with pytest.raises(ParamsError, match=r"conf/policy/people\.yaml exists already"):
        keep("people")
    assert texts(conf) == before


def test_a_missing_parameter_is_refused(conf: Path) -> None:
    before = texts(conf)
    values = yaml.safe_load(compose(conf=conf))
    del values["test"]["worst_count"]
    Path("params.yaml").write_text(yaml.safe_dump(values))
    check(values)
    with pytest.raises(ParamsError, match=r"params\.yaml lacks test\.worst_count, which conf/ sets"):
        keep("winner")
    assert texts(conf) == before


def test_nothing_is_written_if_the_result_would_differ(conf: Path) -> None:
    config = conf / "config.yaml"
    config.write_text(config.read_text().replace("  - experiment: null\n", "  - optional experiment: null\n"))
    before = texts(conf)
    params = compose(["train.lr=0.5"], conf)
    Path("params.yaml").write_text(params)
    with pytest.raises(ParamsError, match=r"composes train\.lr to 0\.001, not to 0\.5 as in params\.yaml"):
        keep("winner")
    assert texts(conf) == before
    assert Path("params.yaml").read_text() == params


@pytest.mark.parametrize("failing", ["winner.yaml", "params.yaml", "config.yaml"])
def test_a_failing_write_leaves_conf_as_it_was(conf: Path, monkeypatch: pytest.MonkeyPatch, failing: str) -> None:
    before = texts(conf)
    values = with_labels(["gross", "sexual"])

    @contextlib.contextmanager
    def full_disk(target: Path) -> Iterator[Path]:
        with replacing(target) as aside:
            yield aside
            if target.name == failing:
                raise OSError("No space left on device")

    monkeypatch.setattr(keeping, "replacing", full_disk)
    with pytest.raises(OSError, match="No space left"):
        keep("winner")
    assert texts(conf) == before
    assert yaml.safe_load(Path("params.yaml").read_text()) == values
