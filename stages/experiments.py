"""Experiments compared over folds, and a good one kept: `python -m stages.experiments --help`."""

from __future__ import annotations

import argparse
import io
import logging
import math
import re
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
LOST = "recall_drop"
SCORES = {"auroc": "AUROC", "average_precision": "average precision", LOST: "recall lost"}
"""What is compared, of `data/test/metrics.json`, and what a table calls it; of the drops of recall, their mean."""
UNFINISHED = ("Queued", "Running", "Failed")
"""What DVC says of an experiment of its queue that has no scores of its own; of others, Success or nothing."""
CONFIDENCE = 0.95
MODEL = "train.model.name"
TASK = ["extract.policy.name", "split.group_by"]
"""Runs are comparable where these are the same."""
FOLD = "split.fold"
REPEATS = [FOLD, "train.seed"]
"""Runs that differ in nothing else repeat one experiment."""


def nearest(values: dict[str, Any], conf: Path = paths.CONF) -> list[str]:
    """The groups' options, as `model=finetune`, with which `conf/` composes what is nearest to `values`."""
    listed = yaml.safe_load((conf / "config.yaml").read_text(encoding="utf-8"))["defaults"]
    defaults = {group: option for each in listed if isinstance(each, dict) for group, option in each.items()}
    chosen = {group: defaults[group] for group in GROUPS}

    def distance(options: dict[str, str]) -> float:
        try:
            text = compose([f"{group}={option}" for group, option in options.items()] + ["~experiment"], conf)
        except ParamsError:  # as a source that needs a value by hand
            return math.inf
        return len(diff(values, yaml.safe_load(text)))

    for group in GROUPS:
        others = sorted(path.stem for path in (conf / group).glob("*.yaml"))
        # The one that is chosen already comes first, so that it wins a tie.
        candidates = [{**chosen, group: option} for option in (chosen[group], *others)]
        chosen = min(candidates, key=distance)
    return [f"{group}={option}" for group, option in chosen.items() if option != defaults[group]]


def keep(name: str, conf: Path = paths.CONF) -> Path:
    """Write what `params.yaml` says as the experiment `name` in `conf/`, and make it the default.

    Raises:
        ParamsError: for an odd name, a name that is taken, or parameters that no experiment file can express.
    """
    if not NAME.fullmatch(name):
        raise ParamsError(f"{name!r} cannot be an experiment's name: small letters, digits and _ are allowed")
    file = conf / "experiment" / f"{name}.yaml"
    if file.exists():
        raise ParamsError(f"{file} is there already; give another name, or remove it")
    values = parameters.read()
    check(values)
    options = nearest(values, conf)
    if _lacks_labels(values, options, conf):
        options = [each for each in options if not each.startswith("policy=")] + [f"policy={name}"]
        with replacing(conf / "policy" / f"{name}.yaml") as aside:
            aside.write_text(_policy(name, values), encoding="utf-8")
    changed = diff(values, yaml.safe_load(compose([*options, "~experiment"], conf)))
    if gone := [key for key, (ours, _) in changed.items() if ours == ABSENT]:
        raise ParamsError(f"params.yaml lacks {gone[0]}, which conf/ gives; add a file to conf/ that does not")
    with replacing(file) as aside:
        aside.write_text(_experiment(name, options, changed), encoding="utf-8")
    config = conf / "config.yaml"
    text = re.sub(r"^  - experiment: .*$", f"  - experiment: {name}", config.read_text(encoding="utf-8"), flags=re.M)
    with replacing(config) as aside:
        aside.write_text(text, encoding="utf-8")
    with replacing(paths.PARAMS) as aside:  # equal in value; in the order in which conf/ composes it
        aside.write_text(compose(conf=conf), encoding="utf-8")
    return file


def _lacks_labels(values: dict[str, Any], options: list[str], conf: Path) -> bool:
    """Whether no policy of `conf/` has these labels in this order, which an experiment's file could not mend.

    Labels are in order of severity, and what is merged over a mapping keeps the mapping's order and keys.
    """
    theirs = yaml.safe_load(compose([*options, "~experiment"], conf))
    return list(values["extract"]["policy"]["labels"]) != list(theirs["extract"]["policy"]["labels"])


def _policy(name: str, values: dict[str, Any]) -> str:
    """The text of a policy's file."""
    body = yaml.safe_dump({"extract": {"policy": values["extract"]["policy"]}}, sort_keys=False, allow_unicode=True)
    return f"# @package _global_\n# Kept from a run, with the experiment {name}.\n{body}"


def _experiment(name: str, options: list[str], changed: dict[str, tuple[Any, Any]]) -> str:
    """The text of an experiment's file."""
    overrides = [{f"override /{group}": option} for group, option in (each.split("=") for each in options)]
    body: dict[str, Any] = {"defaults": overrides} if overrides else {}
    for key, (ours, _) in changed.items():
        *parents, last = key.split(".")
        place = body
        for parent in parents:
            place = place.setdefault(parent, {})
        place[last] = ours
    said = f"# Kept from a run: `dvc exp run -S experiment={name}`"
    return f"# @package _global_\n{said}\n" + yaml.safe_dump(body, sort_keys=False, allow_unicode=True, width=120)


