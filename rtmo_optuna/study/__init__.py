"""The Optuna study: its database, its queue, who drives it, what it keeps."""
