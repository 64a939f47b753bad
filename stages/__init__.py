"""The pipeline: a module named by a verb is the DVC stage of that name, a folder holds nouns that stages share."""
