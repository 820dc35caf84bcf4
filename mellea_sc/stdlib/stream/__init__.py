"""One streaming run: what ``stream_with_chunking`` and ``m.stream`` start.

request.py   a run that is not started yet, and where it is started
run.py       its task, and what is known of it
result.py    what its user holds: a handle
view.py      which attempt is shown, and how much of it
readers.py   the chunks and events that were shown, kept for their readers
events.py    the events
streamer.py  Mellea's names for it
"""
