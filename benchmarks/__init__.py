"""Side by side: mellea_sc, its peers and the bare event loop on the same work.

rows.py      what is measured, and what is to be reached
contestants.py   who is measured, and the virtual environment of each
run.py       the harness: fresh child processes, interleaved; writes results.json and REPORT.md
child.py     one measurement, in the virtual environment of its contestant
adapters/    how each library does the work; child.py imports one of them
wire_server.py   the model server of the rows that go over a socket, a process of its own
"""
