"""Parameters of the restore stage."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field

from stages.workspace.parameters import Count, section


def without_tilde(path: str) -> str:
    """Refuse a path that only a shell expands."""
    if path.startswith("~"):  # DVC reads it as well, and would look for a folder of that name
        raise ValueError(f"~ is not expanded; write the whole path, {Path(path).expanduser()}")
    return path


@section
class Restore:
    dump: Annotated[str, Field(min_length=1), AfterValidator(without_tilde)]
    """Path of the board's dump, in the custom format of `pg_dump -Fc`."""
    sha256: Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")] | None = None
    """The checksum that the board publishes, in upper or lower case; null skips the comparison."""
    jobs: Count = 2
    """Parallel jobs of pg_restore."""
    compression: Annotated[int, Field(ge=0, le=9)] = 1
    """zlib level of `lite.pgdump`."""
