"""A board's dump -> `lite.pgdump`, the needed tables and columns only, and `tables.json`."""

from __future__ import annotations

import json
import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from stages.config.restore import Restore
from stages.dump import archive, databases, transfer
from stages.dump.archive import Archive
from stages.workspace import paths
from stages.workspace.errors import DumpError, run
from stages.workspace.files import replacing
from stages.workspace.parameters import load

log = logging.getLogger(__name__)


def main() -> None:
    params = load(Restore)
    source = archive.read(Path(params.dump))
    entries = transfer.needed(source)
    transfer.check_space(source, entries)
    with databases.new() as database, ThreadPoolExecutor(1) as beside:
        sha256 = beside.submit(transfer.sha256, source.path)
        transfer.load(source, entries, database, params.jobs)
        check_sha256(source.path, sha256.result(), params.sha256)
        transfer.shape(database)
        log.info("packing %s", paths.LITE_DUMP)
        with replacing(paths.LITE_DUMP) as lite, replacing(paths.TABLES) as tables:
            rows = beside.submit(transfer.row_counts, database)
            transfer.pack(database, lite, params.compression, like=source.header)
            tables.write_text(json.dumps(described(source, sha256.result(), rows.result()), indent=2) + "\n")
            database.keep(transfer.sha256(lite))


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
