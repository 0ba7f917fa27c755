"""autotune: fine-tune a small language model for a device, under limits, measured on what ships."""

__version__ = "0.1.0"
