"""A policy and the database -> a row for each image."""
