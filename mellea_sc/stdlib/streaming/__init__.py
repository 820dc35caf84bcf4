"""Text that is checked while it streams: one run, started by ``stream_with_chunking`` and ``m.stream``.

request.py  starts a run (``stream_with_chunking``, or ``stream`` as in Mellea), and chooses where
run.py      the task of a run, its state, and which attempt is shown
result.py   the user's handle
view.py     decides how much of an attempt is shown, and keeps that for the readers
events.py   the events

One delta's way, from the socket to the user::

    socket ─> backend.open() ─> pump ─> editors ─> Cutter ─> one lane (a task) per requirement
                                                                            │ stream_validate()
      user <── astream() / events() <── View <── release ── Ledger <── verdict
                                                     └────── cancel ──> the attempt's cancel scope
                                                                                 │
                                          the next Attempt <── a strategy's Ask ─┘

``sampling/runner.py`` has the attempts, and ``runtime/checks/`` the validation. There are editors only for requirements
that filter or fix.
"""

from mellea_sc._lazy import export_lazily

export_lazily(__name__)
