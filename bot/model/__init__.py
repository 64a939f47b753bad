"""The tagged model: git, lock file, DVC, and which release serves now."""
