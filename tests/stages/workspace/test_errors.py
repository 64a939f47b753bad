"""How a command exits: one sentence and exit code 1 for a user's mistake; files are complete or absent."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stages.workspace.errors import WAY_BACK
from stages.workspace.files import replacing

ROOT = Path(__file__).parents[3]


def run_command(body: str, **environment: str) -> subprocess.CompletedProcess[str]:
    code = f"import os, signal, time\nfrom stages.workspace.errors import *\ndef main():\n    {body}\nrun(main)"
    names = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")} | environment
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=names, capture_output=True, text=True, check=False
    )


def test_a_users_mistake_ends_in_one_sentence() -> None:
    done = run_command("raise DumpError('no dump at x', 'build it')")
    assert (done.returncode, done.stderr, done.stdout) == (1, "error: no dump at x: build it\n", "")


def test_a_bug_keeps_its_traceback() -> None:
    done = run_command("raise KeyError('ours')")
    assert done.returncode == 1
    assert "Traceback" in done.stderr


@pytest.mark.parametrize(("body", "code"), [("return None", 0), ("return 3", 3)])
def test_the_exit_code_is_the_one_that_main_returns(body: str, code: int) -> None:
    assert run_command(body).returncode == code


@pytest.mark.parametrize(("name", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_signal_runs_finally_blocks_and_leaves_no_traceback(name: str, code: int) -> None:
    body = f"try: os.kill(os.getpid(), signal.{name}); time.sleep(300)\n    finally: print('cleaned up')"
    done = run_command(body)
    assert done.returncode == code
    assert done.stdout == "cleaned up\n"
    assert "Traceback" not in done.stderr


IN_WORKSPACE = {"DVC_EXP_NAME": "exp-1a2b3", "DVC_ROOT": str(ROOT)}


@pytest.mark.parametrize(
    "body",
    [
        "raise DumpError('no dump at x', 'build it')",
        "raise KeyError('ours')",
        "os.kill(os.getpid(), signal.SIGINT); time.sleep(300)",
        "os.kill(os.getpid(), signal.SIGTERM); time.sleep(300)",
        "return 3",
    ],
    ids=["mistake", "bug", "Ctrl-C", "SIGTERM", "exit code"],
)
def test_a_stage_of_an_experiment_says_last_how_to_come_back(body: str) -> None:
    assert run_command(body, **IN_WORKSPACE).stderr.splitlines()[-1] == WAY_BACK
    # `dvc repro` puts nothing into params.yaml, and DVC removes a queued experiment's folder.
    for environment in ({"DVC_ROOT": str(ROOT)}, {**IN_WORKSPACE, "DVC_ROOT": str(ROOT.parent)}):
        assert WAY_BACK not in run_command(body, **environment).stderr


def test_a_stage_of_an_experiment_that_ends_well_says_nothing() -> None:
    assert run_command("return None", **IN_WORKSPACE).stderr == ""


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    target = tmp_path / "new folder" / "artifact"
    with replacing(target) as aside:
        aside.write_text("whole")
        assert not target.exists()
    assert target.read_text() == "whole"
    assert list(target.parent.iterdir()) == [target]


def test_an_error_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    target = tmp_path / "artifact"
    target.write_text("old")
    with pytest.raises(FileNotFoundError), replacing(target) as aside:
        aside.with_name("absent").rename(aside)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_linked_out_is_replaced_not_written_through(tmp_path: Path) -> None:
    cached = tmp_path / "cached"
    cached.write_text("in the cache")
    cached.chmod(0o444)
    target = tmp_path / "out"
    target.hardlink_to(cached)
    with replacing(target) as aside:
        aside.write_text("new")
    assert (cached.read_text(), target.read_text()) == ("in the cache", "new")
