"""Parameters of the restore stage."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from stages.workspace.parameters import Count, PathText, section


@section
class Restore:
    dump: PathText
    """Path of the board's dump, in the custom format of `pg_dump -Fc`."""
    sha256: Annotated[str, Field(pattern="^[0-9a-fA-F]{64}$")] | None = None
    """The checksum that the board publishes, in upper or lower case; null skips the comparison."""
    jobs: Count = 2
    """Parallel jobs of pg_restore."""
    compression: Annotated[int, Field(ge=0, le=9)] = 1
    """zlib level of `lite.pgdump`."""
