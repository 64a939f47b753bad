"""Tags and tag categories that every Philomena board has."""

from __future__ import annotations

RATINGS = ("safe", "suggestive", "questionable", "explicit", "semi-grimdark", "grimdark", "grotesque")
UNUSABLE = ("rating", "origin", "error")
"""Categories whose tags do not describe what a picture shows."""
ARTIST = "artist:"
"""Prefix of artists' tags."""
ORIGIN = "origin:"
"""Prefix of tags that name the collection that a picture is from; the sample board and folders have them."""
LICENCE = "licence:"
"""Prefix of tags that name a picture's licence."""
PREFIXES = (ARTIST, ORIGIN, LICENCE)
"""Of tags that tell where a picture comes from and not what it shows, whatever their category."""
