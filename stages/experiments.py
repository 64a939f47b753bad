"""Compare experiments over folds, and keep a good one: `python -m stages.experiments --help`."""

from __future__ import annotations

import argparse
import io
import logging
import math
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import dvc.api
import pandas as pd
import yaml
from dvc.exceptions import DvcException
from scipy import stats

from stages.config.compose import ABSENT, SECTIONS, check, compose, diff
from stages.workspace import parameters, paths
from stages.workspace.errors import MLpyError, ParamsError, run
from stages.workspace.files import replacing

log = logging.getLogger(__name__)

GROUPS = ("source", "policy", "model", "trainer")
NAME = re.compile("[a-z0-9][a-z0-9_]*")
RECALL_DROP = "recall_drop"
SCORES = {"auroc": "AUROC", "average_precision": "average precision", RECALL_DROP: "recall drop"}
"""Metric of `data/test/metrics.json` -> its column in a table. `recall_drop` is the mean over corruptions."""
UNFINISHED = ("Queued", "Running", "Failed")
"""States in which DVC lists an experiment that has no scores of its own. Others have Success, or no state at all."""
CONFIDENCE = 0.95
MODEL = "train.model.name"
TASK = ["extract.policy.name", "split.group_by"]
"""Runs are only comparable if they agree in these."""
FOLD = "split.fold"
REPEATS = [FOLD, "train.seed"]
"""Runs that differ in these alone repeat one setting."""


def keep(name: str) -> Path:
    """Save `params.yaml` as the experiment `name` in `conf/`, and make it the default.

    If no policy of `conf/` has the same labels in the same order, the policy becomes a file of that name, too. Nothing
    in `conf/` changes unless the new files compose to parameters equal to those of `params.yaml`.

    Returns:
        The experiment's file.

    Raises:
        ParamsError: if the name is invalid or taken, or an experiment file cannot express the parameters.
    """
    if not NAME.fullmatch(name):
        raise ParamsError(f"{name!r} is not a valid experiment name; use lower-case letters, digits and _")
    values = parameters.read()
    check(values)
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
    options = _nearest(values, draft)
    needs_policy = not _has_labels(values, options, draft)
    experiment, policy = Path("experiment", f"{name}.yaml"), Path("policy", f"{name}.yaml")
    new_files = [policy, experiment] if needs_policy else [experiment]
    if taken := [file for file in new_files if (draft / file).exists()]:
        raise ParamsError(f"{paths.CONF / taken[0]} exists already; choose another name, or remove it")
    if needs_policy:
        (draft / policy).write_text(_policy_text(name, values), encoding="utf-8")
        options = [option for option in options if not option.startswith("policy=")] + [f"policy={name}"]
    changed = diff(values, yaml.safe_load(compose([*options, "~experiment"], draft)))
    if missing := [key for key, (ours, _) in changed.items() if ours == ABSENT]:
        raise ParamsError(
            f"params.yaml lacks {missing[0]}, which conf/ sets and an experiment cannot remove; add it to params.yaml"
        )
    (draft / experiment).write_text(_experiment_text(name, options, changed), encoding="utf-8")
    config = draft / "config.yaml"
    text = re.sub(r"^  - experiment: .*$", f"  - experiment: {name}", config.read_text(encoding="utf-8"), flags=re.M)
    config.write_text(text, encoding="utf-8")
    return new_files


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


def _nearest(values: dict[str, Any], conf: Path) -> list[str]:
    """The options of Hydra's groups, as `model=finetune`, with which `conf/` composes most similarly to `values`."""
    entries = yaml.safe_load((conf / "config.yaml").read_text(encoding="utf-8"))["defaults"]
    defaults = {group: option for entry in entries if isinstance(entry, dict) for group, option in entry.items()}
    chosen = {group: defaults[group] for group in GROUPS}

    def distance(options: dict[str, str]) -> float:
        try:
            text = compose([f"{group}={option}" for group, option in options.items()] + ["~experiment"], conf)
        except ParamsError:  # some sources need a value on the command line
            return math.inf
        return len(diff(values, yaml.safe_load(text)))

    # One group after the other: they set different keys, so there is no need to try every combination.
    for group in GROUPS:
        others = sorted(path.stem for path in (conf / group).glob("*.yaml"))
        # `min` takes the first of equals, which should be the current choice.
        candidates = [{**chosen, group: option} for option in (chosen[group], *others)]
        chosen = min(candidates, key=distance)
    return [f"{group}={option}" for group, option in chosen.items() if option != defaults[group]]


def _has_labels(values: dict[str, Any], options: list[str], conf: Path) -> bool:
    """Whether the policy that `options` choose has the labels of `values` in their order.

    An experiment's file could not correct them: Hydra merges mappings, and keeps the keys and order of the first.
    """
    composed = yaml.safe_load(compose([*options, "~experiment"], conf))
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


def collect() -> pd.DataFrame:
    """The finished experiments on the current commit: a row a run, with the parameters that differ and the test scores.

    Raises:
        MLpyError: if there are none, or DVC cannot list them.
    """
    try:
        rows = pd.DataFrame(dvc.api.exp_show())
    except DvcException as error:
        raise MLpyError(f"DVC cannot list experiments: {error}") from error
    sections = tuple(f"{name}." for name in SECTIONS)
    # A policy's rules are left out: its name stands for them.
    columns = [
        name for name in map(str, rows) if name.startswith(sections) and not name.startswith("extract.policy.labels.")
    ]
    scores = pd.DataFrame({name: _score(rows, name) for name in SCORES})
    runs = rows[columns][finished(rows) & scores.notna().all(axis=1)]
    if runs.empty:
        raise MLpyError(
            "this commit has no finished experiments; run some with `dvc exp run`, or look for failures with "
            "`dvc queue status`"
        )
    kept = [name for name in columns if name in {*TASK, *REPEATS} or runs[name].astype(str).nunique() > 1]
    runs = runs[kept].join(scores)
    # Through CSV and back, so that `compare` and `compare --read` print the same table.
    return pd.read_csv(io.StringIO(runs.sort_values([*TASK, *kept]).to_csv(index=False)))


