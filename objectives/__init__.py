"""What is measured: the part of autotune that travels to the device (numpy, onnxruntime, psutil only)."""
