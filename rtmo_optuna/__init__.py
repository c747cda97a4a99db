"""Finds the fastest ONNX Runtime settings for a model on the machine at hand."""
