"""From a data file to a study.yaml: what ``autotune init`` does."""
