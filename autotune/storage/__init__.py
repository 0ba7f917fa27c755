"""Content-addressed stages on disk: keys, entries, runs of a stage, what is free to go."""
