"""From a base model and rows of data to an artifact: each file is one stage."""
