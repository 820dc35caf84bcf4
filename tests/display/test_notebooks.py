"""Programs in the cells of a real Jupyter kernel: blocking calls, awaits, interruptions, and what is shown."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from kernels import BEGIN, PATIENCE, Kernel, started

nbformat = pytest.importorskip("nbformat")


def test_1_6_a_blocking_call_works_in_a_cell(kernel: Kernel) -> None:
    told = kernel.run("m.instruct('hi').value")
    assert told.get("text/plain") == "'Hello <there>.'", told
    assert kernel.run("print(m.chat('hi'))")["stream"] == "Hello <there>.\n"


def test_1_6_a_session_as_a_block_works_in_a_cell(kernel: Kernel) -> None:
    told = kernel.run("with start_session(backend=backend) as n: print(n.instruct('hi'))")
    assert told["stream"] == "Hello <there>.\n", told


def test_blocking_calls_and_awaits_share_a_session(kernel: Kernel) -> None:
    assert kernel.run("await m.ainstruct('hi', await_result=True); m.instruct('hi').value")[
        "text/plain"
    ]
    assert kernel.run("(await m.ainstruct('hi', await_result=True)).value")["text/plain"]
    assert kernel.run("outcomes()")["text/plain"] == "['ended', 'ended', 'ended']"


def test_a_task_beside_the_cells_is_still_told_to_await(kernel: Kernel) -> None:
    told = kernel.run(
        "import asyncio\nasync def beside(): return m.instruct('hi')\nawait asyncio.create_task(beside())"
    )
    assert told["error"] == "SyncCallInEventLoop"
    assert "ainstruct" in told["message"]


def test_1_6_interrupting_a_cell_cancels_its_blocking_call(interrupted: Kernel) -> None:
    kernel = interrupted
    told = kernel.run("m.instruct('wait')", interrupt_at="go")
    assert told["error"] == "KeyboardInterrupt"
    assert kernel.run("outcomes()")["text/plain"] == "['cancelled']"
    assert kernel.run("m.instruct('hi').value")["text/plain"] == "'Hello <there>.'"


@pytest.mark.parametrize(
    "waiting",
    [
        "await t",
        "await t.avalue()",
        "async for _ in t: pass",
        "async with m.stream('wait') as r: await r.acomplete()",
        "async with m.stream('wait') as r:\n    async for _ in r.astream(): pass",
    ],
)
def test_interrupting_a_cell_cancels_what_it_awaits(kernel: Kernel, waiting: str) -> None:
    told = kernel.run(f"t = await m.ainstruct('wait')\n{waiting}", interrupt_at="go")
    assert told["error"] == "CancelledError"
    assert kernel.interrupts == 1
    assert (
        kernel.run("await anyio.wait_all_tasks_blocked(); outcomes()[-1]")["text/plain"]
        == "'cancelled'"
    )


def test_a_thunk_whose_waiting_cell_was_interrupted_says_so(kernel: Kernel) -> None:
    kernel.run("t = await m.ainstruct('wait')\nawait t", interrupt_at="go")
    told = kernel.run("try: await t\nexcept GenerationCancelled as error: print(error)")
    assert "the cell that waited for it was interrupted" in told["stream"]


def test_2_3_a_scope_in_a_cell_that_ends_a_wait_does_not_cancel_the_thunk(kernel: Kernel) -> None:
    kernel.run("t = await m.ainstruct('wait')\nwith anyio.move_on_after(0.05): await t")
    assert kernel.run("outcomes()")["text/plain"] == "['running']"


def test_a_finished_thunk_shows_its_answer(kernel: Kernel) -> None:
    told = kernel.run("m.instruct('hi')")
    assert "Hello &lt;there&gt;." in told["text/html"]


def test_a_stream_in_a_cell_shows_its_text_and_what_ran_when(kernel: Kernel) -> None:
    told = kernel.run(
        "async with m.stream('hi', requirements=[MaxWords(9)]) as result: await result.acomplete()\n"
        "result"
    )
    assert "Hello &lt;there&gt;." in told["text/html"]
    assert "<svg" in told["text/html"]


@pytest.mark.parametrize(
    ("asking", "error", "lines"),
    [
        ("m.instruct('hi', requirements=[failing])", "ValueError", 9),
        ("await m.ainstruct('hi', requirements=[failing], await_result=True)", "ValueError", 9),
        ("await (await m.ainstruct('hi', requirements=[failing]))", "ValueError", 9),
        ("await m.avalidate([failing], output='text')", "ValueError", 9),
        ("await m.ainstruct('hi', requirements='be nice')", "InvalidOption", 12),
        ("t = await m.ainstruct('wait'); t.cancel(); await t", "GenerationCancelled", 14),
        (
            "async with m.stream('hi', requirements=[LLMJudge('?', backend=backend)]) as r:\n    await r.acomplete()",
            "UnclearJudgement",
            13,
        ),
    ],
)
def test_an_error_in_a_cell_is_a_few_lines(
    kernel: Kernel, asking: str, error: str, lines: int
) -> None:
    kernel.run("def fails(ctx): raise ValueError('a validator of mine')\nfailing = req('x', fails)")
    told = kernel.run(asking)
    assert told["error"] == error
    assert told["traceback"].count("\n") <= lines
    assert asking.splitlines()[-1] in told["traceback"]
    if error == "ValueError":
        assert "/mellea_sc/" not in told["traceback"]


def test_a_kernel_whose_cells_fail_writes_nothing_to_its_standard_error(tmp_path: Path) -> None:
    with (tmp_path / "stderr").open("w+") as stderr:
        with started(stderr) as kernel:
            kernel.run(BEGIN)
            for cell in (
                "m.instruct('hi', requirements=[req('x', lambda ctx: 1 / 0)])",
                "await m.ainstruct('hi', requirements=[req('x', lambda ctx: 1 / 0)], await_result=True)",
                "t = await m.ainstruct('wait'); t.cancel(); await t",
                "async with start_session(backend=backend) as n: await n.ainstruct('hi', requirements=[req('x', lambda ctx: 1 / 0)])",
            ):
                kernel.run(cell)
            assert kernel.run("m.cancel(); m.close(); await m.aclose(); 1")["text/plain"] == "1"
        stderr.seek(0)
        written = stderr.read().splitlines()
    # what ipykernel always says
    assert [line for line in written if "without encryption" not in line] == []


def test_a_notebook_runs_from_its_first_cell_to_its_last() -> None:
    # in a process of its own: the client's event loop is not for the loops of tests
    program = f"""
import nbclient, nbformat
cells = [{BEGIN!r}, "m.instruct('hi').value", "(await m.ainstruct('hi', await_result=True)).value", "m.close()"]
book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
nbclient.NotebookClient(book, timeout={PATIENCE:g}, kernel_name="python3").execute()
print([output["data"]["text/plain"] for cell in book.cells for output in cell.outputs])
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=2 * PATIENCE
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[\"'Hello <there>.'\", \"'Hello <there>.'\"]"
