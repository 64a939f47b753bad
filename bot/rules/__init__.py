"""Scores and circumstances -> what is to be done."""
