"""Facts about Philomena, the software of the boards: picture addresses, tables, tags, signals to crawlers."""
