"""Debian's openclipart -> `data/sample/dump.pgdump`, the dump of a Philomena board that has these pictures."""

from __future__ import annotations

import logging

from stages.philomena import database
from stages.sample import openclipart
from stages.sample.rows import tables
from stages.sample.uploads import images
from stages.workspace import paths
from stages.workspace.cache import cache_root
from stages.workspace.errors import run
from stages.workspace.files import replacing

log = logging.getLogger(__name__)


def main() -> None:
    library = openclipart.gathered()
    uploaded = images(library.contents)
    with replacing(paths.SAMPLE_DUMP) as aside:
        database.write(tables(uploaded), cache_root() / "sample/cluster", aside)
    shown = sum(not image.hidden for image in uploaded)
    log.info("%s: %d images, %d of them shown", paths.SAMPLE_DUMP, len(uploaded), shown)


if __name__ == "__main__":
    run(main)
