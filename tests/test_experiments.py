"""Experiments with real DVC in a clone: queued, compared, applied, kept, killed and resumed."""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import chromium
import pandas as pd
import psutil
import pytest
import yaml
from clones import ROOT, Clone, after_smoke, ended
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait

from stages import experiments
from stages.config.compose import SECTIONS
from stages.evaluation import folds
from stages.workspace import paths

SWEEP = ("-S", "test.bootstrap=100,200", "-S", "model=probe,finetune")
"""Each model trains once: DVC's run cache has the training of runs that differ in a parameter of `test`."""
SMOKE = ("dvc", "--wait-for-lock", "exp", "run", "-S", "experiment=smoke")
CHOSEN = ("finetune", 200)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return after_smoke(tmp_path_factory)


@pytest.fixture(scope="module")
def swept(clone: Clone) -> pd.DataFrame:
    """A queued sweep over a group and a parameter: the finished runs, indexed by the two."""
    before = cached_files(clone)
    queued = clone.run(*SMOKE, "--queue", *SWEEP)
    assert queued.count("Queued experiment") == 4
    clone.run("dvc", "exp", "run", "--run-all", "--jobs", "2", forking=True)
    workers = [process for process in psutil.process_iter(["cmdline"]) if of_the_queue(process, clone)]
    for process in workers:  # else they wait for more, beside the tests to come
        process.terminate()
    ended(workers)
    assert cached_files(clone) == before, "queued runs download and decode nothing again"
    rows = table(clone.run("dvc", "exp", "show", "--csv"))
    return rows[rows["Executor"].notna()].set_index(["train.model.name", "test.bootstrap"])


def of_the_queue(process: psutil.Process, clone: Clone) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied):
        return "queue-worker" in (process.info["cmdline"] or []) and str(clone.folder) in process.cwd()
    return False


def cached_files(clone: Clone) -> dict[str, int]:
    """The cache's databases, downloaded and decoded pictures, and when each file was written."""
    root = Path(clone.environment["MLPY_CACHE"])
    files = [
        file for kind in ("pictures", "decoded", "postgres") for file in (root / kind).rglob("*") if file.is_file()
    ]
    cached = {str(file): file.stat().st_mtime_ns for file in files if file.suffix in (".npy", ".sqlite", ".pgdump")}
    assert any(name.endswith(".npy") for name in cached)
    return cached


def table(csv: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(csv))


def test_a_queued_sweep_runs_each_combination(swept: pd.DataFrame) -> None:
    assert set(swept.index) == {(model, count) for model in ("probe", "finetune") for count in (100, 200)}
    assert list(swept["State"]) == ["Success"] * 4


def test_the_list_of_experiments_is_readable(clone: Clone, swept: pd.DataFrame) -> None:
    venv = clone.folder / ".venv"
    venv.symlink_to(ROOT / ".venv")  # not to be set up again because the clone's files are newer
    # Within `make test`, this make would say which folder it enters.
    output = clone.run("env", "COLUMNS=500", "make", "--no-print-directory", "--old-file=.venv/.ready", "experiments")
    venv.unlink()
    head, *rows = [line.split() for line in output.splitlines() if line.strip()]
    assert head[:7] == ["experiment", *experiments.LISTED]
    assert {"test.bootstrap", "train.model.name", "train.lr"} <= set(head[7:])
    assert {name.partition(".")[0] for name in head[7:]} <= {"test_pictures", *SECTIONS}
    assert len(head) < 40
    assert set(swept["Experiment"]) < {row[0] for row in rows}, "and the commit that they are on"
    chosen_by = [float(row[1]) for row in rows]
    assert chosen_by == sorted(chosen_by, reverse=True)


def test_two_experiments_are_compared(clone: Clone, swept: pd.DataFrame) -> None:
    first, second = swept.loc[("probe", 100), "Experiment"], swept.loc[CHOSEN, "Experiment"]
    differences = json.loads(clone.run("dvc", "exp", "diff", first, second, "--json"))
    assert differences["params"]["params.yaml"]["train.model.name"] == {"old": "probe", "new": "finetune"}
    # Only metrics that differ are listed, and on so few pictures some may be equal.
    assert {"auroc", "average_precision", "f1"} & differences["metrics"]["data/test/metrics.json"].keys()


