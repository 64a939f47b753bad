"""A board's dump: its archive, the needed tables, the PostgreSQL that holds them."""
