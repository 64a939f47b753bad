"""What a board knows of a picture besides its pixels."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Work:
    """A picture's metadata: a drawing's `cc:Work` in its RDF, or what the origin's table says."""

    title: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    creators: tuple[str, ...] = ()
    licences: tuple[str, ...] = ()
    origin: str = "openclipart"
    """The collection that it is from."""
    homepage: str = "http://www.openclipart.org/"
    """The collection's address."""
    first_id: int = 1
    """The board's id of the collection's first picture."""
