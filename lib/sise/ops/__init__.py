"""Running it: the record of each run, what went in and what came out."""
