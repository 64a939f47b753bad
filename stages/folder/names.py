"""Texts of any kind -> tags' names."""

from __future__ import annotations

import unicodedata


def name_of(text: str) -> str:
    """A text as a tag's name: as boards store them, in lower case, with single spaces and without commas."""
    text = unicodedata.normalize("NFC", text.encode(errors="replace").decode()).lower().replace(",", " ")
    return " ".join("".join(character if character.isprintable() else " " for character in text).split())


def key_of(path: str) -> str:
    """What all writings of a path have in common: other systems compose accents and write slashes otherwise."""
    return unicodedata.normalize("NFC", path.replace("\\", "/"))
