"""`conf/` -> the text of `params.yaml`, byte-identical to what `dvc exp run` writes; comparison of two params files."""

from __future__ import annotations

import difflib
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
import yaml
from hydra.errors import HydraException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import KeyValidationError, OmegaConfBaseException

from stages.config.download import Download
from stages.config.extract import Extract
from stages.config.restore import Restore
from stages.config.split import Split
from stages.config.test import Test
from stages.config.train import Train
from stages.workspace import paths
from stages.workspace.errors import ParamsError
from stages.workspace.parameters import validated

SECTIONS: dict[str, type[Any]] = {
    kind.__name__.lower(): kind for kind in (Restore, Extract, Download, Split, Train, Test)
}
LABELS = "extract.policy.labels"
ABSENT = "(absent)"
PACKAGE = "# @package _global_"
"""First line of every file of a group, without which Hydra puts its parameters below the group's name."""
RESOLVER = "checked_parameters"
"""Named by `conf/config.yaml` for Hydra to call once all overrides are applied; see `hydra_plugins/validation.py`."""
# `compose` checks by itself, and raises what a caller can handle.
OmegaConf.register_new_resolver(RESOLVER, list, replace=True)


def compose(overrides: Sequence[str] = (), conf: Path = paths.CONF) -> str:
    """Compose `conf/` with Hydra overrides, such as `policy=people` or `train.lr=0.01`, into the text of params.yaml.

    Raises:
        ParamsError: if Hydra cannot compose it, or the result is invalid.
    """
    try:
        # Hydra's compose API, and not `hydra.main`, which would set up logging and an output folder.
        with hydra.initialize_config_dir(str(conf.absolute()), version_base=None):
            config = hydra.compose("config", overrides=list(overrides))
        OmegaConf.resolve(config)
    except (HydraException, OmegaConfBaseException) as error:
        raise ParamsError(f"conf/ does not compose: {_reason(error)}") from error
    check(plain(config), conf)
    return OmegaConf.to_yaml(config)  # as DVC does in `dvc exp run`, so that both write the same bytes


def _reason(error: Exception) -> str:
    """What Hydra or OmegaConf says, or the cause of it: Hydra's exception may say nothing itself."""
    if isinstance(cause := error.__cause__, KeyValidationError):
        return (
            f"{cause.full_key} has the key {cause.key!r}, which is not text: YAML reads null and ~ as no value, so put "
            "the name in quotes"
        )
    if isinstance(error, OverrideParseException):
        return (
            f"{error.override} is no override that Hydra can read; put a value with special characters in quotes of "
            f"its own, as in 'restore.dump=\"/a folder/board.pgdump\"', and write a path without ~"
        )
    return " ".join((str(error) or str(error.__cause__ or type(error).__name__)).split())


def plain(config: DictConfig) -> dict[str, Any]:
    """The values of a composed configuration, without Hydra's own."""
    parameters = OmegaConf.masked_copy(config, [key for key in map(str, config) if key != "hydra"])
    values: dict[str, Any] = OmegaConf.to_container(parameters, resolve=True)  # type: ignore[assignment]
    return values


def check(values: dict[str, Any], conf: Path = paths.CONF) -> None:
    """Check the values of a whole params file, which `conf` composes.

    Raises:
        ParamsError: if a section is invalid, missing, or not a stage's.
    """
    for name in values.keys() - SECTIONS.keys():
        raise ParamsError(_explain_unknown_section(name, conf))
    for name, kind in SECTIONS.items():
        validated(kind, values.get(name))


def _explain_unknown_section(name: str, conf: Path) -> str:
    if files := [file for file in sorted((conf / name).glob("*.yaml")) if not _is_global(file)]:
        return (
            f"{paths.CONF / name / files[0].name} lacks its first line, `{PACKAGE}`, so its parameters are set below "
            f"`{name}`"
        )
    near = difflib.get_close_matches(name, SECTIONS, 1)
    advice = f"did you mean {near[0]}?" if near else f"the sections are {', '.join(SECTIONS)}"
    return f"{name} is not a stage's section; {advice}"


def _is_global(file: Path) -> bool:
    """Whether one of the comments that the file opens with is Hydra's header."""
    lines = filter(None, map(str.strip, file.read_text(encoding="utf-8").splitlines()))
    return PACKAGE in itertools.takewhile(lambda line: line.startswith("#"), lines)


def diff(ours: Any, theirs: Any, key: str = "") -> dict[str, tuple[Any, Any]]:
    """Compare two params files' values: key in dots -> both values where they differ, `ABSENT` for a missing one.

    The order of keys matters only for a policy's labels, which are in order of severity.
    """
    if not (isinstance(ours, dict) and isinstance(theirs, dict)):
        return {} if ours == theirs else {key: (ours, theirs)}
    if key == LABELS and ours.keys() == theirs.keys() and list(ours) != list(theirs):
        return {key: (ours, theirs)}
    leaves: dict[str, tuple[Any, Any]] = {}
    for name in [*ours, *(name for name in theirs if name not in ours)]:
        leaves |= diff(ours.get(name, ABSENT), theirs.get(name, ABSENT), f"{key}.{name}" if key else name)
    return leaves


def differences(values: dict[str, Any], text: str) -> list[str]:
    """One line for each key whose value in params.yaml differs from the one in `text`, which `conf/` composes."""
    return [
        f"{key}: {paths.PARAMS} has {ours!r}, conf/ composes {theirs!r}"
        for key, (ours, theirs) in diff(values, yaml.safe_load(text)).items()
    ]
