"""Texts of any kind -> tags' names."""

from __future__ import annotations

import unicodedata


def name_of(text: str) -> str:
    """A text as a tag's name: as boards store them, in lower case, with single spaces and without commas."""
    return " ".join(printable(unicodedata.normalize("NFC", text)).lower().replace(",", " ").split())


def printable(text: str) -> str:
    """A text without control characters, and what no encoding has: PostgreSQL takes neither."""
    text = text.encode(errors="replace").decode()
    return "".join(character if character.isprintable() else " " for character in text)


def key_of(path: str) -> str:
    """What all writings of a path have in common: other systems compose accents and write slashes otherwise."""
    return unicodedata.normalize("NFC", path.encode(errors="replace").decode().replace("\\", "/"))
