"""The RTMO pose network as an ONNX graph with random weights, written with onnx and NumPy alone."""
