"""What may be tried: pure data, no torch, no ONNX Runtime, no Optuna."""
