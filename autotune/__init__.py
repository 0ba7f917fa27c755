"""autotune: fine-tune a small language model for a device, under limits, measured on what ships."""

import os

# ONNX Runtime's wheels hold a telemetry client; it reads this when it is loaded, here and in our processes.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
