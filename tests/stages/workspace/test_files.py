"""What a killed stage leaves behind: the next one deletes it, and git and DVC do not see it."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from clones import Clone

from stages.workspace import paths
from stages.workspace.files import replacing, temporary

ROOT = Path(__file__).parents[3]
KILLED = """
import os, sys
from pathlib import Path
from stages.workspace.files import replacing, temporary
with replacing(Path(sys.argv[1])) as aside, temporary(aside) as another:
    aside.write_text("half")
    os.kill(os.getpid(), 9)
"""
OUTS = [
    path
    for value in vars(paths).values()
    for path in (value.values() if isinstance(value, dict) else [value])
    if isinstance(path, Path) and path.parts[0] in ("data", "models")
]


def kill_while_writing(target: Path) -> list[Path]:
    """Kill a process that writes `target` -> what it left."""
    subprocess.run([sys.executable, "-c", KILLED, str(target)], cwd=ROOT, check=False)
    left = [path for path in target.parent.iterdir() if path.name.startswith(f".{target.name}.")]
    assert len(left) == 2
    return left


def test_the_next_writer_deletes_what_a_killed_one_left(tmp_path: Path) -> None:
    target, other = tmp_path / "an [out]", tmp_path / "an [out].json"
    kill_while_writing(target)
    kept = kill_while_writing(other)
    with replacing(target) as aside:
        aside.write_text("whole")
    assert {target, *kept} == set(tmp_path.iterdir()), "the other file's are its own writer's to delete"


def test_a_living_writers_file_is_left_alone(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with replacing(target) as first:
        first.write_text("first")
        with replacing(target) as second, temporary(second) as raw:
            assert len({first, second, raw}) == 3
            assert first.read_text() == "first"
            second.write_text("second")
        assert target.read_text() == "second"
    assert target.read_text() == "first"
    assert list(tmp_path.iterdir()) == [target]


def test_parallel_writers_never_delete_each_others_files(tmp_path: Path) -> None:
    target = tmp_path / "out"
    failures: list[BaseException] = []

    def write(text: str) -> None:
        try:
            for _ in range(100):
                with replacing(target) as aside:
                    aside.write_text(text)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=write, args=(str(number),)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert list(tmp_path.iterdir()) == [target]


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Clone:
    return Clone(tmp_path_factory.mktemp("leftovers"))


@pytest.mark.parametrize("out", OUTS, ids=str)
def test_git_does_not_see_what_a_killed_stage_left(clone: Clone, out: Path) -> None:
    before = clone.run("git", "status", "--porcelain", "--untracked-files=all")
    kill_while_writing(clone.folder / out)
    assert clone.run("git", "status", "--porcelain", "--untracked-files=all") == before
    clone.run("git", "add", "--all", "data", "models")
    assert "partial" not in clone.run("git", "diff", "--cached", "--name-only")


def test_dvc_does_not_hash_what_a_killed_stage_left(clone: Clone) -> None:
    left = kill_while_writing(clone.folder / paths.GRAPHS / "fp32.onnx")
    for path in left:
        assert clone.run("dvc", "check-ignore", os.fspath(path.relative_to(clone.folder)))
