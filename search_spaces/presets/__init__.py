"""Ready-made search spaces, one YAML file each."""
