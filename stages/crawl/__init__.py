"""Crawling a picture host: pace, retries, the picture store, and the stage's outputs."""
