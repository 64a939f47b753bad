"""The model on the test split: metrics, curves, slices, corruptions, the report."""
