"""Values and contracts: no tasks, no I/O. Imports nothing of ours but itself."""
