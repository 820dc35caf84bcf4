"""What programs that use the library are tested with: without a model, without a network.

scripted.py    a backend that gives the answers a test has written down
"""

from mellea_sc.testing.scripted import (
    Answer,
    Call,
    Fail,
    Outcome,
    Pause,
    Script,
    ScriptedBackend,
    ScriptExhausted,
    Stall,
    Step,
    is_judge_request,
)

__all__ = [
    "Answer",
    "Call",
    "Fail",
    "Outcome",
    "Pause",
    "Script",
    "ScriptExhausted",
    "ScriptedBackend",
    "Stall",
    "Step",
    "is_judge_request",
]
