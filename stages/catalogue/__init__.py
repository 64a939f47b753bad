"""The catalogue: the images that a policy selects, one row each."""
