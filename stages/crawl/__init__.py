"""Pictures from a host: pace, retries, what is kept, the shards."""
