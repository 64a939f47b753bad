"""Doing what was decided, and telling the moderators."""
