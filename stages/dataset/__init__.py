"""Groups of near-duplicates, splits, targets, cached arrays."""
