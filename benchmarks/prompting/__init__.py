"""Which words a small model answers best to."""
