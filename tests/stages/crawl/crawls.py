"""A folder in which the download stage runs as a command."""

from __future__ import annotations

import contextlib
import copy
import hashlib
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import forks
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from faults import FaultyHost

ROOT = Path(__file__).parents[3]
SECTION: dict[str, Any] = yaml.safe_load("""
  {host: stages/crawl/remote.py, hosts: [127.0.0.1], rate: 400.0, concurrency: 4, tries: 3, timeout: 600.0,
   backoff: 0.01, max_wait: 1.0, pause_overloaded: 0.1, pause_blocked: 0.1, max_bytes: 1000000, max_pixels: 1000000,
   max_failed: 0.3, shard_size: 50}
""")


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
"""Runs the stage once for each input line, without the second for imports; prints the process id, then the status."""


class DownloadProject:
    """A folder with a catalogue and parameters, in which the stage runs as a command."""

    def __init__(self, folder: Path, urls: dict[int, str], **changed: object) -> None:
        self.folder = folder
        (folder / "data/extract").mkdir(parents=True)
        self.list(urls)
        self.change(**changed)

    @classmethod
    def opened(cls, folder: Path) -> DownloadProject:
        """A folder that is a project already."""
        project = cls.__new__(cls)
        project.folder = folder
        return project

    def change(self, **changed: object) -> None:
        """Write the parameters."""
        section = {**copy.deepcopy(SECTION), **changed}
        (self.folder / "params.yaml").write_text(yaml.safe_dump({"download": section}))

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
            env=self.environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self) -> tuple[int, str]:
        done = forks.run(forks.DOWNLOADING, "stages.download", folder=self.folder, environment=self.environment())
        return done.returncode, done.stderr

    def environment(self) -> dict[str, str]:
        return {**os.environ, "PYTHONPATH": str(ROOT), "MLPY_CACHE": str(self.folder / "cache")}

    def status(self) -> dict[int, str]:
        table = pq.read_table(self.folder / "data/download/status.parquet")
        return dict(zip(table["image_id"].to_pylist(), table["status"].to_pylist(), strict=True))

    def crawl(self) -> dict[str, Any]:
        """What the last run wrote of itself: its output, and its statistics in the cache root."""
        (statistics,) = (self.folder / "cache").glob("crawl-*.json")
        files = (statistics, self.folder / "data/download/crawl.json")
        return {name: value for file in files for name, value in json.loads(file.read_text()).items()}

    def outs(self) -> dict[str, str]:
        files = [*(self.folder / "data/download").glob("[!.]*"), *(self.folder / "data/download/shards").glob("*")]
        return {file.name: hashlib.md5(file.read_bytes()).hexdigest() for file in files if file.is_file()}

    def shards(self) -> dict[str, tuple[int, int]]:
        """Inode and time of each shard, which change if it is written again."""
        files = sorted((self.folder / "data/download/shards").iterdir())
        return {file.name: (file.stat().st_ino, file.stat().st_mtime_ns) for file in files}

    def finished(self) -> int:
        """Shards in the cache."""
        return len([*(self.folder / "cache/pictures").glob("*.parquet")])


FAULTS = ("404", "410", "418", "truncated", "pixel-bomb", "large-said", "loop")
"""Responses that stay, none of which is a picture."""
TEMPORARY = (
    "429",
    "500-body",
    "501",
    "503",
    "cut-off",
    "cut-off-chunk",
    "too-long",
    "reset",
    "garbage",
    "zero",
    "html",
)
"""Responses after which the next attempt succeeds."""


def faulty_pictures(host: FaultyHost, count: int) -> dict[int, str]:
    """`count` pictures, of which some come at the second attempt only; and one of each of the other `FAULTS`."""
    urls = pictures(host, count)
    for number, fault in enumerate(TEMPORARY):
        urls[number * count // len(TEMPORARY)] = host.url(f"{fault}~1/{number}")
    return urls | {count + 100 + number: host.url(f"{fault}/{number}") for number, fault in enumerate(FAULTS)}


class Kills(NamedTuple):
    """What happened to a crawl that was killed again and again."""

    kills: Counter[int]
    """By signal."""
    lives: int
    """Crawls from an empty cache: a run that ended before its kill is followed by another crawl."""
    finished: set[int]
    """Numbers of finished shards at the moments of the kills."""
    requests: int


def kill_again_and_again(project: DownloadProject, host: FaultyHost, kills: int, seed: int) -> Kills:
    """Run the stage and end it by SIGKILL or SIGTERM at random moments, until that was done `kills` times; then let it
    finish. The moments are counted in requests, so that the load of the machine does not matter much.
    """
    chance, count = random.Random(seed), len(pq.read_table(project.folder / "data/extract/images.parquet"))
    sent: Counter[int] = Counter()
    done: set[int] = set()
    first = born = host.requested.total()
    lives = 1
    with project.start("-c", FORKS) as process:
        assert process.stdin
        assert process.stdout
        while sent.total() < kills:
            project.clear()
            print(file=process.stdin, flush=True)
            child = int(process.stdout.readline())
            until = min(host.requested.total() + chance.randrange(60), born + count)
            while host.requested.total() < until and not select.select([process.stdout], [], [], 0.002)[0]:
                pass
            time.sleep(chance.uniform(0, 0.02 if until < born + count else 0.2))
            done.add(project.finished())
            number = chance.choice([signal.SIGKILL, signal.SIGTERM])
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)
            code = os.waitstatus_to_exitcode(int(process.stdout.readline()))
            if code:
                assert code in (143, -number), (code, number)
                sent[number] += 1
            else:  # the run finished first: start over
                shutil.rmtree(project.folder / "cache")
                born, lives = host.requested.total(), lives + 1
        output = process.communicate()[1]
    assert "Traceback" not in output, output
    project.clear()
    code, output = project.run()
    assert code == 0, output
    return Kills(sent, lives, done, host.requested.total() - first)


def pictures(host: FaultyHost, count: int) -> dict[int, str]:
    return {number: host.url(f"picture/{number}") for number in range(count)}
