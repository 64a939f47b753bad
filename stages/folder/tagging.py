"""Names of folders, or rows of metadata -> a picture's labels and tags."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from stages.folder import listing
from stages.folder.metadata import Row
from stages.folder.names import name_of

SPLITS = frozenset({"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"})
"""Folders that other tools keep splits in: they are no labels if nothing else is beside them. `split` makes its own."""


@dataclass(frozen=True)
class Layout:
    """How a folder tells what its pictures show."""

    by_metadata: bool
    """Metadata give labels or tags, so the names of folders give none."""
    skipped: int = 0
    """Folders of each path, from the top, that are splits."""


@dataclass(frozen=True)
class Description:
    """What is known of a picture besides its pixels."""

    labels: tuple[str, ...]
    """What a policy tells apart; they are among the tags."""
    tags: tuple[str, ...]
    """Sorted."""
    source: str = ""


def split_folders(root: Path) -> list[str]:
    """The folders at the top, if all of them are splits, as `train` and `test`."""
    with os.scandir(root) as found:
        folders = [entry.name for entry in found if entry.is_dir(follow_symlinks=False)]
    names = sorted(name for name in folders if not listing.is_hidden(name))
    return names if names and all(name.lower() in SPLITS for name in names) else []


def describe(path: str, row: Row | None, layout: Layout) -> Description | str:
    """A picture's labels and tags, or the reason why it is left out.

    Args:
        path: the picture's, below the folder.
        row: what the metadata say of it.
        layout: of the folder.
    """
    extra = row or Row(path)
    if layout.by_metadata:
        if row is None:
            return "no_metadata"
        if row.unlabelled:
            return "no_label"
        names = labels = row.labels
    else:
        folders = (name_of(folder) for folder in path.split("/")[layout.skipped : -1])
        names = tuple(filter(None, folders))
        labels = names[:1]
        if not labels:
            return "no_label"
    return Description(labels, tuple(sorted({*names, *extra.tags})), extra.source)
