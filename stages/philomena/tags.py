"""Tags that every Philomena board has."""

from __future__ import annotations

RATINGS = ("safe", "suggestive", "questionable", "explicit", "semi-grimdark", "grimdark", "grotesque")
UNUSABLE = ("rating", "origin", "error")
"""Categories of tags that do not say what a picture shows."""
ARTIST = "artist:"