def finished(rows: pd.DataFrame) -> pd.Series[bool]:
    """Which of DVC's rows are finished experiments. An unfinished one shows the scores of the commit that it is on."""
    return rows["Experiment"].notna() & ~rows["State"].isin(UNFINISHED)


def _score(rows: pd.DataFrame, name: str) -> pd.Series[float]:
    """A score of the test split for each of DVC's rows; NaN where a run has none."""
    # DVC prefixes a metric with its file where two files have a metric of that name, and calls nested ones
    # `recall_drop.crop`.
    columns = [
        column
        for column in map(str, rows)
        if name in (column.removeprefix(f"{paths.TEST_METRICS}:"), column.partition(".")[0])
    ]
    score: pd.Series[float] = rows[columns].apply(pd.to_numeric, errors="coerce").mean(axis=1)
    return score


def setting_names(runs: pd.DataFrame) -> pd.Series[str]:
    """Name each run's setting by its model and the parameters that distinguish it, no more than needed."""
    keys = [name for name in map(str, runs) if name not in {*TASK, *REPEATS, *SCORES, MODEL}]
    keys.sort(key=lambda name: name != "train.model.backbone")  # the backbone first; the sort is stable
    names = runs[MODEL] if MODEL in runs else pd.Series("", runs.index)
    values = runs[keys].astype(object).where(runs[keys].notna(), "none")
    settings = values.astype(str).agg(" ".join, axis=1) if keys else names
    # Each key splits the settings that share a name so far, if they differ in it.
    for key in keys:
        for name in names.unique():
            same_name = names == name
            if settings[same_name].nunique() > 1 and values.loc[same_name, key].nunique() > 1:
                value = values.loc[same_name, key].map(
                    lambda item: f"{item:g}" if isinstance(item, float) else str(item)
                )
                names = names.mask(same_name, (f"{name} {key.split('.')[-1]}=" + value).str.strip())
    return names


def table(runs: pd.DataFrame) -> str:
    """A Markdown table: each setting's mean scores over folds, and its paired differences from the best setting.

    Intervals are Student's t over the folds' scores: they tell how much the choice of pictures matters.
    """
    head = ["policy", "group by", "setting", "folds", *(f"{title} | difference" for title in SCORES.values())]
    lines = [_row(head), "|---|---|---|---|" + "---|---|" * len(SCORES)]
    for (policy, group_by), task_runs in runs.groupby(TASK, sort=False):
        # Runs of the same fold that differ in their seed count as one, by their mean.
        settings = {
            name: setting_runs.groupby(FOLD)[[*SCORES]].mean()
            for name, setting_runs in task_runs.groupby(setting_names(task_runs))
        }
        # A mean over few folds may be high by chance, so the best setting is among those with the most folds.
        ranked = sorted(settings, key=lambda name: (-len(settings[name]), -settings[name].iloc[:, 0].mean()))
        for name in ranked:
            cells = [str(policy), str(group_by), str(name), str(len(settings[name]))]
            for score in SCORES:
                ours, best = settings[name][score], settings[ranked[0]][score]
                cells += [_mean(ours), "" if name == ranked[0] else _paired(ours, best)]
            lines.append(_row(cells))
    return "\n".join(lines) + "\n"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _mean(scores: pd.Series[float]) -> str:
    if len(scores) < 2 or not scores.std():  # no interval
        return f"{scores.mean():.3f}"
    low, high = stats.t.interval(CONFIDENCE, len(scores) - 1, scores.mean(), stats.sem(scores))
    return f"{scores.mean():.3f} ({low:.3f} to {min(high, 1):.3f})"


def _paired(ours: pd.Series[float], best: pd.Series[float]) -> str:
    # Only folds that both settings ran on can be paired.
    both = pd.concat([ours, best], axis=1, join="inner").to_numpy()
    difference = both[:, 0] - both[:, 1]
    if len(both) < 2 or not difference.std():
        return f"{difference.mean():+.3f}" if len(both) else ""
    low, high = stats.ttest_rel(both[:, 0], both[:, 1]).confidence_interval(CONFIDENCE)
    return f"{difference.mean():+.3f} ({low:+.3f} to {high:+.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.experiments", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    comparing = commands.add_parser("compare", help="print a table of the finished experiments on this commit")
    comparing.add_argument("--csv", type=Path, help="also write the runs to this CSV file")
    comparing.add_argument("--read", type=Path, help="read the runs from such a file instead of DVC")
    keeping = commands.add_parser("keep", help="save params.yaml as an experiment in conf/ and make it the default")
    keeping.add_argument("name", help="of the experiment: conf/experiment/NAME.yaml")
    options = parser.parse_args()
    if options.command == "keep":
        log.info("wrote %s and made it the default in conf/config.yaml", keep(options.name))
        return
    runs = pd.read_csv(options.read) if options.read else collect()
    if options.csv:
        with replacing(options.csv) as aside:
            runs.to_csv(aside, index=False)
    print(table(runs), end="")  # noqa: T201


if __name__ == "__main__":
    run(main)
