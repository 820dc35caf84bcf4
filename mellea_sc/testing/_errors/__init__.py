"""Random programs with errors in them: their parts, how they run, and where each error went."""
