"""A model cut where a CUDA graph cannot hold it."""
