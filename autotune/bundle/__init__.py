"""The folder that a user copies to the device: the artifact, what was certified of it, and its own check."""
