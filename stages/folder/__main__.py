"""A folder of labelled pictures -> `data/folder/dump.pgdump`, the dump of a Philomena board that has these pictures."""

from __future__ import annotations

import csv
import json
import logging
from collections import Counter
from pathlib import Path
from typing import Any

from stages.config.download import Download
from stages.folder import listing
from stages.folder.contents import Contents
from stages.folder.gathering import gather
from stages.folder.rows import tables
from stages.philomena import board
from stages.workspace import paths
from stages.workspace.cache import cache_root
from stages.workspace.errors import FolderError, run
from stages.workspace.files import replacing
from stages.workspace.parameters import load

log = logging.getLogger(__name__)

MOST_LABELS = 100
"""Labels that are counted one by one in the summary."""


def main() -> None:
    params = load(Download)
    if not params.folder.pictures:
        raise FolderError(
            "download.folder.pictures names no folder; choose it with `python -m stages.config source=folder`"
        )
    folder = Path(params.folder.pictures)
    with Contents() as contents:
        gather(listing.checked(folder), params, contents)
        write_outs(folder, contents)


def write_outs(folder: Path, contents: Contents) -> None:
    """Write the dump, `left_out.csv` and `summary.json`.

    Raises:
        FolderError: if there is no picture.
    """
    summary, tags = summarise(contents)
    reasons = listed(contents.reasons())
    if not summary["images"]:
        raise FolderError(
            f"{folder} has no picture with a label (left out: {reasons}); put pictures there, a folder for each label, "
            f"as {folder}/cats/tabby.png"
        )
    with (
        replacing(paths.FOLDER_DUMP) as dump,
        replacing(paths.FOLDER_LEFT_OUT) as left_out,
        replacing(paths.FOLDER_SUMMARY) as counts,
    ):
        cluster = cache_root() / "folder/cluster"
        cluster.parent.mkdir(exist_ok=True)
        board.write_dump(tables(contents, tags), cluster, dump)
        with left_out.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(("path", "reason", "detail"))
            writer.writerows(contents.left_out())
        counts.write_text(json.dumps(summary, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    log.info(
        "%s: %d images; %d doubles, %d of them with different labels; left out: %s; see %s",
        *(paths.FOLDER_DUMP, summary["images"], summary["doubles"], summary["doubles_with_different_labels"]),
        *(reasons, paths.FOLDER_LEFT_OUT),
    )


def summarise(contents: Contents) -> tuple[dict[str, Any], Counter[str]]:
    """The content of `summary.json`, and how many pictures have each tag."""
    images = files = contradicted = 0
    labels: Counter[str] = Counter()
    tags: Counter[str] = Counter()
    for image in contents.images():
        images += 1
        files += image.files
        contradicted += image.contradicted
        labels.update(image.labels)
        tags.update(image.tags)
    summary = {
        "images": images,
        "doubles": files - images,
        "doubles_with_different_labels": contradicted,
        "repeated_rows": contents.repeated_rows(),
        "labels": dict(sorted(labels.items())) if len(labels) <= MOST_LABELS else len(labels),
        "tags": len(tags),
        "left_out": dict(contents.reasons()),
    }
    return summary, tags


def listed(reasons: Counter[str]) -> str:
    """Counts in words, largest first: `12 hidden, 3 corrupt`."""
    return ", ".join(f"{count} {reason}" for reason, count in reasons.most_common()) or "none"


if __name__ == "__main__":
    run(main)
