"""A message's pictures: references, fetching, decoding, scores, memory."""