PLOTS = [name for plot in yaml.safe_load((ROOT / "dvc.yaml").read_text())["plots"] for name in plot]


def test_the_plots_of_two_experiments_are_drawn_offline(
    clone: Clone, swept: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory
) -> None:
    compared = [swept.loc[("probe", 100), "Experiment"], swept.loc[CHOSEN, "Experiment"]]
    drawn = json.loads(clone.run("dvc", "plots", "diff", *compared, "--json"))
    assert drawn.get("errors", []) == []
    assert list(drawn["data"]) == PLOTS, "and none that DVC guesses"
    page = clone.run("dvc", "plots", "diff", *compared).splitlines()[-1]
    with chromium.started(tmp_path_factory.mktemp("profile")) as browser:
        browser.get(page)
        canvases = WebDriverWait(browser, 600).until(
            lambda page: len(found := page.find_elements(By.CSS_SELECTOR, ".vega-embed canvas")) == len(PLOTS) and found
        )
        assert all(canvas.size["width"] > 100 for canvas in canvases)
        assert chromium.requested(browser) == [page], "nothing else is loaded"
    assert "dvc_plots" not in clone.run("git", "status", "--porcelain")


def test_the_table_has_a_row_per_setting(clone: Clone, swept: pd.DataFrame) -> None:
    rows = clone.run("python", "-m", "stages.experiments", "compare", "--csv", "runs.csv").splitlines()
    assert {row.split(" | ")[2] for row in rows[2:]} >= {
        "probe bootstrap=100",
        "probe bootstrap=200",
        "finetune bootstrap=100",
        "finetune bootstrap=200",
    }
    assert "\n".join(rows) + "\n" == experiments.table(pd.read_csv(clone.folder / "runs.csv"))


def test_finished_runs_are_recorded_for_the_report(clone: Clone, swept: pd.DataFrame) -> None:
    path = clone.folder / folds.FILE.relative_to(ROOT)
    text, before = path.read_text(), set(folds.read(path))
    clone.run("python", "-m", "stages.experiments", "record")
    added = set(folds.read(path)) - before
    path.write_text(text)
    assert {row.model for row in added} == {"probe", "finetune"}
    policy = clone.json(paths.SIDECAR)["policy"]
    assert {(row.source, row.rules, row.group_by, row.fold) for row in added} == {
        ("sample.localhost", folds.checksum(policy), "content", "0")
    }
    metrics = clone.json(paths.TEST_METRICS)
    assert {row.positives for row in added} == {metrics["positives"]}


def test_the_best_experiment_is_branched_applied_and_kept(clone: Clone, swept: pd.DataFrame) -> None:
    winner = swept.loc[CHOSEN, "Experiment"]
    clone.run("dvc", "exp", "branch", winner, "better")
    assert "better" in clone.run("git", "branch", "--list", "better")
    clone.run("dvc", "exp", "apply", winner)
    check = subprocess.run(
        ["python", "-m", "stages.config", "--check"], cwd=clone.folder, env=clone.environment, capture_output=True
    )
    assert check.returncode == 1
    assert b"train.model.name: params.yaml has 'finetune', conf/ composes 'probe'" in check.stderr
    clone.run("python", "-m", "stages.experiments", "keep", "winner")
    clone.run("python", "-m", "stages.config", "--check")
    kept = (clone.folder / "conf/experiment/winner.yaml").read_text()
    assert "- override /model: finetune\n" in kept
    assert "batch_size" not in kept, "the group's own values are not repeated"
    assert "up to date" in clone.run("dvc", "repro"), "keeping it reruns no stage"


def test_a_killed_experiment_resumes(clone: Clone) -> None:
    command = [*SMOKE, "-S", "train.epochs=40", "-S", "train.patience=40", "-S", "train.seed=7", "train"]
    training = Path(clone.environment["MLPY_CACHE"]) / "training"
    killed = subprocess.Popen(command, cwd=clone.folder, env=clone.environment, start_new_session=True)
    while not list(training.glob("*/last.ckpt")):
        assert killed.poll() is None
        time.sleep(0.02)
    stages = psutil.Process(killed.pid).children(recursive=True)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    ended(stages)
    resumed = subprocess.run(command, cwd=clone.folder, env=clone.forking, capture_output=True, text=True)
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming from epoch" in resumed.stdout + resumed.stderr
