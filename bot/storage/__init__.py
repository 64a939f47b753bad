"""Tables, the database, settings and decisions."""
