"""What Philomena's own code prescribes: picture addresses, tables."""
