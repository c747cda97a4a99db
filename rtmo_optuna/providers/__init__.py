"""Execution providers of ONNX Runtime, one file each: all that is peculiar to one is in its object."""
