"""List experiments, compare them over folds, record or keep them: `python -m stages.experiments --help`."""

from __future__ import annotations

import argparse
import io
import logging
import zlib
from dataclasses import asdict
from pathlib import Path
from urllib.parse import urlsplit

import dvc.api
import pandas as pd
from dvc.exceptions import DvcException
from scipy import stats

from stages.config.compose import LABELS, SECTIONS
from stages.config.extract import Extract
from stages.config.keep import keep
from stages.evaluation import folds
from stages.evaluation.folds import Row
from stages.workspace import paths
from stages.workspace.errors import MLpyError, run
from stages.workspace.files import replacing
from stages.workspace.parameters import validated

log = logging.getLogger(__name__)

CHOICE = "val.auroc"
"""The score that experiments are sorted and chosen by: of validation, as the best of many test scores is too good."""
RECALL_DROP = "recall_drop"
SCORES = {"auroc": "AUROC", "average_precision": "average precision", RECALL_DROP: "recall drop"}
"""Metric of `data/test/metrics.json` -> its column in a table. `recall_drop` is the mean over corruptions."""
LISTED = (CHOICE, "val.average_precision", "auroc", "average_precision", "recall", "false_positive_rate")
UNFINISHED = ("Queued", "Running", "Failed")
"""States in which DVC lists an experiment that has no scores of its own. Others have Success, or no state at all."""
CONFIDENCE = 0.95
POLICY = "extract.policy.name"
MODEL = "train.model.name"
TASK = [POLICY, "split.group_by"]
"""Runs are only comparable if they agree in these."""
FOLD = "split.fold"
REPEATS = [FOLD, "train.seed"]
"""Runs that differ in these alone repeat one setting."""
TEST_PICTURES = str(paths.SPLITS["test"])
"""DVC's hash of the test split. Scores can only be subtracted if they are of the same pictures."""
EQUAL = 1e-9
"""Standard deviation below which scores differ by rounding alone."""
ALL_PICTURES = f"{paths.SPLIT_SUMMARY}:pictures"
"""DVC's column of the number of pictures of all splits."""
LONGEST = 24
"""Characters of a parameter's value in a table."""


def dvc_rows() -> pd.DataFrame:
    """DVC's rows: the workspace, this commit, and the experiments on it."""
    try:
        return pd.DataFrame(dvc.api.exp_show())
    except DvcException as error:
        raise MLpyError(f"DVC cannot list experiments: {error}") from error


def _no_experiments(kind: str) -> MLpyError:
    return MLpyError(
        f"this commit has no {kind}experiments; run some with `dvc exp run`, or look for failures with "
        "`dvc queue status`"
    )


def collect(rows: pd.DataFrame) -> pd.DataFrame:
    """The finished ones of DVC's rows: a row a run, with the parameters that differ and the scores.

    Raises:
        MLpyError: if there are none.
    """
    scores = pd.DataFrame({name: _score(rows, name) for name in (CHOICE, *SCORES)})
    runs = rows[finished(rows) & scores.notna().all(axis=1)]
    if runs.empty:
        raise _no_experiments("finished ")
    columns = [name for name in _parameters(runs) if name in {*TASK, *REPEATS, MODEL}]
    columns += [name for name in _differing(runs) if name not in columns]
    runs = runs[[*columns, TEST_PICTURES]].join(scores)
    runs = runs.sort_values([*TASK, *columns], key=lambda column: column.map(str) if column.dtype == object else column)
    # Through CSV and back, so that `compare` and `compare --read` print the same table.
    return pd.read_csv(io.StringIO(runs.to_csv(index=False)))


def listing(rows: pd.DataFrame) -> pd.DataFrame:
    """A commit and its experiments, the best validation score first: scores, and the parameters that differ.

    Raises:
        MLpyError: if there are none.
    """
    rows = rows[rows["rev"] != "workspace"]
    if rows["Experiment"].isna().all():
        raise _no_experiments("")
    scores = pd.DataFrame({name: _score(rows, name) for name in LISTED})
    scores[rows["State"].isin(UNFINISHED)] = float("nan")
    table = pd.DataFrame({"experiment": rows["Experiment"].fillna(rows["rev"])})
    if rows["State"].isin(UNFINISHED).any():
        table["state"] = rows["State"].fillna("")
    table = table.join(scores.round(4).astype(object).where(scores.notna(), ""))
    if TEST_PICTURES in rows and rows[TEST_PICTURES].nunique() > 1:
        table["test_pictures"] = rows[TEST_PICTURES].str[:8]
    for name in _differing(rows):
        table[name] = _texts(rows[[name]])[name].map(_short)
    return table.loc[scores.sort_values(CHOICE, ascending=False).index]


