"""Pictures by other hands than Open Clip Art's, unpacked from Debian packages as the tables of `origins/` say."""

from __future__ import annotations

from pathlib import Path

from stages.sample import debian, tables
from stages.sample.readers import READERS
from stages.sample.tables import Origin
from stages.sample.works import Work
from stages.workspace.errors import SampleError


def unpack(origin: Origin, package: Path, folder: Path) -> dict[str, Work]:
    """Write the origin's pictures to `folder` as PNGs.

    Args:
        origin: the table.
        package: the package's file, checked.
        folder: the pictures' folder.

    Returns:
        Name below `folder`, for example `tango/32x32/apps/calculator.png` -> metadata.

    Raises:
        SampleError: if the package is damaged, or has none of the pictures.
    """
    drawings = READERS[origin.reader](debian.files(package, origin.inside))
    works = {}
    for picture in tables.choose(origin, drawings):
        name = f"{origin.name}/{picture.name}.png"
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(drawings[picture.name]())
        works[name] = _work(origin, picture.tags)
    if not works:
        raise SampleError(f"{package} has none of the pictures that {origin.name}.yaml names; delete it and try again")
    return works


def _work(origin: Origin, tags: tuple[str, ...]) -> Work:
    return Work(
        tags=tags,
        creators=(origin.creator,),
        licences=(origin.licence,),
        origin=origin.name,
        homepage=origin.homepage,
        first_id=origin.first_id,
    )
