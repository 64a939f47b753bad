"""Experiments as a user makes them: queued, compared, applied, kept, killed and resumed. Real DVC in a clone."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pandas as pd
import pytest
from clones import ROOT, Clone, after_smoke

from stages import experiments

pytestmark = pytest.mark.timeout(900)
SMOKE = ("dvc", "exp", "run", "-S", "experiment=smoke")
CHOSEN = ("finetune", 0.0003)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return after_smoke(tmp_path_factory)


@pytest.fixture(scope="module")
def swept(clone: Clone) -> pd.DataFrame:
    """A sweep over a group and a parameter, by the queue: the finished runs, by model and rate."""
    before = computed_once(clone)
    queued = clone.run(*SMOKE, "--queue", "-S", "model=probe,finetune", "-S", "train.lr=0.001,0.0003")
    assert queued.count("Queued experiment") == 4
    clone.run("dvc", "exp", "run", "--run-all", "--jobs", "2")
    assert computed_once(clone) == before, "queued runs download and decode nothing again"
    rows = table(clone.run("dvc", "exp", "show", "--csv"))
    return rows[rows["Executor"].notna()].set_index(["train.model.name", "train.lr"])


def computed_once(clone: Clone) -> dict[str, int]:
    """What the cache root holds of databases, downloaded and decoded pictures, and when each file was written."""
    root = Path(clone.environment["MLPY_CACHE"])
    files = [
        file for kind in ("pictures", "decoded", "postgres") for file in (root / kind).rglob("*") if file.is_file()
    ]
    kept = {str(file): file.stat().st_mtime_ns for file in files if file.suffix in (".npy", ".sqlite", ".pgdump")}
    assert any(name.endswith(".npy") for name in kept)
    return kept


def table(csv: str) -> pd.DataFrame:
    return pd.read_csv(io.StringIO(csv))


def test_a_queued_sweep_runs_each_combination(swept: pd.DataFrame) -> None:
    assert set(swept.index) == {(model, rate) for model in ("probe", "finetune") for rate in (0.001, 0.0003)}
    assert list(swept["State"]) == ["Success"] * 4


def test_what_is_shown_of_experiments_is_readable(clone: Clone, swept: pd.DataFrame) -> None:
    venv = clone.folder / ".venv"
    venv.symlink_to(ROOT / ".venv")  # which is not to be made anew for this clone's newer files
    shown = clone.run("env", "COLUMNS=500", "make", "--old-file=.venv/.ready", "experiments")
    venv.unlink()
    head = next(line for line in shown.splitlines() if "Experiment" in line)
    columns = head.split()
    assert {"auroc", "val.auroc", "train.model.name", "train.lr"} <= set(columns)
    assert [name for name in columns if "_low" in name or name.startswith(("group_sizes", "rules", "models/"))] == []
    assert len(columns) < 28


def test_two_experiments_are_compared(clone: Clone, swept: pd.DataFrame) -> None:
    first, second = swept.loc[("probe", 0.001), "Experiment"], swept.loc[CHOSEN, "Experiment"]
    said = json.loads(clone.run("dvc", "exp", "diff", first, second, "--json"))
    assert said["params"]["params.yaml"]["train.model.name"] == {"old": "probe", "new": "finetune"}
    # Of metrics those that differ, which on so few pictures need not be each.
    assert {"auroc", "average_precision", "f1"} & said["metrics"]["data/test/metrics.json"].keys()
    assert "index.html" in clone.run("dvc", "plots", "diff", first, second)


def test_the_table_has_a_row_a_setting(clone: Clone, swept: pd.DataFrame) -> None:
    rows = clone.run("python", "-m", "stages.experiments", "compare", "--csv", "runs.csv").splitlines()
    assert {row.split(" | ")[2] for row in rows[2:]} >= {
        "probe lr=0.001",
        "probe lr=0.0003",
        "finetune lr=0.001",
        "finetune lr=0.0003",
    }
    assert "\n".join(rows) + "\n" == experiments.table(pd.read_csv(clone.folder / "runs.csv"))


def test_the_winner_is_applied_branched_and_kept(clone: Clone, swept: pd.DataFrame) -> None:
    winner = swept.loc[CHOSEN, "Experiment"]
    clone.run("dvc", "exp", "branch", winner, "better")
    assert "better" in clone.run("git", "branch", "--list", "better")
    clone.run("dvc", "exp", "apply", winner)
    drifted = subprocess.run(
        ["python", "-m", "stages.config", "--check"], cwd=clone.folder, env=clone.environment, capture_output=True
    )
    assert drifted.returncode == 1
    assert b"train.model.name: params.yaml has 'finetune', conf/ composes 'probe'" in drifted.stderr
    clone.run("python", "-m", "stages.experiments", "keep", "winner")
    clone.run("python", "-m", "stages.config", "--check")
    kept = (clone.folder / "conf/experiment/winner.yaml").read_text()
    assert "- override /model: finetune\n" in kept
    assert "batch_size" not in kept, "what the group says is not said again"
    assert "up to date" in clone.run("dvc", "repro"), "not one stage runs to make it permanent"


def test_a_killed_experiment_goes_on_where_it_was(clone: Clone) -> None:
    command = [*SMOKE, "-S", "train.epochs=40", "-S", "train.patience=40", "-S", "train.seed=7", "train"]
    training = Path(clone.environment["MLPY_CACHE"]) / "training"
    killed = subprocess.Popen(command, cwd=clone.folder, env=clone.environment, start_new_session=True)
    until = time.monotonic() + 120
    while not list(training.glob("*/last.ckpt")):
        assert killed.poll() is None
        assert time.monotonic() < until
        time.sleep(0.02)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    again = subprocess.run(command, cwd=clone.folder, env=clone.environment, capture_output=True, text=True)
    assert again.returncode == 0, again.stderr
    assert "resuming from epoch" in again.stdout + again.stderr
