"""One streaming run: what ``stream_with_chunking`` and ``m.stream`` start.

run.py       the run's task: its attempts, its preconditions, its end
result.py    what its user sees
view.py      which chunks and events are shown, and when
tape.py      the events, kept for their reader
events.py    the events
streamer.py  Mellea's names for it
"""
