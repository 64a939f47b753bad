"""The download stage as a user runs it: its outs, its exit code, what a rerun or a `kill -9` costs."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from faults import FaultyHost, faulty_host

ROOT = Path(__file__).parents[2]
SECTION: dict[str, Any] = yaml.safe_load("""
  {board: remote, hosts: [127.0.0.1], rate: 400.0, concurrency: 4, tries: 3, timeout: 2.0, backoff: 0.01, max_wait: 1.0,
   pause_overloaded: 0.1, pause_blocked: 0.1, max_bytes: 1000000, max_pixels: 1000000, max_failed: 0.3, shard_size: 50}
""")


@pytest.fixture(scope="module")
def host() -> Iterator[FaultyHost]:
    with faulty_host() as host:
        yield host


class Project:
    """A folder with a catalogue and parameters, in which the stage runs as a command."""

    def __init__(self, folder: Path, urls: dict[int, str], **changed: object) -> None:
        self.folder = folder
        (folder / "data/extract").mkdir(parents=True)
        self.list(urls)
        (folder / "params.yaml").write_text(yaml.safe_dump({"download": {**copy.deepcopy(SECTION), **changed}}))

    def list(self, urls: dict[int, str]) -> None:
        """Write the catalogue."""
        schema = pa.schema([("image_id", pa.int64()), ("url", pa.string()), ("sha512", pa.string())])
        rows = [{"image_id": number, "url": url} for number, url in urls.items()]
        pq.write_table(pa.Table.from_pylist(rows, schema), self.folder / "data/extract/images.parquet")

    def clear(self) -> None:
        """Delete the outs, as DVC does before it runs a stage."""
        shutil.rmtree(self.folder / "data/download", ignore_errors=True)

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, *(words or ("-m", "stages.download"))],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "MLPY_CACHE": str(self.folder / "cache")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self) -> tuple[int, str]:
        process = self.start()
        said = process.communicate(timeout=120)[1]
        return process.returncode, said

    def status(self) -> dict[int, str]:
        table = pq.read_table(self.folder / "data/download/status.parquet")
        return dict(zip(table["image_id"].to_pylist(), table["status"].to_pylist(), strict=True))

    def crawl(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads((self.folder / "data/download/crawl.json").read_text())
        return told

    def outs(self) -> dict[str, str]:
        files = [*(self.folder / "data/download").glob("[!.]*"), *(self.folder / "data/download/shards").glob("*")]
        return {file.name: hashlib.md5(file.read_bytes()).hexdigest() for file in files if file.suffix == ".parquet"}

    def shards(self) -> dict[str, tuple[int, int]]:
        """What tells whether a shard was written anew: inode and time."""
        files = sorted((self.folder / "data/download/shards").iterdir())
        return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}

    def finished(self) -> int:
        """Shards in the cache."""
        return len([*(self.folder / "cache/pictures").glob("*.parquet")])


def pictures(host: FaultyHost, count: int) -> dict[int, str]:
    return {number: host.url(f"picture/{number}") for number in range(count)}


def test_pictures_become_shards_and_every_image_a_status(host: FaultyHost, tmp_path: Path) -> None:
    urls = {
        **pictures(host, 120),
        200: host.url("404"),
        201: host.url("html"),
        202: host.url("503"),
        203: host.url("pixel-bomb"),
    }
    project = Project(tmp_path, urls)
    code, said = project.run()
    assert code == 0, said
    status = project.status()
    assert list(status) == sorted(urls)
    assert {status[number] for number in range(120)} == {"ok"}
    assert [status[number] for number in range(200, 204)] == ["missing", "corrupt", "gave_up", "too_large"]
    shards = sorted((tmp_path / "data/download/shards").iterdir())
    assert [shard.name for shard in shards] == [f"shard-0000{n}.parquet" for n in range(3)]
    rows = pq.read_table(shards[1]).to_pylist()
    assert [row["image_id"] for row in rows] == list(range(50, 100))
    assert (rows[7]["width"], rows[7]["height"], rows[7]["format"]) == (97, 30, "png")
    assert all(hashlib.sha256(row["bytes"]).hexdigest() == row["sha256"] for row in rows)
    assert project.crawl()["pictures"] == {"corrupt": 1, "gave_up": 1, "missing": 1, "ok": 120, "too_large": 1}
    first, *_, last = said.splitlines()
    assert first == "asking for 124 pictures: 0:00:01 or more at 400 a second"
    assert last.startswith("124 pictures: 120 ok, 1 missing, 1 corrupt, 1 gave_up, 1 too_large; 127 requests in ")


def test_a_rerun_asks_for_nothing_writes_no_shard_and_gives_the_same_bytes(host: FaultyHost, tmp_path: Path) -> None:
    project = Project(tmp_path, {**pictures(host, 60), 70: host.url("404")})
    assert project.run()[0] == 0
    outs, shards, asked = project.outs(), project.shards(), host.asked.total()
    index = (tmp_path / "cache/pictures/index.sqlite").read_bytes()
    project.clear()
    assert project.run()[0] == 0
    assert project.outs() == outs
    assert project.shards() == shards
    assert (tmp_path / "cache/pictures/index.sqlite").read_bytes() == index
    assert host.asked.total() == asked
    assert project.crawl()["requests"] == 0


def test_more_images_ask_and_write_only_what_is_new(host: FaultyHost, tmp_path: Path) -> None:
    few, more = pictures(host, 80), pictures(host, 120)
    grown, whole = Project(tmp_path / "grown", few), Project(tmp_path / "whole", more)
    assert grown.run()[0] == 0
    before, asked = grown.shards(), host.asked.total()
    grown.list(more)
    grown.clear()
    assert grown.run()[0] == 0
    after = grown.shards()
    assert host.asked.total() - asked == 40
    assert [name for name in after if after[name] != before.get(name)] == ["shard-00001.parquet", "shard-00002.parquet"]
    assert whole.run()[0] == 0
    assert grown.outs() == whole.outs()


def test_a_shard_that_was_changed_in_place_is_fetched_anew(host: FaultyHost, tmp_path: Path) -> None:
    project = Project(tmp_path, pictures(host, 60))
    assert project.run()[0] == 0
    outs = project.outs()
    shard = tmp_path / "data/download/shards/shard-00000.parquet"
    shard.chmod(0o644)  # a hard link to the cache's
    with shard.open("r+b") as file:
        file.write(b"!" * 2000)
    project.clear()
    code, said = project.run()
    assert code == 1
    assert said.endswith("is damaged; run again to fetch what it lost\n")
    asked = host.asked.total()
    assert project.run()[0] == 0
    assert project.outs() == outs
    assert host.asked.total() - asked == 50


def test_a_cache_on_another_file_system_has_its_shards_copied(
    host: FaultyHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path(tempfile.mkdtemp(dir="/dev/shm"))
    project = Project(tmp_path, pictures(host, 60))
    try:
        (tmp_path / "cache").symlink_to(other)
        assert project.run()[0] == 0
        assert project.finished() == 2
        assert all(file.stat().st_nlink == 1 for file in (tmp_path / "data/download/shards").iterdir())
        assert sum(map(len, pq.read_table(tmp_path / "data/download/shards")["bytes"].to_pylist())) > 0
    finally:
        shutil.rmtree(other)


def test_too_many_failures_fail_the_stage_in_one_sentence_and_keep_what_was_fetched(
    host: FaultyHost, tmp_path: Path
) -> None:
    project = Project(
        tmp_path, {**pictures(host, 4), **{number: host.url(f"404/{number}") for number in range(10, 14)}}
    )
    code, said = project.run()
    assert code == 1
    assert said.splitlines()[-1].startswith("error: 4 of 8 pictures failed (4 missing), over download.max_failed=0.3;")
    assert "Traceback" not in said
    assert not (tmp_path / "data/download/shards").exists()
    asked = host.asked.total()
    assert project.run()[0] == 1
    assert host.asked.total() == asked


def test_a_refusal_is_one_sentence(host: FaultyHost, tmp_path: Path) -> None:
    code, said = Project(tmp_path, {1: host.url("403")}).run()
    assert code == 1
    assert "error: 127.0.0.1 refuses the crawl (403)" in said
    assert "Traceback" not in said


def test_no_catalogue_says_what_to_run(tmp_path: Path) -> None:
    project = Project(tmp_path, {})
    (tmp_path / "data/extract/images.parquet").unlink()
    code, said = project.run()
    assert (code, said.strip()) == (1, "error: no catalogue data/extract/images.parquet; run `dvc repro extract`")


FORKS = """
import os, runpy, sys
import pandas, stages.download
for _ in sys.stdin:
    child = os.fork()
    if not child:
        runpy.run_module("stages.download", run_name="__main__")
    print(child, flush=True)
    print(os.waitpid(child, 0)[1], flush=True)
