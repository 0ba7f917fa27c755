"""Where artifacts are measured."""
