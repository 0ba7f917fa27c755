"""A file a command: arguments to plain values, results to the terminal or to one JSON object."""
