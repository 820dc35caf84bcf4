"""What programs that use the library are tested with: without a model, without a network.

    scripted.py                 a backend that gives the answers a test has written down
    cassette.py                 a real backend's answers, recorded and replayed
    server.py                   a model server on loopback that misbehaves on demand
    clock.py                    virtual time, and a repeatable order of tasks, on both event loops
    leaks.py                    nothing is left behind
    everywhere.py               a program cancelled at every checkpoint, or failing at every point
    interrupting.py             a blocking program with a Ctrl-C at every step
    failing.py                  a backend or a requirement that fails at one point
    conformance.py              does a backend keep its promises?
    wrapper_conformance.py      does a backend around another one lose anything of it?
    requirement_conformance.py  does a requirement keep its promises?
    strategies.py               what hypothesis makes up
    error_programs.py           random programs with errors in them, none of which may be lost
    pytest_plugin.py            the fixtures; nothing else here needs pytest

Underneath: _loops/ has what looks inside the event loops and the process, _errors/ the random programs,
_server/ and _cassette/ the parts of those two, and _promises.py what the conformance checks share.
"""

from mellea_sc.testing.cassette import Cassette, CassetteMismatch, Recording
from mellea_sc.testing.clock import Deadlock, LoopName, run_virtual, virtual_backend
from mellea_sc.testing.conformance import check_backend
from mellea_sc.testing.everywhere import cancel_everywhere, fail_everywhere
from mellea_sc.testing.failing import FailingBackend, FailingRequirement, InjectedError
from mellea_sc.testing.interrupting import interrupt_everywhere
from mellea_sc.testing.leaks import Leak, Leaked, LeakKind, assert_no_leaks
from mellea_sc.testing.requirement_conformance import check_requirement
from mellea_sc.testing.scripted import (
    Call,
    Fail,
    Outcome,
    Pause,
    Script,
    ScriptedAnswer,
    ScriptedBackend,
    ScriptExhausted,
    Stall,
    Step,
    is_judge_request,
)
from mellea_sc.testing.wrapper_conformance import check_wrapper

__all__ = [
    "Call",
    "Cassette",
    "CassetteMismatch",
    "Deadlock",
    "Fail",
    "FailingBackend",
    "FailingRequirement",
    "InjectedError",
    "Leak",
    "LeakKind",
    "Leaked",
    "LoopName",
    "Outcome",
    "Pause",
    "Recording",
    "Script",
    "ScriptExhausted",
    "ScriptedAnswer",
    "ScriptedBackend",
    "Stall",
    "Step",
    "assert_no_leaks",
    "cancel_everywhere",
    "check_backend",
    "check_requirement",
    "check_wrapper",
    "fail_everywhere",
    "interrupt_everywhere",
    "is_judge_request",
    "run_virtual",
    "virtual_backend",
]
