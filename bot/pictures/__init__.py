"""A message's pictures: finding, fetching and decoding them, their scores, and what moderators decided before."""
