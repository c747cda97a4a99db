"""How a model is opened and run."""
