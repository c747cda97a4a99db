"""The parts of RTMO that torch.onnx.export writes in its own way: the arithmetic with shapes, and what indexes."""
