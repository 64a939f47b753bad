"""A board's dump: the archive format, the tables that stages need, the PostgreSQL databases that hold them."""
