"""Parameters of the restore stage."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from stages.workspace.parameters import Count, FilePath, section

SHA256 = re.compile("[0-9a-f]{64}")


def _checksum(text: str) -> str:
    if SHA256.fullmatch(text.lower()) and text != text.lower():
        raise ValueError(f"write the SHA-256 in lower case: {text.lower()}")
    if not SHA256.fullmatch(text):
        raise ValueError(f"a SHA-256 has 64 digits from 0 to 9 and a to f; this has {len(text)} characters")
    return text


@section
class Restore:
    dump: FilePath
    """Path of the board's dump, in the custom format of `pg_dump -Fc`."""
    sha256: Annotated[str, AfterValidator(_checksum)] | None = None
    """The checksum that the board publishes; null skips the comparison."""
    jobs: Count = 2
    """Parallel jobs of pg_restore."""
    compression: Annotated[int, Field(ge=0, le=9)] = 1
    """zlib level of `lite.pgdump`."""
