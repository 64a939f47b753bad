"""Commands of conf/README.md, run for real in a clone: the example of a policy, and recovering from a failed run."""

from __future__ import annotations

import re
import shlex
import subprocess

import pytest
from clones import ROOT, Clone, after_smoke

from stages.workspace import paths
from stages.workspace.errors import WAY_BACK

pytestmark = pytest.mark.slow
GUIDE = (ROOT / "conf/README.md").read_text()


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    clone = after_smoke(tmp_path_factory)
    clone.run("git", "commit", "--all", "--quiet", "--message", "The smoke experiment")
    return clone


def test_a_failed_run_is_undone(clone: Clone) -> None:
    wrong = [
        "dvc",
        "exp",
        "run",
        "-S",
        "experiment=smoke",
        "-S",
        "split.seed=1",
        "-S",
        "train.model.weights=absent.pth",
    ]
    run = subprocess.run(wrong, cwd=clone.folder, env=clone.forking, capture_output=True, text=True, check=False)
    assert run.returncode != 0
    assert "error: train.model.weights: there is no file absent.pth" in run.stdout + run.stderr
    assert WAY_BACK in run.stdout + run.stderr
    assert not (clone.folder / paths.MODEL).exists()
    section = GUIDE.partition("\n## Recovering from a failed `dvc exp run`\n")[2]
    block = section.partition("```sh\n")[2].partition("```")[0]
    commands = [shlex.split(line, comments=True) for line in block.splitlines()]
    assert f"`{shlex.join(commands[0])} && {shlex.join(commands[1])}`" in WAY_BACK
    for command in commands:
        clone.run(*command)
    assert clone.run("git", "status", "--porcelain") == ""
    assert "up to date" in clone.run("dvc", "status")
    assert (clone.folder / paths.MODEL).exists()


def test_the_example_of_a_policy_runs_on_the_sample(clone: Clone) -> None:
    example = GUIDE.partition("```yaml\n")[2].partition("```")[0]
    (clone.folder / "conf/policy/vehicles.yaml").write_text(example)
    clone.run("python", "-m", "stages.config", "policy=vehicles")
    clone.run("dvc", "repro", "extract")
    counts = re.search(r"finds (\d+) `vehicles` and\s+([\d,]+) `others`", GUIDE)
    assert counts
    assert clone.json(paths.EXTRACT_SUMMARY)["labels"] == {
        "vehicles": int(counts[1]),
        "others": int(counts[2].replace(",", "")),
    }
