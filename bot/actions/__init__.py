"""Acting on messages and posting to the mod-log."""