"""
"""Runs the stage once a line, without the second that its imports take. Prints the process id, then how it ended."""


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_at_any_moment_ends_cleanly_and_keeps_what_was_fetched(
    host: FaultyHost, tmp_path: Path, sent: int, code: int
) -> None:
    urls = {number: host.url(f"picture/{number}/{sent}") for number in range(400)}
    project = Project(tmp_path, urls, rate=100.0)
    chance = random.Random(sent)
    with project.start("-c", FORKS) as forks:
        assert forks.stdin
        assert forks.stdout
        for _ in range(10):
            asked = host.asked.total()
            print(file=forks.stdin, flush=True)
            child = int(forks.stdout.readline())
            while host.asked.total() < asked + 5:
                time.sleep(0.002)
            time.sleep(chance.uniform(0, 0.02))
            os.kill(child, sent)
            assert os.waitstatus_to_exitcode(int(forks.stdout.readline())) == code
            assert project.outs() == {}
        said = forks.communicate(timeout=20)[1]
    assert "Traceback" not in said
    asked_for = [times for path, times in host.asked.items() if path.endswith(f"/{sent}")]
    assert sum(asked_for) - len(asked_for) <= 10 * SECTION["concurrency"]  # no more than what was under way


def test_killed_at_any_moment_the_next_run_ends_as_if_nothing_had_been(host: FaultyHost, tmp_path: Path) -> None:
    urls = {**pictures(host, 300), 400: host.url("404"), 401: host.url("html")}
    undisturbed, killed = Project(tmp_path / "a", urls), Project(tmp_path / "b", urls)
    assert undisturbed.run()[0] == 0
    chance = random.Random(20)
    asked, kills, lives, done = host.asked.total(), 0, 1, set()
    with killed.start("-c", FORKS) as forks:
        assert forks.stdin
        assert forks.stdout
        while kills < 20:
            killed.clear()
            print(file=forks.stdin, flush=True)
            child = int(forks.stdout.readline())
            time.sleep(chance.uniform(0, 0.4))
            done.add(killed.finished())
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
            if int(forks.stdout.readline()):
                kills += 1
            else:  # it was through: begin anew
                assert killed.outs() == undisturbed.outs()
                shutil.rmtree(tmp_path / "b/cache")
                lives += 1
        forks.stdin.close()
    killed.clear()
    assert killed.run()[0] == 0
    assert killed.outs() == undisturbed.outs()
    assert len(done) > 3  # some while shards were being written
    in_flight = kills * SECTION["concurrency"]
    assert host.asked.total() - asked <= lives * (len(urls) + 1) + in_flight


def test_shards_are_finished_while_the_crawl_goes_on(host: FaultyHost, tmp_path: Path) -> None:
    project = Project(tmp_path, pictures(host, 300), rate=100.0)
    asked = host.asked.total()
    with project.start() as process:
        while not project.finished() and process.poll() is None:
            time.sleep(0.01)
        process.kill()
    assert host.asked.total() - asked < 200
    assert project.outs() == {}
