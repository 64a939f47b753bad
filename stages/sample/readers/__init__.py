"""Readers of Debian packages: a package's files -> its pictures by name, each drawn only if it is wanted."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from stages.sample.readers import crossfire, decks, emoji, files, freeciv, glyphs
from stages.sample.readers.files import Drawings

READERS: Mapping[str, Callable[[Mapping[str, bytes]], Drawings]] = {
    "crossfire": crossfire.drawings,
    "decks": decks.drawings,
    "emoji": emoji.drawings,
    "files": files.drawings,
    "freeciv": freeciv.drawings,
    "glyphs": glyphs.drawings,
}
"""Name in a table -> the reader. It takes a package's files by path."""
