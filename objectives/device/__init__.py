"""The end of an SSH connection on a device: the standard library alone, until the probe itself is started."""
