"""What to try next: the samplers of a study."""
