"""`params.yaml` saved as an experiment in `conf/`, and made the default: `python -m stages.experiments keep`."""

from __future__ import annotations

import functools
import math
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from stages.config.compose import ABSENT, check, compose, diff
from stages.workspace import parameters, paths
from stages.workspace.errors import ParamsError
from stages.workspace.files import replacing

GROUPS = ("source", "policy", "model", "trainer")
NAME = re.compile("[a-z0-9][a-z0-9_]*")


def keep(name: str) -> Path:
    """Save `params.yaml` as the experiment `name` in `conf/`, and make it the default.

    If no policy of `conf/` has the same labels in the same order, the policy becomes a file of that name, too. Nothing
    in `conf/` changes unless the new files compose to parameters equal to those of `params.yaml`.

    Returns:
        The experiment's file.

    Raises:
        ParamsError: if the name is invalid or taken, there is nothing to keep, or an experiment's file cannot express
            the parameters.
    """
    if not NAME.fullmatch(name):
        raise ParamsError(f"{name!r} is not a valid experiment name; use lower-case letters, digits and _")
    values = parameters.read()
    check(values)
    if not diff(values, yaml.safe_load(compose())):
        raise ParamsError(
            "there is nothing to keep: params.yaml is what conf/ composes already; bring an experiment's parameters in "
            "with `dvc exp apply`, or write them with `python -m stages.config KEY=VALUE`"
        )
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(shutil.copytree(paths.CONF, Path(folder) / "conf"))
        new_files = _write_draft(name, values, draft)
        text = compose(conf=draft)
        for key, (ours, theirs) in diff(values, yaml.safe_load(text)).items():
            raise ParamsError(
                f"with the new experiment conf/ composes {key} to {theirs!r}, not to {ours!r} as in params.yaml; write "
                "the experiment's file by hand"
            )
        _install(draft, new_files, text)
    return paths.CONF / new_files[-1]


def _write_draft(name: str, values: dict[str, Any], draft: Path) -> list[Path]:
    """Add the experiment to a copy of `conf/`; returns the new files, relative to it, the experiment's last."""
    experiment, policy = Path("experiment", f"{name}.yaml"), Path("policy", f"{name}.yaml")
    _check_free(experiment, draft)

    @functools.cache
    def composed(*options: str) -> dict[str, Any]:
        parameters: dict[str, Any] = yaml.safe_load(compose([*options, "~experiment"], draft))
        return parameters

    options = _nearest(values, draft, composed)
    needs_policy = not _has_labels(values, composed(*options))
    new_files = [policy, experiment] if needs_policy else [experiment]
    if needs_policy:
        _check_free(policy, draft)
        (draft / policy).write_text(_policy_text(name, values), encoding="utf-8")
        options = [option for option in options if not option.startswith("policy=")] + [f"policy={name}"]
    changed = diff(values, composed(*options))
    if missing := [key for key, (ours, _) in changed.items() if ours == ABSENT]:
        raise ParamsError(
            f"params.yaml lacks {missing[0]}, which conf/ sets and an experiment cannot remove; add it to params.yaml"
        )
    (draft / experiment).write_text(_experiment_text(name, options, changed), encoding="utf-8")
    config = draft / "config.yaml"
    text = re.sub(r"^  - experiment: .*$", f"  - experiment: {name}", config.read_text(encoding="utf-8"), flags=re.M)
    config.write_text(text, encoding="utf-8")
    return new_files


def _check_free(file: Path, draft: Path) -> None:
    if (draft / file).exists():
        raise ParamsError(f"{paths.CONF / file} exists already; choose another name, or remove it")


