"""The arrays that a model runs on."""
