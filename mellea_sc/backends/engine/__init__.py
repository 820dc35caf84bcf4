"""The embedded engine: a model server that runs in a child process.

child.py      a child process that does not outlive its parent
process.py    the engine as such a child, shared by sessions
"""
