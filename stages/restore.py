"""A board's dump -> `lite.pgdump`, the needed tables and columns only, and `tables.json`."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from stages import paths
from stages.booru import archive, databases, dump
from stages.booru.archive import Archive
from stages.errors import DumpError, run
from stages.params import Restore, load
from stages.paths import replacing

log = logging.getLogger(__name__)


def main() -> None:
    params = load(Restore)
    source = archive.read(Path(params.dump))
    entries = dump.needed(source)
    dump.check_space(source, entries)
    with databases.new() as database, ThreadPoolExecutor(1) as beside:
        sha256 = beside.submit(dump.sha256, source.path)
        dump.load(source, entries, database, params.jobs)
        check_sha256(source.path, sha256.result(), params.sha256)
        dump.shape(database)
        log.info("packing %s", paths.LITE_DUMP)
        with replacing(paths.LITE_DUMP) as lite, replacing(paths.TABLES) as tables:
            rows = beside.submit(dump.row_counts, database)
            dump.pack(database, lite, params.compression, like=source.header)
            tables.write_text(json.dumps(described(source, sha256.result(), rows.result()), indent=2) + "\n")
            database.keep(dump.sha256(lite))


def check_sha256(path: Path, actual: str, published: str | None) -> None:
    if published and actual != published:
        raise DumpError(
            f"{path} has the SHA-256 {actual}, not the published {published}; fetch it again, or mend restore.sha256"
        )


def described(source: Archive, sha256: str, rows: dict[str, int]) -> dict[str, Any]:
    """What `tables.json` says."""
    header = source.header
    return {
        "dump": {
            "sha256": sha256,
            "bytes": source.size,
            "date": header.date,
            "archive_version": ".".join(map(str, header.version)),
            "server_version": (header.server_version or b"").decode(errors="replace"),
        },
        "rows": rows,
    }


if __name__ == "__main__":
    run(main)
