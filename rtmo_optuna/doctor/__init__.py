"""Is this machine fit: checks, each of which judges facts that were gathered before."""