def results(rows: pd.DataFrame) -> list[Row]:
    """The finished ones of DVC's rows, as lines of the file that the report reads.

    Raises:
        MLpyError: if there are none, if two differ in what the file does not tell, or parameters cannot be read.
    """
    scores = pd.DataFrame({name: _score(rows, name) for name in folds.SCORES})
    chosen = finished(rows) & scores.notna().all(axis=1)
    if not chosen.any():
        raise _no_experiments("finished ")
    positives = [column for column in map(str, rows) if column.split(".")[-1] == "positives"]
    result: dict[tuple[object, ...], tuple[str, Row]] = {}
    for place in rows.index[chosen]:
        run = rows.loc[place]
        extract = _extract(str(run["rev"]))
        rules = {label: asdict(rule) for label, rule in extract.policy.labels.items()}
        policy = {"kind": extract.policy.kind, "labels": list(rules), "rules": rules}
        backbone = run.get(f"{MODEL.rpartition('.')[0]}.backbone")
        row = Row(
            urlsplit(extract.root).hostname or "",
            extract.policy.name,
            folds.checksum(policy),
            str(run["split.group_by"]),
            f"{run[FOLD]:g}",
            int(run["train.seed"]),
            str(run[MODEL]),
            backbone if isinstance(backbone, str) else "none",
            int(run[ALL_PICTURES]),
            int(pd.to_numeric(run[positives], errors="coerce").sum()),
            *(round(float(scores.loc[place, name]), 6) for name in folds.SCORES),
        )
        other, same = result.setdefault(row.key, (str(run["Experiment"]), row))
        if same != row:
            raise MLpyError(
                f"the experiments {other} and {run['Experiment']} are of one model, fold and seed, but differ in other "
                "parameters: keep the one that the report is to show, and remove the other with `dvc exp remove`"
            )
    return [row for _, row in result.values()]


def _extract(revision: str) -> Extract:
    """The extract section of an experiment's parameters. DVC's rows have lists as texts only."""
    try:
        return validated(Extract, dvc.api.params_show(str(paths.PARAMS), rev=revision)["extract"])
    except (DvcException, KeyError) as error:
        raise MLpyError(f"DVC cannot read the parameters of the experiment {revision}: {error}") from error


def _parameters(rows: pd.DataFrame) -> list[str]:
    return [name for name in map(str, rows) if name.startswith(tuple(f"{section}." for section in SECTIONS))]


def _differing(rows: pd.DataFrame) -> list[str]:
    """The parameters in which rows differ. A policy's rules are left out if its name stands for them."""
    texts = _texts(rows[_parameters(rows)])

    def differs(name: str) -> bool:
        counts = texts[name].groupby(texts[POLICY] if name.startswith(f"{LABELS}.") else lambda _: 0).nunique()
        return bool(counts.max() > 1)

    return [name for name in map(str, texts) if differs(name)]


def _texts(values: pd.DataFrame) -> pd.DataFrame:
    # DVC makes the integers of a column with gaps floats, and knows two kinds of null.
    return values.map(_text).where(values.notna(), "none")


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def _short(text: str) -> str:
    """A text that is short enough for a table: of a long one the start, and a checksum that tells it from others."""
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 12]}...#{zlib.crc32(text.encode()):08x}"


def finished(rows: pd.DataFrame) -> pd.Series[bool]:
    """Which of DVC's rows are finished experiments. An unfinished one shows the scores of the commit that it is on."""
    return rows["Experiment"].notna() & ~rows["State"].isin(UNFINISHED)


def _score(rows: pd.DataFrame, name: str) -> pd.Series[float]:
    """A score for each of DVC's rows; NaN where a run has none."""
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
    parameters = _parameters(runs)
    keys = [name for name in parameters if name not in {*TASK, *REPEATS, MODEL}]
    keys.sort(key=lambda name: name != "train.model.backbone")  # the backbone first; the sort is stable
    names = runs[MODEL] if MODEL in runs else pd.Series("", runs.index)
    values = _texts(runs[keys])
    settings = values.agg(" ".join, axis=1) if keys else names
    # Each key splits the settings that share a name so far, if they differ in it.
    for key in keys:
        for name in names.unique():
            same_name = names == name
            if settings[same_name].nunique() > 1 and values.loc[same_name, key].nunique() > 1:
                value = values.loc[same_name, key].map(_short)
                names = names.mask(same_name, (f"{name} {_ending(key, parameters)}=" + value).str.strip())
    return names


