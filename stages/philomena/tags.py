"""Tags and tag categories that every Philomena board has."""

from __future__ import annotations

RATINGS = ("safe", "suggestive", "questionable", "explicit", "semi-grimdark", "grimdark", "grotesque")
UNUSABLE = ("rating", "origin", "error")
"""Categories whose tags do not describe what a picture shows."""
ARTIST = "artist:"
"""Prefix of artists' tags."""
