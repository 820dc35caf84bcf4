"""One streaming run: started by ``stream_with_chunking`` and ``m.stream``.

request.py   a run that is not started yet; chooses where to start it
run.py       the task of a run, and its state
result.py    the user's handle
view.py      decides which attempt is shown, and how much of it
readers.py   keeps released chunks and events for their readers
events.py    the events
streamer.py  Mellea's interface of it
"""
