"""A folder of labelled pictures as a board: what it holds, its dump, its picture host, and a policy for its labels."""
