"""A disk that is full at any moment of the crawl: one sentence, exit code 1, no output; and the next run goes on."""

from __future__ import annotations

import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from crawls import DownloadProject, pictures
from faults import FaultyHost, faulty_host


@pytest.fixture(scope="module")
def host() -> Iterator[FaultyHost]:
    with faulty_host() as host:
        yield host


@pytest.mark.parametrize("size", [1000, 5000, 20_000, 30_000])
def test_a_full_disk_is_one_sentence(host: FaultyHost, tmp_path: Path, size: int) -> None:
    """As on a full disk: the process may write no more than some bytes to a file, be it index, segment or shard."""
    project = DownloadProject(tmp_path, pictures(host, 400), shard_size=400)
    done = subprocess.run(
        [sys.executable, "-m", "stages.download"],
        cwd=tmp_path,
        env=project.environment(),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    error = done.stderr.splitlines()[-1]
    assert error.startswith("error: ")
    assert "disk" in error
    assert project.outs() == {}
    code, output = project.run()
    assert code == 0, output
    assert set(project.status().values()) == {"ok"}
