"""A folder of labelled pictures -> every file with its labels and tags, by its folders or by metadata."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from stages.folder import listing, metadata
from stages.folder.contents import Contents
from stages.folder.listing import Entry
from stages.folder.tagging import Description, Layout, describe, split_folders


def described(root: Path, contents: Contents) -> Iterator[tuple[Entry, Description | None]]:
    """Every file of a folder that `listing.checked` returned, with its labels and tags; None for what is left out.

    Rows of metadata without a file come last.

    Raises:
        FolderError: if metadata cannot be read.
    """
    splits = split_folders(root)
    files = {
        "" if folder == root else folder.name: file
        for folder in (root, *(root / name for name in splits))
        if (file := metadata.file_in(folder))
    }
    by_metadata = False
    for below, file in files.items():
        for row in metadata.read(file, below):
            contents.add_metadata(row)
            by_metadata |= row.labelling
    layout = Layout(by_metadata, 1 if splits else 0)
    own = {file.relative_to(root).as_posix() for file in files.values()}
    for entry in listing.entries(root):
        if entry.path in own:
            continue
        said = contents.row(entry.path)
        if entry.reason:
            yield entry, None
        elif isinstance(known := describe(entry.path, said, layout), Description):
            yield entry, known
        else:
            yield Entry(entry.path, known), None
    for path in contents.unused_rows():
        outside = path.startswith(("/", "../")) or path == ".."
        yield Entry(path, "outside" if outside else "missing", "named by metadata"), None
