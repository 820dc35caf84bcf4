"""Small helpers around thunks."""