def collected() -> pd.DataFrame:
    """Every finished experiment on the current commit: the parameters that differ, the scores of the test split.

    Raises:
        MLpyError: if there is none, or this is no repository of DVC's.
    """
    try:
        rows = pd.DataFrame(dvc.api.exp_show())
    except DvcException as error:
        raise MLpyError(f"DVC cannot list experiments: {error}") from error
    sections = tuple(f"{name}." for name in SECTIONS)
    # A policy's name stands for its rules.
    columns = [
        name for name in map(str, rows) if name.startswith(sections) and not name.startswith("extract.policy.labels.")
    ]
    scores = pd.DataFrame({name: _score(rows, name) for name in SCORES})
    done = rows[columns][finished(rows) & scores.notna().all(axis=1)]
    if done.empty:
        raise MLpyError("no experiment on this commit is finished: make some with `dvc exp run`, or `dvc queue status`")
    kept = [name for name in columns if name in {*TASK, *REPEATS} or done[name].astype(str).nunique() > 1]
    found = done[kept].join(scores)
    # Read back as the file will be, so that a table is the same from either.
    return pd.read_csv(io.StringIO(found.sort_values([*TASK, *kept]).to_csv(index=False)))


def finished(rows: pd.DataFrame) -> pd.Series[bool]:
    """Which of DVC's rows are experiments that ended well. One that runs shows the scores of what it started from."""
    return rows["Experiment"].notna() & ~rows["State"].isin(UNFINISHED)


def _score(rows: pd.DataFrame, name: str) -> pd.Series[float]:
    """A score of the test split in each of DVC's rows, not a number where a run is not finished."""
    # A column bears its file's name where another file has a score of that name; a drop, that of its change.
    columns = [
        each for each in map(str, rows) if name in (each.removeprefix(f"{paths.TEST_METRICS}:"), each.partition(".")[0])
    ]
    score: pd.Series[float] = rows[columns].apply(pd.to_numeric, errors="coerce").mean(axis=1)
    return score


def told_apart(runs: pd.DataFrame) -> pd.Series[str]:
    """A short name of each run's setting: its model, then only as many parameters as tell settings apart."""
    keys = [name for name in map(str, runs) if name not in {*TASK, *REPEATS, *SCORES, MODEL}]
    keys.sort(key=lambda name: name != "train.model.backbone")  # stable
    names = runs[MODEL] if MODEL in runs else pd.Series("", runs.index)
    runs = runs[keys].astype(object).where(runs[keys].notna(), "none")
    whole = runs.astype(str).agg(" ".join, axis=1) if keys else names
    for key in keys:
        for name in names.unique():
            mine = names == name
            if whole[mine].nunique() > 1 and runs.loc[mine, key].nunique() > 1:
                value = runs.loc[mine, key].map(lambda each: f"{each:g}" if isinstance(each, float) else str(each))
                names = names.mask(mine, (f"{name} {key.split('.')[-1]}=" + value).str.strip())
    return names


def table(runs: pd.DataFrame) -> str:
    """Markdown: of each setting the mean over folds with an interval, and the paired difference to the best one.

    Intervals are Student's, of the folds' scores: they tell how much the choice of pictures matters.
    """
    head = ["policy", "groups", "setting", "folds", *(f"{each} | difference" for each in SCORES.values())]
    lines = [_row(head), "|---|---|---|---|" + "---|---|" * len(SCORES)]
    for (policy, group_by), mine in runs.groupby(TASK, sort=False):
        settings = {name: each.groupby(FOLD)[[*SCORES]].mean() for name, each in mine.groupby(told_apart(mine))}
        # The best of those that ran on the most folds.
        ranked = sorted(settings, key=lambda name: (-len(settings[name]), -settings[name].iloc[:, 0].mean()))
        for name in ranked:
            cells = [str(policy), str(group_by), str(name), str(len(settings[name]))]
            for score in SCORES:
                ours, theirs = settings[name][score], settings[ranked[0]][score]
                cells += [_mean(ours), "" if name == ranked[0] else _paired(ours, theirs)]
            lines.append(_row(cells))
    return "\n".join(lines) + "\n"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _mean(scores: pd.Series[float]) -> str:
    if len(scores) < 2 or not scores.std():
        return f"{scores.mean():.3f}"
    low, high = stats.t.interval(CONFIDENCE, len(scores) - 1, scores.mean(), stats.sem(scores))
    return f"{scores.mean():.3f} ({low:.3f} to {min(high, 1):.3f})"


def _paired(ours: pd.Series[float], theirs: pd.Series[float]) -> str:
    both = pd.concat([ours, theirs], axis=1, join="inner").to_numpy()
    difference = both[:, 0] - both[:, 1]
    if len(both) < 2 or not difference.std():
        return f"{difference.mean():+.3f}" if len(both) else ""
    low, high = stats.ttest_rel(both[:, 0], both[:, 1]).confidence_interval(CONFIDENCE)
    return f"{difference.mean():+.3f} ({low:+.3f} to {high:+.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.experiments", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    comparing = commands.add_parser("compare", help="print a table of the finished experiments on this commit")
    comparing.add_argument("--csv", type=Path, help="write the runs behind it to this file, too")
    comparing.add_argument("--read", type=Path, help="take the runs from such a file, not from DVC")
    keeping = commands.add_parser("keep", help="write params.yaml, as it stands, to conf/ and make it the default")
    keeping.add_argument("name", help="of the new file in conf/experiment/")
    options = parser.parse_args()
    if options.command == "keep":
        log.info("wrote %s; conf/config.yaml has it as the default", keep(options.name))
        return
    runs = pd.read_csv(options.read) if options.read else collected()
    if options.csv:
        with replacing(options.csv) as aside:
            runs.to_csv(aside, index=False)
    print(table(runs), end="")  # noqa: T201


if __name__ == "__main__":
    run(main)