def _ending(key: str, keys: list[str]) -> str:
    """The shortest ending that no other of the keys has: `lr`, or `extract.seed` beside `split.seed`."""
    parts = key.split(".")
    endings = [".".join(parts[start:]) for start in reversed(range(len(parts)))]
    return next(ending for ending in endings if sum(f".{other}".endswith(f".{ending}") for other in keys) == 1)


def table(runs: pd.DataFrame) -> str:
    """A Markdown table: each setting's mean scores over folds, and its paired differences from the chosen setting.

    The chosen one, a task's first, has the best validation score; a file of older runs has none, and their test score
    decides. Intervals are Student's t over the folds' scores: they tell how much the choice of pictures matters.
    """
    validation = {CHOICE: "validation AUROC"} if CHOICE in runs else {}
    choice = next(iter(validation | SCORES))
    if TEST_PICTURES not in runs:
        runs = runs.assign(**{TEST_PICTURES: ""})
    head = ["policy", "group by", "setting", "folds", *validation.values()]
    head += [cell for title in SCORES.values() for cell in (title, "difference")]
    lines = [_row(head), "|" + "---|" * len(head)]
    for (policy, group_by), task_runs in runs.groupby(TASK, sort=False):
        # Runs on the same pictures that differ in their seed count as one, by their mean.
        settings = {
            name: setting_runs.groupby([FOLD, TEST_PICTURES])[[*validation, *SCORES]].mean()
            for name, setting_runs in task_runs.groupby(setting_names(task_runs))
        }
        # A mean over few folds may be high by chance, so the chosen setting is among those with the most folds.
        ranked = sorted(settings, key=lambda name: (-len(settings[name]), -settings[name][choice].mean()))
        for name in ranked:
            cells = [str(policy), str(group_by), str(name), str(len(settings[name]))]
            cells += [_mean(settings[name][score]) for score in validation]
            for score in SCORES:
                ours, best = settings[name][score], settings[ranked[0]][score]
                cells += [_mean(ours), "" if name == ranked[0] else _paired(ours, best)]
            lines.append(_row(cells))
    return "\n".join(lines) + "\n"


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _mean(scores: pd.Series[float]) -> str:
    if len(scores) < 2 or scores.std() < EQUAL:  # no interval
        return f"{scores.mean():.3f}"
    low, high = stats.t.interval(CONFIDENCE, len(scores) - 1, scores.mean(), stats.sem(scores))
    return f"{scores.mean():.3f} ({low:.3f} to {min(high, 1):.3f})"


def _paired(ours: pd.Series[float], best: pd.Series[float]) -> str:
    # Only scores of the same test pictures can be paired.
    both = pd.concat([ours, best], axis=1, join="inner").to_numpy()
    if not len(both):
        return "other pictures"
    difference = both[:, 0] - both[:, 1]
    if len(both) < 2 or difference.std() < EQUAL:
        return f"{difference.mean():+.3f}"
    low, high = stats.ttest_rel(both[:, 0], both[:, 1]).confidence_interval(CONFIDENCE)
    return f"{difference.mean():+.3f} ({low:+.3f} to {high:+.3f})"


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m stages.experiments", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="print the experiments on this commit, the best validation score first")
    comparing = commands.add_parser("compare", help="print a table of the finished experiments on this commit")
    comparing.add_argument("--csv", type=Path, help="also write the runs to this CSV file")
    comparing.add_argument("--read", type=Path, help="read the runs from such a file instead of DVC")
    commands.add_parser(
        "record", help=f"add the finished experiments on this commit to {folds.FILE.name}, for the report"
    )
    keeping = commands.add_parser("keep", help="save params.yaml as an experiment in conf/ and make it the default")
    keeping.add_argument("name", help="of the experiment: conf/experiment/NAME.yaml")
    options = parser.parse_args()
    match options.command:
        case "list":
            print(listing(dvc_rows()).to_string(index=False))  # noqa: T201
        case "compare":
            _compare(options.read, options.csv)
        case "record":
            rows = results(dvc_rows())
            folds.write(folds.merged(folds.read(), rows))
            log.info("wrote %d runs to %s; `dvc repro test` puts them into the report", len(rows), folds.FILE.name)
        case "keep":
            log.info("wrote %s and made it the default in conf/config.yaml", keep(options.name))


def _compare(read: Path | None, csv: Path | None) -> None:
    runs = pd.read_csv(read) if read else collect(dvc_rows())
    if csv:
        with replacing(csv) as aside:
            runs.to_csv(aside, index=False)
    print(table(runs), end="")  # noqa: T201


if __name__ == "__main__":
    run(main)
