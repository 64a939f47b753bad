"""Kill the download stage again and again, and compare what it leaves in the end with an undisturbed run.

Run `python tests/benchmarks/killing.py --kills 20 --seeds 1 2 3`.

Both crawl the same host on loopback, which serves small pictures, spoils some first responses, and has others that are
no pictures. SIGKILL and SIGTERM come at random moments, which the seed decides. The exit code is 1 if any output
differs by a byte, or if more pictures were requested twice than were in flight at a kill.
"""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests/stages/crawl")]

from crawls import FAULTS, SECTION, TEMPORARY, DownloadProject, faulty_pictures, kill_again_and_again  # noqa: E402
from faults import FaultyHost, faulty_host  # noqa: E402

from stages.workspace import errors  # noqa: E402


def killed(host: FaultyHost, folder: Path, kills: int, seed: int, pictures: int) -> bool:
    """Compare two crawls, print a row of the table, and return whether all is right."""
    urls = faulty_pictures(host, pictures)
    undisturbed, disturbed = DownloadProject(folder / "a", urls), DownloadProject(folder / "b", urls)
    code, output = undisturbed.run()
    if code:
        sys.exit(output)
    host.requested.clear()  # so that the second crawl meets the same faults
    start = time.monotonic()
    report = kill_again_and_again(disturbed, host, kills, seed)
    is_equal = disturbed.outs() == undisturbed.outs()
    once = report.lives * (len(urls) + len(FAULTS) * 8 + len(TEMPORARY))
    allowed = once + report.kills.total() * SECTION["concurrency"]
    row = (seed, report.kills[signal.SIGKILL], report.kills[signal.SIGTERM], report.lives, sorted(report.finished))
    outs = f"{len(undisturbed.outs())} outs {'equal' if is_equal else 'DIFFER'}"
    seconds = time.monotonic() - start
    print(f"| {' | '.join(map(str, row))} | {report.requests} of {allowed} | {outs} | {seconds:.0f} |", flush=True)  # noqa: T201
    return is_equal and report.requests <= allowed


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--pictures", type=int, default=300)
    options = parser.parse_args()
    titles = ("seed", "SIGKILL", "SIGTERM", "crawls", "finished shards at a kill", "requests", "outputs", "s")
    print(f"| {' | '.join(titles)} |\n|{'---|' * len(titles)}", flush=True)  # noqa: T201
    results = []
    with faulty_host() as host, tempfile.TemporaryDirectory(prefix="mlpy-killing-") as name:
        for seed in options.seeds:
            results.append(killed(host, Path(name) / str(seed), options.kills, seed, options.pictures))
    return 0 if all(results) else 1


if __name__ == "__main__":
    errors.run(main)
