"""The sample board: its packages, uploads, dump and picture host."""