def _install(draft: Path, new_files: list[Path], text: str) -> None:
    """Copy the draft's files to `conf/` and write `params.yaml`; remove the new files if that fails."""
    # config.yaml comes last: until it names the experiment, the new files change nothing. What params.yaml gets is
    # equal in value, but ordered and formatted as `stages.config` writes it.
    contents = {paths.CONF / file: (draft / file).read_text(encoding="utf-8") for file in new_files}
    contents |= {paths.PARAMS: text, paths.CONF / "config.yaml": (draft / "config.yaml").read_text(encoding="utf-8")}
    try:
        for file, content in contents.items():
            with replacing(file) as aside:
                aside.write_text(content, encoding="utf-8")
    except BaseException:
        for new_file in new_files:
            (paths.CONF / new_file).unlink(missing_ok=True)
        raise


def _nearest(values: dict[str, Any], conf: Path, composed: Callable[..., dict[str, Any]]) -> list[str]:
    """The options of Hydra's groups, as `model=finetune`, with which `conf/` composes most similarly to `values`."""
    entries = yaml.safe_load((conf / "config.yaml").read_text(encoding="utf-8"))["defaults"]
    defaults = {group: option for entry in entries if isinstance(entry, dict) for group, option in entry.items()}
    chosen = {group: defaults[group] for group in GROUPS}

    def words(options: dict[str, str]) -> list[str]:
        return [f"{group}={option}" for group, option in options.items() if option != defaults[group]]

    def changed(options: dict[str, str]) -> set[str] | None:
        try:
            return set(diff(values, composed(*words(options))))
        except ParamsError:  # some sources need a value on the command line
            return None

    def distance(options: dict[str, str]) -> float:
        return math.inf if (keys := changed(options)) is None else len(keys)

    differing = changed(chosen)
    # One group after the other: they set different keys, so there is no need to try every combination, nor the options
    # of a group whose keys are equal already.
    for group in GROUPS:
        if differing is not None and {_parameter(key) for key in differing}.isdisjoint(_set_by(conf / group)):
            continue
        others = sorted(path.stem for path in (conf / group).glob("*.yaml"))
        # `min` takes the first of equals, which should be the current choice.
        candidates = [{**chosen, group: option} for option in (chosen[group], *others)]
        chosen = min(candidates, key=distance)
    return words(chosen)


def _parameter(key: str) -> str:
    """The parameter, or section of a section, that a key in dots is in: `extract.policy`."""
    return ".".join(key.split(".")[:2])


def _set_by(group: Path) -> set[str]:
    """The parameters that any file of a group sets."""
    bodies = [yaml.safe_load(file.read_text(encoding="utf-8")) or {} for file in group.glob("*.yaml")]
    sections = [(section, values) for body in bodies for section, values in body.items() if isinstance(values, dict)]
    return {f"{section}.{name}" for section, values in sections for name in values}


def _has_labels(values: dict[str, Any], composed: dict[str, Any]) -> bool:
    """Whether the policy that `conf/` composes has the labels of `values` in their order.

    An experiment's file could not correct them: Hydra merges mappings, and keeps the keys and order of the first.
    """
    return list(values["extract"]["policy"]["labels"]) == list(composed["extract"]["policy"]["labels"])


def _policy_text(name: str, values: dict[str, Any]) -> str:
    body = yaml.safe_dump({"extract": {"policy": values["extract"]["policy"]}}, sort_keys=False, allow_unicode=True)
    return f"# @package _global_\n# Saved from a run with the experiment {name}.\n{body}"


def _experiment_text(name: str, options: list[str], changed: dict[str, tuple[Any, Any]]) -> str:
    overrides = [{f"override /{group}": option} for group, option in (option.split("=") for option in options)]
    body: dict[str, Any] = {"defaults": overrides} if overrides else {}
    for key, (ours, _) in changed.items():
        *parents, last = key.split(".")
        section = body
        for parent in parents:
            section = section.setdefault(parent, {})
        section[last] = ours
    command = f"# Saved from a run: `dvc exp run -S experiment={name}`"
    return f"# @package _global_\n{command}\n" + yaml.safe_dump(body, sort_keys=False, allow_unicode=True, width=120)
