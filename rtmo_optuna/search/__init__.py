"""The Optuna study and its decisions."""
