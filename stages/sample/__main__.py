"""Debian packages of pictures -> `data/sample/dump.pgdump`, the dump of a Philomena board that has these pictures."""

from __future__ import annotations

import logging

from stages.philomena import board
from stages.sample import openclipart
from stages.sample.rows import tables
from stages.sample.uploads import uploads
from stages.workspace import paths
from stages.workspace.cache import cache_root
from stages.workspace.errors import run
from stages.workspace.files import replacing

log = logging.getLogger(__name__)


def main() -> None:
    library = openclipart.gather()
    uploaded = uploads(library.contents)
    with replacing(paths.SAMPLE_DUMP) as aside:
        board.write_dump(tables(uploaded), cache_root() / "sample/cluster", aside)
    visible = sum(not upload.hidden for upload in uploaded)
    log.info("%s: %d images, %d of them visible", paths.SAMPLE_DUMP, len(uploaded), visible)


if __name__ == "__main__":
    run(main)
