"""Groups of near-duplicates, splits, training targets, cached arrays."""
