"""The page of `stages.corrections`: likely wrong labels first, one picture at a time, each answer a row of the file."""
