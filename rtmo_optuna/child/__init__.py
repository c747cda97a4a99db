"""Isolated session benchmarks: one child process each."""
