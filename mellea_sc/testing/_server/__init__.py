"""The model server's parts: connections, wire formats, and what a test says of both."""
