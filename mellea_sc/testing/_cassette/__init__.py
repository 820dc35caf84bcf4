"""The cassette's file, and what is scrubbed from it."""
